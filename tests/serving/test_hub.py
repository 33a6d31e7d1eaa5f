"""A model as a folder without its data set: the same recommendations, and nothing in the folder is trusted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from library_harness import TINY
from safetensors.torch import load_file, save_file

import athwe_core as athwe
from athwe_core.data.features import download
from athwe_core.data.histories import histories_of_users
from athwe_core.errors import AthweError, ConfigError, DataError
from athwe_core.safe_write import file_hash
from athwe_core.serving.export import export_run
from athwe_core.serving.hub import is_hub, open_hub
from athwe_core.serving.recommendations import SimilarItems, UserRecommendations


@pytest.fixture(scope="module")
def athwe_run(run: athwe.Run, tmp_path_factory: pytest.TempPathFactory) -> athwe.Run:
    """A run of the model that reads features, categories and clusters."""
    changes = TINY | {"model.unknown_id_dropout": 0.5}
    return athwe.train(run.data, preset="athwe", set=changes, name="features", runs_dir=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def folder(athwe_run: athwe.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("hub") / "model"
    export_run(athwe_run.folder, athwe_run.data, to, form="hub", columns=("title",), data_licence="CC0-1.0")
    return to


def test_an_exported_model_recommends_what_the_run_recommends(athwe_run: athwe.Run, folder: Path) -> None:
    opened = open_hub(str(folder))
    assert opened.name == "demo"
    assert opened.items.columns == ["item_id", "title"]
    histories = histories_of_users(athwe_run.data)
    table = UserRecommendations(opened, histories, k=5)
    found, expected = table.rows(0, table.size), athwe_run.recommend(k=5)
    assert found.drop("score").equals(expected.drop("score"))
    assert found["score"].to_list() == pytest.approx(expected["score"].to_list(), abs=1e-5)
    assert SimilarItems(opened, torch.tensor([3]).numpy(), k=2).rows(0, 1).height == 2


@pytest.mark.parametrize(("preset", "changes"), [("nova", {}), ("sasrec", {"model.repeat": True})])
def test_attributes_and_terms_of_seen_items_are_exported_too(
    run: athwe.Run, tmp_path: Path, preset: str, changes: dict[str, object]
) -> None:
    own = athwe.train(run.data, preset=preset, set=TINY | changes, runs_dir=tmp_path / "runs")
    export_run(own.folder, run.data, tmp_path / "model", form="hub")
    table = UserRecommendations(
        open_hub(str(tmp_path / "model")), histories_of_users(run.data), k=5, exclude_seen=False
    )
    found, expected = table.rows(0, table.size), own.recommend(k=5, exclude_seen=False)
    assert found.drop("score").equals(expected.drop("score"))


def test_the_card_names_data_rules_metrics_and_licence(athwe_run: athwe.Run, folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: athwe\n")
    for text in (
        f"prepared version {athwe_run.data.version}",
        f"{athwe_run.data.num_users:,} users",
        "Split: leave-one-out. Order of interactions at equal times: file.",
        "Licence of the data: CC0-1.0",
        f"| test | {athwe_run.metrics['test']['ndcg@10']:.4f} |",
    ):
        assert text in card


def test_names_of_the_hub_are_fetched_by_its_client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is replaced: the name and the revision reach it, and the folder it returns is opened."""
    import huggingface_hub

    asked: list[tuple[str, str | None]] = []

    def snapshot(repository: str, *, revision: str | None, allow_patterns: list[str], **_: object) -> str:
        asked.append((repository, revision))
        assert {"*.json", "*.safetensors"} <= set(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert open_hub("hf:me/toys@v2").name == "demo"
    assert asked[0] == ("me/toys", "v2")
    for name in ("hf:toys", "hf:me/", "hf:a/b/c"):
        with pytest.raises(ConfigError, match=r"^--run must be hf:owner/name"):
            open_hub(name)
    assert is_hub("hf:me/toys")
    assert is_hub(str(folder))
    assert not is_hub("last")
    assert download.fetch_model is not None


def test_damage_in_any_file_is_a_one_line_error(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "catalogue.safetensors", "items.json"):
        broken = tmp_path / name
        shutil.copytree(folder, broken)
        content = (broken / name).read_bytes()
        (broken / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError) as error:
            open_hub(str(broken))
        assert name in str(error.value)
        (broken / name).unlink()
        with pytest.raises(DataError):
            open_hub(str(broken))


def _other_config(folder: Path) -> None:
    facts = json.loads((folder / "config.json").read_text())
    facts["configuration"]["model"]["hidden_size"] = 16
    (folder / "config.json").write_text(json.dumps(facts))


def _other_key(folder: Path) -> None:
    facts = json.loads((folder / "config.json").read_text())
    facts["configuration"]["model"]["run"] = "rm -rf"
    (folder / "config.json").write_text(json.dumps(facts))


def _with_hash(folder: Path, name: str) -> None:
    """Whoever writes a hostile file can write its checksum too."""
    facts = json.loads((folder / "config.json").read_text())
    facts["files"][name] = file_hash(folder / name)
    (folder / "config.json").write_text(json.dumps(facts))


def _not_finite(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    next(tensor for tensor in tensors.values() if tensor.is_floating_point()).fill_(torch.nan)
    save_file(tensors, folder / "model.safetensors")
    _with_hash(folder, "model.safetensors")


def _fewer_items(folder: Path) -> None:
    items = json.loads((folder / "items.json").read_text())
    (folder / "items.json").write_text(json.dumps({name: column[:-1] for name, column in items.items()}))
    _with_hash(folder, "items.json")


def _no_features(folder: Path) -> None:
    tensors = load_file(folder / "catalogue.safetensors")
    del tensors["features.text"]
    save_file(tensors, folder / "catalogue.safetensors")
    _with_hash(folder, "catalogue.safetensors")


def _strange_times(folder: Path) -> None:
    facts = json.loads((folder / "config.json").read_text())
    facts["time_range"]["last"] = 2**70
    (folder / "config.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_config, "of shape"),
        (_other_key, r"model\.run"),
        (_not_finite, "must be finite"),
        (_fewer_items, "must have"),
        (_no_features, "do not fit together"),
        (_strange_times, "must be whole seconds"),
    ],
)
def test_files_that_are_well_formed_and_wrong_are_one_line_errors(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(folder, wrong)
    change(wrong)
    with pytest.raises(AthweError, match=message) as error:
        open_hub(str(wrong))
    assert "\n" not in str(error.value)


def test_items_hold_what_was_chosen_only(folder: Path, athwe_run: athwe.Run) -> None:
    items = json.loads((folder / "items.json").read_text())
    assert items["item_id"] == athwe_run.data.item_tokens
    assert items.keys() == {"item_id", "title"}
    assert pl.DataFrame(items).height == athwe_run.data.num_item_rows
