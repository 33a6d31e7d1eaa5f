"""One array of numbers from a `.npy`, `.safetensors` or `.pt` file that may come from anybody.

Nothing is unpickled but plain tensors, and no more memory is taken than the file has bytes: what a header claims counts
for nothing.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from athwe_core.errors import DataError
from athwe_core.messages import brief, listed
from athwe_core.warning_filters import warnings_as

if TYPE_CHECKING:
    from torch import Tensor

_AS_ARRAY = "Save it again as a plain numeric array: numpy.save or torch.save(torch.as_tensor(x), path)"
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06")
_AS_TENSOR = "Save it with torch.save(tensor, path)"


def read_array(path: Path, stem: str) -> Any:
    """The array in a file.

    Args:
        path: Its suffix says what it is.
        stem: Name of the tensor, where a `.safetensors` file holds several.
    Returns:
        An array of real numbers, of any shape.
    Raises:
        DataError: The file is damaged, holds something else, or claims more than it holds.
    """
    try:
        with warnings_as("ignore"):  # of other pickle protocols, which are refused next; of old headers
            array = _read_npy(path) if path.suffix == ".npy" else _read_tensor(path, stem)
    except DataError:
        raise
    except Exception as error:  # the readers raise many kinds, whose texts may advise to unpickle
        has_objects = "ickle" in f"{type(error).__name__} {error}" or "Python objects" in str(error)
        how = "without unpickling objects" if has_objects else f"as a {path.suffix} file"
        raise DataError(str(path), f"cannot be read {how} ({type(error).__name__})", remedy=_AS_ARRAY) from None
    if array.dtype.kind not in "fiub":
        raise DataError(str(path), "must hold real numbers", brief(str(array.dtype)), _AS_ARRAY)
    return array


def _read_npy(path: Path) -> Any:
    with path.open("rb") as file:  # np.load would leave a damaged one open
        is_archive = file.read(4) in _ARCHIVES
    if is_archive:
        raise DataError(str(path), "must be one array, and is an archive", remedy=_AS_ARRAY)
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)  # compares shape and size before it takes memory
    except ValueError as error:
        if "mmap length" not in str(error):
            raise
        rule = "is shorter than its header says"
        raise DataError(str(path), rule, f"{path.stat().st_size:,} bytes", "Copy or save it again") from None
    return np.load(path, allow_pickle=False)


def _read_tensor(path: Path, stem: str) -> Any:
    import torch  # noqa: PLC0415  (seconds to import; needed for these two formats only)

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # noqa: PLC0415

        tensors = load_file(path)
        if stem not in tensors and len(tensors) != 1:
            remedy = f"Name it {stem}, or save it alone"
            rule = f"must hold one tensor or one called {stem}, and holds {listed(sorted(tensors)) or 'none'}"
            raise DataError(str(path), rule, remedy=remedy)
        found = tensors[stem] if stem in tensors else next(iter(tensors.values()))
    else:
        _refuse_packed(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, torch.Tensor):
        raise DataError(str(path), "must hold one tensor", type(found).__name__, _AS_TENSOR)
    return _plain(path, found)


def _plain(path: Path, tensor: Tensor) -> Any:
    if tensor.is_sparse or tensor.is_quantized or tensor.is_complex():
        remedy = "Save it with torch.save(tensor.to_dense().float(), path)"
        raise DataError(str(path), "must hold a dense tensor of real numbers", str(tensor.dtype), remedy)
    if tensor.numel() * tensor.element_size() > path.stat().st_size:
        rule, shape = "must hold every number of its tensor", tuple(tensor.shape)
        raise DataError(str(path), rule, shape, "Save it with torch.save(tensor.contiguous(), path)")
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _refuse_packed(path: Path) -> None:
    """torch writes archives that are not compressed; a compressed one could unpack to any size."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        num_bytes = sum(entry.file_size for entry in archive.infolist())
    if num_bytes > path.stat().st_size:
        rule = "must not unpack to more bytes than it has"
        raise DataError(str(path), rule, f"{num_bytes:,}", _AS_TENSOR)
