"""Whatever lies beside the interactions as features: it is read, or one error says where and how to mend it."""

import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_cases import few_and_many, fuzz, mutated
from fuzz_inputs import assert_both, outcome
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save as save_tensors

from athwe_core.data.features.from_files import read_clusters, read_multi_hot, read_vectors
from athwe_core.data.features.row_order import ORDER_FILE

TOKENS = ["", "i0", "i1", "é", "../x"]
NUM_ROWS = len(TOKENS)
VECTORS = np.arange(2 * NUM_ROWS, dtype=np.float32).reshape(NUM_ROWS, 2)
FLAGS = (VECTORS % 2).astype(np.uint8)
LABELS = np.array([-1, 0, 1, 1, -1])
ARRAYS: dict[str, NDArray[Any]] = {"txt_emb": VECTORS, "cat": FLAGS, "txt_clusters": LABELS}
STEMS = st.sampled_from(sorted(ARRAYS))


def read_one(folder: Path, stem: str, suffix: str, content: bytes, order: bytes | None = None) -> str:
    """Read one feature file; say how far that came."""
    shutil.rmtree(folder / "toy", ignore_errors=True)
    (folder / "toy").mkdir()
    (folder / "toy" / f"{stem}{suffix}").write_bytes(content)
    if order is not None:
        (folder / "toy" / ORDER_FILE).write_bytes(order)

    def read() -> str:
        if stem == "txt_emb":
            vectors = read_vectors(folder / "toy", stem, TOKENS)
            assert vectors is not None
            assert vectors.vectors.dtype == np.float32
            assert vectors.vectors.shape[0] == NUM_ROWS
            assert not vectors.vectors[0].any()
            assert np.isfinite(vectors.vectors).all()
        elif stem == "cat":
            found = read_multi_hot(folder / "toy", TOKENS)
            assert found is not None
            assert set(np.unique(found[0])) <= {0, 1}
        else:
            labels = read_clusters(folder / "toy", stem, TOKENS)
            assert labels is not None
            assert labels.shape == (NUM_ROWS,)
            assert labels.dtype == np.int32
            assert labels.min() >= -1
        return "accepted"

    return outcome(read, place=stem if order is None else "")


def of_each(contents: Callable[[str], st.SearchStrategy[bytes]]) -> st.SearchStrategy[tuple[str, bytes]]:
    """A stem with a content for it."""
    made = {stem: st.tuples(st.just(stem), contents(stem)) for stem in ARRAYS}
    return STEMS.flatmap(made.__getitem__)


def npy(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


SIZES = st.sampled_from([0, 1, 2, NUM_ROWS, -1, 2**31, 2**62, 10**30])
SHAPES = st.lists(SIZES, max_size=3).map(tuple) | st.sampled_from(
    [(NUM_ROWS, 2), (NUM_ROWS,), [5, 2], "5", (5.0, 2), None]
)
TYPES = st.sampled_from(
    [
        *("<f4", ">f4", "<f2", "<f8", "<f16", "|i1", "<i4", ">i8", "<u8", "|b1", "|O", "<c8", "|S3", "<U2", "<M8[s]"),
        *("|V8", "(2,)<f4", "x", "", [("a", "<f4")], [("a", "|O")], "f4,f4", 7, None),
    ]
)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A `.npy` file that says anything of itself, before some bytes."""
    said: dict[str, Any] = {"descr": draw(TYPES), "fortran_order": draw(st.booleans()), "shape": draw(SHAPES)}
    said |= draw(st.dictionaries(st.sampled_from(["descr", "shape", "extra"]), st.none() | st.integers(), max_size=1))
    text = draw(
        st.sampled_from([repr(said), f"__import__('os').abort() or {said}", "(" * 500, "{" + "'a':1," * 3000, "", "'"])
    )
    text += draw(st.sampled_from(["\n", " \n", ""]))
    version = draw(st.sampled_from([1, 1, 1, 2, 3, 4, 0]))
    length = draw(st.sampled_from([len(text)] * 4 + [0, 2**16 - 1]))
    size = struct.pack("<H" if version <= 1 else "<I", length)
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + size
        + text.encode()
        + draw(st.sampled_from([VECTORS.tobytes(), b"", b"xy"]))
    )


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[Any]:
    """Arrays of any shape and type, odd values in them."""
    kind = draw(st.sampled_from(["f2", "f4", ">f8", "g", "i1", ">i2", "i8", "u1", "u8", "?", "c8", "M8[s]", "U1"]))
    shape = draw(st.sampled_from([(NUM_ROWS, 2), (NUM_ROWS,), (NUM_ROWS, 0), (0, 2), (), (4, 2), (NUM_ROWS, 1, 1)]))
    array = np.zeros(shape, dtype="f8")
    if array.size:
        odd = [np.nan, np.inf, -np.inf, 1e300, -1.0, 0.5, 2.0**31, 65504.0, 99_999.0, 100_000.0, 1e-320, 1.0]
        array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(odd))
    with np.errstate(all="ignore"):
        cast = array.astype("i8").astype(kind) if kind.startswith(("M", "U")) else array.astype(kind)
    return np.asfortranarray(cast) if draw(st.booleans()) else cast


@few_and_many
def test_npy_files(tmp_path: Path, cases: int) -> None:
    case = of_each(lambda stem: mutated(npy(ARRAYS[stem])) | headers() | arrays().map(npy) | st.just(npy(ARRAYS[stem])))
    assert_both(fuzz(lambda drawn: read_one(tmp_path, drawn[0], ".npy", drawn[1]), case, cases=cases))


@few_and_many
def test_order_files(tmp_path: Path, cases: int) -> None:
    good = "\n".join(["i1", *TOKENS[3:], "other"]).encode()
    lines = st.lists(st.sampled_from([*TOKENS, "\0", "\ufeff", "x" * 5000, "i0\r", "\x1b[31m", "\u2028"]), max_size=6)
    encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"])
    made = st.builds(lambda words, encoding: "\n".join(words).encode(encoding, "replace"), lines, encodings)
    array = npy(VECTORS[:4])
    case = st.just(good) | mutated(good) | made
    assert_both(fuzz(lambda order: read_one(tmp_path, "txt_emb", ".npy", array, order), case, cases=cases))


@st.composite
def said_tensors(draw: st.DrawFn) -> bytes:
    """A `.safetensors` file that says anything of itself."""
    one = st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(
                ["F32", "F16", "BF16", "F64", "I8", "U64", "BOOL", "F8_E4M3", "C64", "F4", "X", 3, None]
            ),
            "shape": st.lists(SIZES, max_size=3),
            "data_offsets": st.lists(st.sampled_from([0, 8, 40, -1, 2**62]), max_size=3),
            "extra": st.none(),
        },
    )
    said = draw(
        st.dictionaries(st.sampled_from(["txt_emb", "a", "", "__metadata__", "\x1b[31m"]), one | st.none(), max_size=3)
    )
    text = draw(st.sampled_from([json.dumps(said), "[" * 3000, "{}", "", json.dumps(said)[:-1], "{" + '"a":0,' * 9]))
    length = draw(st.sampled_from([len(text)] * 4 + [0, 2**62, 2**64 - 1, 99_999_999]))
    return struct.pack("<Q", length) + text.encode() + VECTORS.tobytes()


@few_and_many
def test_safetensors_files(tmp_path: Path, cases: int) -> None:
    good = {stem: save_tensors({"any": torch.from_numpy(array)}) for stem, array in ARRAYS.items()}
    case = of_each(lambda stem: mutated(good[stem]) | said_tensors() | st.just(good[stem]))
    assert_both(fuzz(lambda drawn: read_one(tmp_path, drawn[0], ".safetensors", drawn[1]), case, cases=cases))


def pt(found: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(found, file, **options)
    return file.getvalue()


class Calls:
    """Pickled, it is a call; unpickled, the call happens."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def tensors() -> list[Any]:
    """What people and attackers save as `.pt`."""
    x = torch.from_numpy(VECTORS)
    return [
        *(x, x.half(), x.bfloat16(), x.double(), x.long(), x.bool(), x.T.contiguous().T, x[:4], x.to(torch.complex64)),
        *(
            torch.nn.Parameter(x),
            x.to_sparse(),
            torch.zeros(1).expand(NUM_ROWS, 10**12),
            x.to("meta"),
            x.conj(),
            [x],
            {"x": x},
        ),
        *(VECTORS, None, 7, "x" * 1000, torch.zeros(NUM_ROWS, 0), torch.zeros(())),
        *(
            x.to(torch.float8_e4m3fn),
            x.to(torch.uint16),
            torch.full((NUM_ROWS, 2), float("nan")),
            torch.nn.Linear(2, 2),
        ),
        *(torch.from_numpy(FLAGS), torch.from_numpy(LABELS), torch.Size([1, 2]), torch.float32, torch.device("cpu")),
    ]


def refill(content: bytes, change: Callable[[bytes], bytes], *, how: int = zipfile.ZIP_STORED) -> bytes:
    """The same archive with its pickle changed: no checksum tells."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", how) as new:
        for entry in old.infolist():
            found = old.read(entry)
            new.writestr(entry.filename, change(found) if entry.filename.endswith("data.pkl") else found)
    return file.getvalue()


@pytest.fixture(scope="module")
def saved() -> list[bytes]:
    return [pt(found, **options) for found in tensors() for options in ({}, {"_use_new_zipfile_serialization": False})]


@few_and_many
def test_pt_files(tmp_path: Path, cases: int, saved: list[bytes]) -> None:
    victim = tmp_path / "victim"
    hostile = [pickle.dumps(Calls(function, str(victim))) for function in (Path.touch, open)]
    hostile += [pt(Calls(Path.touch, victim)), pickle.dumps(VECTORS), b"", b"\x80\x02", b"PK\x03\x04", npy(VECTORS)]
    archives = [content for content in saved if content.startswith(b"PK")]

    def changed(content: bytes) -> st.SearchStrategy[bytes]:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inner = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        how = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        return st.builds(lambda new, how: refill(content, lambda _: new, how=how), mutated(inner), how)

    good = {stem: pt(torch.from_numpy(array)) for stem, array in ARRAYS.items()}
    others = st.sampled_from(saved) | st.sampled_from(hostile)
    odd = st.sampled_from(archives).flatmap(changed) | st.sampled_from(saved).flatmap(mutated) | others
    case = of_each(lambda stem: changed(good[stem]) | mutated(good[stem]) | st.just(good[stem]) | odd)
    assert_both(fuzz(lambda drawn: read_one(tmp_path, drawn[0], ".pt", drawn[1]), case, cases=cases))
    assert not victim.exists()
