"""Neural encoders by Hugging Face name or folder: found, identified, loaded without pickles and without foreign code."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athwe_core.data.features.download import fetch_model
from athwe_core.errors import AthweError, ConfigError, DataError
from athwe_core.safe_write import file_hash

if TYPE_CHECKING:
    import torch

SAFE = {"local_files_only": True, "trust_remote_code": False}
"""Of every `from_pretrained`: files are fetched before, by `download`, and no code of a repository runs."""
_SUFFIXES = (".json", ".txt", ".model", ".safetensors")


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk.

    Attributes:
        name: Repository on the hub, or name of the folder.
        revision: Commit on the hub, or first 12 hex digits of a hash of the folder's files.
        folder: Where the files lie.
    """

    name: str
    revision: str
    folder: Path

    def identity(self) -> dict[str, str]:
        """What decides about the vectors: part of the version, of the shards' key and of the manifest."""
        return {"id": self.name, "revision": self.revision}


@dataclass(frozen=True)
class Encoder:
    """A loaded model with where and how it computes.

    Attributes:
        files: What it was loaded from.
        model: In float32, evaluation mode, on `device`.
        device, dtype: Products run in `dtype` there; weights, normalisation and softmax stay in float32.
        missing: Weights that the files lack; only those of a pooler, which then must not be used.
    """

    files: ModelFiles
    model: Any
    device: torch.device
    dtype: torch.dtype
    missing: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What the manifest says about every encoder."""
        import transformers  # noqa: PLC0415

        precision = str(self.dtype).removeprefix("torch.")
        return {**self.files.identity(), "precision": precision, "library": f"transformers {transformers.__version__}"}

    @contextmanager
    def computing(self) -> Iterator[None]:
        """No gradients, products in `dtype`."""
        import torch  # noqa: PLC0415

        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32),
        ):
            yield


def find_model(name: str, *, option: str) -> ModelFiles:
    """Find a model: a folder if there is one, else the Hugging Face cache, else the hub.

    Args:
        name: Folder, or `owner/model`, with `@revision` where another than the newest cached one is wanted.
        option: The option that named it, for messages.
    Raises:
        ConfigError: transformers is not installed.
        DataError: There is no such model, or it has no weights as safetensors.
    """
    if importlib.util.find_spec("transformers") is None:
        remedy = "Run: pip install 'athwe[encoders]'"
        raise ConfigError(option, "needs the library transformers, which is not installed", name, remedy)
    folder = Path(name).expanduser()
    if folder.is_dir():
        _refuse_without_weights(folder, option)
        return ModelFiles(folder.resolve().name, _content_revision(folder), folder)
    if name.startswith((".", "/", "~")):
        raise DataError(option, "must be a folder or the name of a model", name, "There is no such folder")
    repository, _, revision = name.partition("@")
    folder = fetch_model(repository, revision=revision or None, option=option)
    _refuse_without_weights(folder, option)
    return ModelFiles(repository, folder.name, folder)


def _refuse_without_weights(folder: Path, option: str) -> None:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        remedy = "Pickled weights are not read: load them where you trust them and save_pretrained(folder)"
        raise DataError(option, "must hold config.json and weights as .safetensors", str(folder), remedy)


def _content_revision(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _SUFFIXES:
            digest.update(f"{path.name}:{file_hash(path)}\n".encode())
    return digest.hexdigest()[:12]


def load_encoder(files: ModelFiles, *, option: str, device: str = "auto", precision: str = "auto") -> Encoder:
    """Load a model; towers `...WithProjection` keep their projection.

    Args:
        files: From `find_model`.
        option: The option that named it, for messages.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto (bf16 where the device is fast in it), fp32 or bf16.
    Raises:
        DataError: The files cannot be loaded, need code of the repository, or lack weights other than a pooler's.
    """
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    from athwe_core.device import resolve_device, resolve_precision  # noqa: PLC0415  (imports torch)

    place = resolve_device(device)
    with quiet(), loading(files, option):
        config = transformers.AutoConfig.from_pretrained(files.folder, **SAFE)
        architecture = (getattr(config, "architectures", None) or [""])[0]
        with_projection = architecture.endswith("WithProjection")
        kind = getattr(transformers, architecture) if with_projection else transformers.AutoModel
        model, found = kind.from_pretrained(
            files.folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **SAFE
        )
    missing = tuple(sorted(found["missing_keys"]))
    needed = [key for key in missing if "pooler" not in key]
    if needed:
        rule = f"lacks {len(needed)} weights of a {type(model).__name__}, which would be random"
        raise DataError(f"{option} {files.name}", rule, needed[0], "Name a model with all its weights")
    return Encoder(files, model.eval().to(place), place, resolve_precision(precision, place), missing)


@contextmanager
def loading(files: ModelFiles, option: str) -> Iterator[None]:
    """Turn what the libraries raise over a model's files into one DataError."""
    try:
        yield
    except AthweError:
        raise
    except Exception as error:  # they raise dozens of kinds, all of which mean the same to the user
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        rule = f"cannot be loaded from {files.folder} ({reason})"
        raise DataError(f"{option} {files.name}", rule, remedy="Fetch it again, or name another model") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Neither advice nor bars of the libraries: progress is told by callbacks, what matters by errors and notes."""
    import transformers  # noqa: PLC0415

    log = transformers.utils.logging
    verbosity, had_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if had_bars:
            log.enable_progress_bar()
