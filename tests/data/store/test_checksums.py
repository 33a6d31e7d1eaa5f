"""Files of a prepared version that change are noticed: at once where a cheap look shows it, with `check_all` always."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from athwe_core.data.prepare import PreparedDataset, open_prepared
from athwe_core.data.store import checksums
from athwe_core.data.store.checksums import CHECKED, changed_files, content_hash, file_hashes, looks_unchanged, remember
from athwe_core.errors import DataError

A, B = "a" * 64, "b" * 64


@pytest.fixture
def prepared(
    write_inter: Callable[..., Path],
    toy_rows: Sequence[tuple[str, str, object]],
    prepare_toy: Callable[..., PreparedDataset],
) -> PreparedDataset:
    folder = write_inter(toy_rows)
    (folder / "toy.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"i{n}\tred toy number {n}\n" for n in range(6))
    )
    return prepare_toy(text_width=4)


def reopen(prepared: PreparedDataset, *, check_all: bool = False) -> PreparedDataset:
    return open_prepared("toy", prepared_dir=prepared.path.parents[1], check_all=check_all)


def edit(path: Path, *, keeps_time: bool = False) -> None:
    """Change one value of an array in place, within what the array may hold."""
    status = path.stat()
    values = np.load(path)
    values.flat[-1] = values.flat[-2] if path.stem == "item_ids" else values.flat[-1] + 1
    np.save(path, values)
    if keeps_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def damage(path: Path, place: int) -> None:
    """Flip one bit and keep the time stamp, as a failing disk does."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("stem", ["text_features", "item_ids", "timestamps", "file_rows"])
def test_an_edited_array_is_refused_when_the_version_opens(prepared: PreparedDataset, stem: str) -> None:
    edit(prepared.path / f"{stem}.npy")
    with pytest.raises(
        DataError, match=rf"is damaged \({stem}\.npy is not what was written\)\. Delete that folder and"
    ):
        reopen(prepared)


def test_an_edited_array_with_its_old_time_stamp_is_refused_too(prepared: PreparedDataset) -> None:
    edit(prepared.path / "text_features.npy", keeps_time=True)
    with pytest.raises(DataError, match=r"text_features\.npy is not what was written"):
        reopen(prepared)


def test_an_edited_manifest_is_refused(prepared: PreparedDataset) -> None:
    path = prepared.path / "manifest.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["options"]["tie_order"] = "random"
    path.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(DataError, match=r"is damaged \(manifest\.json is not what was written\)"):
        reopen(prepared)


def test_a_manifest_that_leaves_a_file_out_is_refused(prepared: PreparedDataset) -> None:
    path = prepared.path / "manifest.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    del facts["files"]["text_features.npy"]
    facts["files"]["manifest.json"] = checksums.own_hash(facts, "manifest.json")
    path.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(DataError, match="files must list every file of this folder"):
        reopen(prepared)


def test_every_file_has_a_checksum(prepared: PreparedDataset) -> None:
    there = {path.name for path in prepared.path.iterdir()}
    assert prepared.manifest["files"].keys() | {CHECKED} == there


def test_a_copy_is_read_whole_once(prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy has other time stamps; its content decides, and from then on a cheap look is enough."""
    for path in prepared.path.iterdir():
        os.utime(path, ns=(0, 10**18))
    read: list[str] = []
    whole = checksums.file_hash

    def counted(path: Path) -> str:
        read.append(path.name)
        return whole(path)

    monkeypatch.setattr(checksums, "file_hash", counted)
    reopen(prepared)
    assert set(read) == prepared.manifest["files"].keys() - {"manifest.json"}
    read.clear()
    reopen(prepared)
    assert read == []
    reopen(prepared, check_all=True)
    assert set(read) == prepared.manifest["files"].keys() - {"manifest.json"}


def test_a_version_in_a_read_only_folder_opens(prepared: PreparedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    (prepared.path / CHECKED).unlink()
    monkeypatch.setattr(checksums, "replace_text", refuse)
    assert reopen(prepared).version == prepared.version
    edit(prepared.path / "item_ids.npy")
    with pytest.raises(DataError, match="is not what was written"):
        reopen(prepared)


class TestFiles:
    SIZE = 1_000_000

    @pytest.fixture
    def hashes(self, tmp_path: Path) -> dict[str, str]:
        (tmp_path / "large").write_bytes(bytes(range(256)) * (self.SIZE // 256))
        (tmp_path / "small").write_bytes(b"x")
        (tmp_path / "empty").touch()
        remember(tmp_path, ["large", "small", "empty"])
        return file_hashes(tmp_path, ["large", "small", "empty"])

    @pytest.mark.parametrize("place", [0, 4095, SIZE // 2 // 4096 * 4096, -1])
    def test_a_cheap_look_reads_blocks_from_the_first_to_the_last(
        self, tmp_path: Path, hashes: dict[str, str], place: int
    ) -> None:
        assert looks_unchanged(tmp_path, hashes)
        damage(tmp_path / "large", place if place in (0, 4095, -1) else (self.SIZE - 4096) * 7 // 15)
        assert not looks_unchanged(tmp_path, hashes)
        assert changed_files(tmp_path, hashes, everything=False) == ["large"]

    def test_between_the_blocks_only_a_whole_look_notices(self, tmp_path: Path, hashes: dict[str, str]) -> None:
        damage(tmp_path / "large", 5000)
        assert changed_files(tmp_path, hashes, everything=False) == []
        assert changed_files(tmp_path, hashes, everything=True) == ["large"]

    def test_a_missing_file_is_an_error(self, tmp_path: Path, hashes: dict[str, str]) -> None:
        (tmp_path / "small").unlink()
        with pytest.raises(FileNotFoundError):
            changed_files(tmp_path, hashes, everything=False)

    @pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 99_999])
    def test_a_damaged_memory_means_reading_whole(self, tmp_path: Path, hashes: dict[str, str], content: bytes) -> None:
        (tmp_path / CHECKED).write_bytes(content)
        assert changed_files(tmp_path, hashes, everything=False) == []
        assert looks_unchanged(tmp_path, hashes)


def test_the_content_hash_is_over_the_given_arrays_in_their_order() -> None:
    hashes = {"y.npy": B, "x.npy": A, "users.parquet": A}
    assert content_hash(hashes, ["x", "y", "z"]) == content_hash({"x.npy": A, "y.npy": B}, ["x", "y"])
    assert content_hash(hashes, ["y", "x"]) != content_hash(hashes, ["x", "y"])
    assert content_hash({"x.npy": A}, ["x"]) == hashlib.sha256(f"x:{A}\n".encode()).hexdigest()
