"""Exports appear whole, replace nothing but an earlier export, and refuse what they cannot write."""

import json
from pathlib import Path

import pytest

import athwe_core as athwe
from athwe_core.errors import ConfigError
from athwe_core.serving import export
from athwe_core.serving.export import export_run


def test_an_export_lists_its_files_and_is_replaced_only_when_told(run: athwe.Run, tmp_path: Path) -> None:
    to = tmp_path / "out"
    exported = export_run(run.folder, run.data, to, form="vectors")
    assert exported.files == {path.name: path.stat().st_size for path in to.iterdir() if path.name != "export.json"}
    facts = json.loads((to / "export.json").read_text())
    assert (facts["form"], facts["run"], facts["files"]) == ("vectors", run.name, exported.files)
    with pytest.raises(ConfigError, match=r"^--to must not hold out yet, got .* Add --overwrite"):
        export_run(run.folder, run.data, to, form="hub")
    export_run(run.folder, run.data, to, form="hub", overwrite=True)
    assert not (to / "users.npy").exists()
    (to / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"no export wrote mine\.txt there"):
        export_run(run.folder, run.data, to, form="vectors", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_export_leaves_nothing(run: athwe.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_vectors", fail)
    with pytest.raises(OSError, match="No space left"):
        export_run(run.folder, run.data, tmp_path / "out", form="vectors")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_found_before_anything_is_written(run: athwe.Run, tmp_path: Path) -> None:
    for settings, message in [
        ({"form": "pickle"}, r"^--format must be vectors, onnx or hub, got 'pickle'"),
        ({"form": "hub", "columns": ("titel",)}, "^--with must name columns"),
    ]:
        with pytest.raises(ConfigError, match=message):
            export_run(run.folder, run.data, tmp_path / "out", **settings)
    with pytest.raises(ConfigError, match=r"^--to must be in a folder that exists"):
        export_run(run.folder, run.data, tmp_path / "none" / "out", form="hub")
    assert list(tmp_path.iterdir()) == []
