"""Feature files as the world has them: what is odd about each, and what must come of it."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_inputs import ITEMS
from malformed_cases import GOOD, Case, Read, Refused
from numpy.typing import NDArray
from safetensors.torch import save as save_tensors

NUM_ROWS = ITEMS + 1
VECTORS = np.stack([np.arange(NUM_ROWS), -np.arange(NUM_ROWS)], axis=1).astype(np.float32)  # row k says k
TENSOR = torch.from_numpy(VECTORS)
ORDER = "emb_item_order.txt"
NAMES = "\n".join(f"i{k}" for k in range(ITEMS)).encode()
RIGHT = Read(text=VECTORS[1:, 0].tolist(), missing=0)
SAVE_AGAIN = "Save it again as a plain numeric array"


class Touches:
    """Unpickled, it leaves the file `victim` in the working folder."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (Path("victim"),)


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asanyarray(array), **options)
    return file.getvalue()


def said(shape: str, *, descr: str = "'<f4'", extra: str = "") -> bytes:
    """A `.npy` file whose header says so, before the numbers of `VECTORS`."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, {extra}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + VECTORS.tobytes()


def with_value(value: float, dtype: str = "float32") -> NDArray[Any]:
    array = VECTORS.astype(dtype)
    array[3, 1] = value
    return array


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr(zipfile.ZipInfo("x.npy"), npy(VECTORS))
    return file.getvalue()


def pt(found: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(found, file, **options)
    return file.getvalue()


def deflated(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return file.getvalue()


def safetensors(header: dict[str, Any] | str, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text) if length is None else length) + text.encode() + VECTORS.tobytes()


def tensor_header(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [NUM_ROWS, 2], "data_offsets": [0, VECTORS.nbytes], **changes}}


def refused(rule: str, remedy: str = SAVE_AGAIN, where: str = r"txt_emb") -> Refused:
    return Refused(where, rule, remedy)


VECTORS_NPY = {
    "vectors of float64": (npy(VECTORS.astype(np.float64)), RIGHT),
    "vectors of float16": (npy(VECTORS.astype(np.float16)), RIGHT),
    "vectors of whole numbers": (npy(VECTORS.astype(np.int8)), RIGHT),
    "big-endian vectors": (npy(VECTORS.astype(">f4")), RIGHT),
    "vectors column by column": (npy(np.asfortranarray(VECTORS)), RIGHT),
    "vectors with bytes behind": (npy(VECTORS) + b"more", RIGHT),
    "a header of python 2": (said(f"({NUM_ROWS}L, 2L)"), RIGHT),
    "a zero vector": (
        npy(np.where(np.arange(NUM_ROWS)[:, None] == 2, 0, VECTORS)),
        Read(text=[1, 0, 3, 4, 5, 6], missing=1),
    ),
    "a padding row that is not zero": (
        npy(np.where(np.arange(NUM_ROWS)[:, None] == 0, 9, VECTORS)),
        Read(text=RIGHT.text, says="it was set to zero"),
    ),
    "a vector too few": (
        npy(VECTORS[1:]),
        refused("must be 7: padding and 6 items .* got 6", "Save the vectors as .npy beside", "rows of .*txt_emb"),
    ),
    "a vector too many": (
        npy(np.zeros((8, 2))),
        refused("must be 7: .* got 8", "Save the vectors as .npy beside", "rows of .*txt_emb"),
    ),
    "no vectors": (
        npy(VECTORS[:0]),
        refused("must be 7: .* got 0", "Save the vectors as .npy beside", "rows of .*txt_emb"),
    ),
    "one number": (
        npy(np.float32(3)),
        refused("must be 7: .* got 0", "Save the vectors as .npy beside", "rows of .*txt_emb"),
    ),
    "vectors of width 0": (
        npy(VECTORS[:, :0]),
        refused(r"must be of shape \(items, width\), got \(7, 0\)", "one row an item"),
    ),
    "a number an item": (
        npy(VECTORS[:, 0]),
        refused(r"must be of shape \(items, width\), got \(7,\)", "one row an item"),
    ),
    "a matrix an item": (
        npy(VECTORS[..., None]),
        refused(r"must be of shape \(items, width\), got \(7, 2, 1\)", "one row an item"),
    ),
    "vectors of texts": (npy(VECTORS.astype(str)), refused("must hold real numbers, got '<U32'")),
    "vectors of dates": (npy(VECTORS.astype("i8").astype("M8[s]")), refused("must hold real numbers")),
    "complex vectors": (npy(VECTORS.astype(complex)), refused("must hold real numbers, got 'complex128'")),
    "vectors with named fields": (npy(np.zeros(NUM_ROWS, dtype=[("a", "f4")])), refused("must hold real numbers")),
    "vectors of python objects": (
        npy(np.array([[Touches()] * 2] * NUM_ROWS), allow_pickle=True),
        refused("cannot be read without unpickling objects"),
    ),
    "a NaN": (
        npy(with_value(np.nan)),
        refused("must hold finite numbers, got nan", "encode them again", r"txt_emb\.npy row 3 \(item 'i2'\)"),
    ),
    "an infinity": (
        npy(with_value(-np.inf)),
        refused("must hold finite numbers, got -inf", "encode them again", r"txt_emb\.npy row 3 \(item 'i2'\)"),
    ),
    "more than float32 holds": (
        npy(with_value(1e300, "float64")),
        refused("must hold finite numbers, got inf", "encode them again", r"row 3 \(item 'i2'\)"),
    ),
    "an empty array file": (b"", refused(r"cannot be read as a \.npy file \(EOFError\)")),
    "a truncated array": (
        npy(VECTORS)[:-1],
        refused("is shorter than its header says, got '183 bytes'", "Copy or save it again"),
    ),
    "a shape of terabytes": (
        said(f"({NUM_ROWS}, 1000000000000)"),
        refused("is shorter than its header says", "Copy or save it again"),
    ),
    "a shape that overflows": (said(f"({NUM_ROWS}, {2**62})"), refused("cannot be read as a .npy file")),
    "a negative shape": (said(f"({NUM_ROWS}, -2)"), refused("cannot be read as a .npy file")),
    "rows without width, without end": (
        said("(1000000000000, 0)"),
        refused("must be 7: .* got 1000000000000", "Save the vectors", "rows of"),
    ),
    "code in a header": (
        said("__import__('pathlib').Path('victim').touch()"),
        refused("cannot be read as a .npy file"),
    ),
    "a type that is none": (said(f"({NUM_ROWS}, 2)", descr="'x9'"), refused("cannot be read as a .npy file")),
    "a header that says more": (said(f"({NUM_ROWS}, 2)", extra="'more': 1"), refused("cannot be read as a .npy file")),
    "a header that never ends": (
        said(f"({NUM_ROWS}, 2)").replace(b"}", b" "),
        refused("cannot be read as a .npy file"),
    ),
    "an archive of arrays named npy": (archive(), refused("must be one array, and is an archive")),
    "a damaged archive of arrays named npy": (archive()[:-30], refused("must be one array, and is an archive")),
    "a pickle named npy": (pickle.dumps(Touches()), refused("cannot be read without unpickling objects")),
    "a csv named npy": (b"1,2\n3,4\n", refused("cannot be read")),
}
VECTORS_PT = {
    "the format of torch before 1.6": (pt(TENSOR, _use_new_zipfile_serialization=False), RIGHT),
    "a parameter": (pt(torch.nn.Parameter(TENSOR)), RIGHT),
    "bfloat16": (pt(TENSOR.bfloat16()), RIGHT),
    "a view of a larger tensor": (pt(torch.cat([TENSOR, TENSOR], dim=1)[:, :2]), RIGHT),
    "a pickled numpy array": (pt(VECTORS), refused("cannot be read without unpickling objects")),
    "a pickle that runs code": (pt(Touches()), refused("cannot be read without unpickling objects")),
    "a bare pickle that runs code": (pickle.dumps(Touches()), refused("cannot be read without unpickling objects")),
    "a dictionary": (pt({"x": TENSOR}), refused("must hold one tensor, got 'dict'", r"torch\.save\(tensor, path\)")),
    "a sparse tensor": (pt(TENSOR.to_sparse()), refused("must hold a dense tensor of real numbers", "to_dense")),
    "a tensor without numbers": (pt(TENSOR.to("meta")), refused("cannot be read as a .pt file")),
    "one number expanded to terabytes": (
        pt(torch.zeros(1).expand(NUM_ROWS, 10**12)),
        refused("must hold every number of its tensor, got .7, 10", "contiguous"),
    ),
    "an archive that unpacks to more": (
        deflated(pt(torch.zeros(NUM_ROWS, 10**6))),
        refused("must not unpack to more bytes than it has", r"torch\.save"),
    ),
    "a truncated tensor": (pt(TENSOR)[:-99], refused("cannot be read as a .pt file")),
    "an empty tensor file": (b"", refused("cannot be read as a .pt file")),
    "an array named pt": (npy(VECTORS), refused("cannot be read without unpickling objects")),
}
VECTORS_SAFETENSORS = {
    "a tensor of another name": (save_tensors({"x": TENSOR}), RIGHT),
    "two tensors": (
        save_tensors({"a": TENSOR, "b": TENSOR + 1}),
        refused("must hold one tensor or one called txt_emb, and holds a, b", "Name it txt_emb"),
    ),
    "no tensors": (
        save_tensors({}),
        refused("must hold one tensor or one called txt_emb, and holds none", "Name it txt_emb"),
    ),
    "a truncated safetensors file": (
        save_tensors({"x": TENSOR})[:-1],
        refused("cannot be read as a .safetensors file"),
    ),
    "an empty safetensors file": (b"", refused("cannot be read as a .safetensors file")),
    "a header of exabytes": (
        safetensors(tensor_header(), length=2**62),
        refused("cannot be read as a .safetensors file"),
    ),
    "a header that is no json": (safetensors("x" * 64), refused("cannot be read as a .safetensors file")),
    "a header nested without end": (safetensors("[" * 5000), refused("cannot be read as a .safetensors file")),
    "numbers beyond the end": (
        safetensors(tensor_header(data_offsets=[0, 2**40])),
        refused("cannot be read as a .safetensors file"),
    ),
    "a shape beyond its bytes": (
        safetensors(tensor_header(shape=[NUM_ROWS, 10**12])),
        refused("cannot be read as a .safetensors file"),
    ),
    "a type that safetensors lacks": (
        safetensors(tensor_header(dtype="X9")),
        refused("cannot be read as a .safetensors file"),
    ),
    "a hole between tensors": (
        safetensors(tensor_header(data_offsets=[8, 8 + VECTORS.nbytes])),
        refused("cannot be read as a .safetensors file"),
    ),
}
ORDERS = {
    "an order with a byte order mark and crlf": (b"\xef\xbb\xbf" + NAMES.replace(b"\n", b"\r\n"), RIGHT),
    "an order upside down": (b"\n".join(NAMES.split(b"\n")[::-1]), Read(text=[6, 5, 4, 3, 2, 1], missing=0)),
    "an order in latin-1": (
        NAMES.replace(b"i2", b"\xe9"),
        refused(r"must be UTF-8 text, got b'\\xe9'", "LATIN1", r"emb_item_order\.txt line 3"),
    ),
    "an order in utf-16": (
        NAMES.decode().encode("utf-16"),
        refused("must be UTF-8 text", "UTF-16", r"emb_item_order\.txt line 1"),
    ),
    "an order with an id twice": (
        NAMES.replace(b"i2", b"i1"),
        refused("must be an item id that no other line has, got 'i1'", "one raw item id a line", "line 3"),
    ),
    "an order with a blank line": (
        NAMES.replace(b"i2", b""),
        refused("must be an item id .* got ''", "one raw item id a line", "line 3"),
    ),
    "an order that is too short": (
        NAMES[:-3],
        refused("must be 5, one for each line of emb_item_order.txt, got 6", "one run", "rows of"),
    ),
    "an order of other items": (
        NAMES.replace(b"i", b"other"),
        refused("none of its 6 lines does, got 'other0'", "another data set", r"emb_item_order\.txt"),
    ),
    "an empty order": (
        b"",
        refused("must be an item id .* got ''", "one raw item id a line", r"emb_item_order\.txt line 1"),
    ),
}
LABELS = np.array([-1, 0, 1, 2, 0, 1, 2])
FLAGS = np.eye(NUM_ROWS)[:, 1:]
FLAGS_2, FLAGS_NAN = FLAGS.copy(), FLAGS.copy()
FLAGS_2[2, 1], FLAGS_NAN[2, 1] = 2, np.nan
WHOLE = "must hold whole labels >= 0, or -1 for none, below 100,000, got "


def labels(value: float, dtype: str = "float64") -> bytes:
    array = LABELS.astype(dtype)
    array[4] = value
    return npy(array)


def wrong_label(value: str) -> Refused:
    return Refused(r"txt_clusters\.npy row 4 \(item 'i3'\)", WHOLE + value, "Number the clusters from 0")


OTHERS = {
    "labels of an unsigned type": ("txt_clusters.npy", npy(LABELS.clip(0).astype(np.uint64)), Read()),
    "a label of a half": ("txt_clusters.npy", labels(0.5), wrong_label("0.5")),
    "a label of -2": ("txt_clusters.npy", labels(-2), wrong_label("-2.0")),
    "a label of NaN": ("txt_clusters.npy", labels(np.nan), wrong_label("nan")),
    "an infinite label of float16": ("txt_clusters.npy", labels(np.inf, "float16"), wrong_label("inf")),
    "a label of billions": ("txt_clusters.npy", labels(2**31 - 1, "int64"), wrong_label("2147483647")),
    "labels in a matrix": (
        "txt_clusters.npy",
        npy(LABELS[:, None]),
        refused(r"must be of shape \(items,\), got \(7, 1\)", "one row", "txt_clusters"),
    ),
    "a category of 2": (
        "cat.npy",
        npy(FLAGS_2),
        Refused(r"cat\.npy row 2 \(item 'i1'\)", "must hold 0 and 1 only, got 2", "else 0"),
    ),
    "a category of NaN": (
        "cat.npy",
        npy(FLAGS_NAN),
        Refused(r"cat\.npy row 2 \(item 'i1'\)", "must hold 0 and 1 only, got nan", "else 0"),
    ),
    "categories in a row": (
        "cat.npy",
        npy(LABELS),
        refused(r"must be of shape \(items, categories\), got \(7,\)", "one row", "cat"),
    ),
}


def beside(**files: bytes) -> dict[str, bytes]:
    return {"toy.inter": GOOD, **files}


FEATURE_CASES = {
    **{name: Case(beside(**{"txt_emb.npy": content}), expected) for name, (content, expected) in VECTORS_NPY.items()},
    **{name: Case(beside(**{"txt_emb.pt": content}), expected) for name, (content, expected) in VECTORS_PT.items()},
    **{
        name: Case(beside(**{"txt_emb.safetensors": content}), expected)
        for name, (content, expected) in VECTORS_SAFETENSORS.items()
    },
    **{
        name: Case(beside(**{"txt_emb.npy": npy(VECTORS[1:]), ORDER: content}), expected)
        for name, (content, expected) in ORDERS.items()
    },
    **{name: Case(beside(**{file: content}), expected) for name, (file, content, expected) in OTHERS.items()},
    "vectors in two files": Case(
        beside(**{"txt_emb.npy": npy(VECTORS), "txt_emb.pt": pt(TENSOR)}),
        Refused("toy", r"holds txt_emb\.pt and txt_emb\.npy, which are features of one kind", "Keep one of them"),
    ),
}
