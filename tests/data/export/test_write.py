"""What is exported is what was prepared, in a form that others read."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from athwe_core import safe_write
from athwe_core.data.export import recbole
from athwe_core.data.export.recbole import LIST_LENGTH
from athwe_core.data.export.write import MARKER, export_dataset
from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare
from athwe_core.data.readers.atomic import read_table
from athwe_core.errors import ConfigError, DataError

Write = Callable[..., Path]
Prepare = Callable[..., PreparedDataset]
Rows = list[tuple[str, str, object]]
PARTS = ("train", "valid", "test")


@pytest.fixture
def with_features(write_inter: Write, toy_rows: Rows, prepare_toy: Prepare) -> PreparedDataset:
    """Toy data, shuffled so that no numbering is another one, with every kind of feature; vector of item k says k."""
    rows = [toy_rows[row] for row in np.random.default_rng(0).permutation(len(toy_rows))]
    folder = write_inter(rows)
    first_seen = list(dict.fromkeys(item for _, item, _ in rows))
    codes = np.array([0, *(int(item[1]) + 1 for item in first_seen)])
    for name in ("txt", "img"):
        torch.save(torch.from_numpy(codes[:, None] * [1.0, 10.0]), folder / f"{name}_emb.pt")
        np.save(folder / f"{name}_clusters.npy", codes - 1)
    torch.save(torch.eye(7)[codes][:, 1:], folder / "cat.pt")
    lines = ["item_id:token\ttitle:token_seq\tcategories:token_seq", *(f'i{k}\t"a" toy {k}\tx y' for k in range(6))]
    (folder / "toy.item").write_text("\n".join(lines))
    return prepare_toy()


def histories(prepared: PreparedDataset) -> dict[str, list[tuple[str, int]]]:
    found = {}
    for user, token in enumerate(prepared.user_tokens):
        rows = slice(prepared.offsets[user], prepared.offsets[user + 1])
        items = [prepared.item_tokens[item] for item in prepared.item_ids[rows]]
        found[token] = list(zip(items, prepared.timestamps[rows].tolist(), strict=True))
    return found


def lines_of(folder: Path, name: str) -> dict[str, list[tuple[str, list[tuple[str, int]]]]]:
    """(user, history with the target last) of every line, read with nothing but split."""
    found: dict[str, list[tuple[str, list[tuple[str, int]]]]] = {}
    for part in PARTS:
        header, *lines = (folder / f"{name}.{part}.inter").read_text().splitlines()
        assert (
            header == "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp_list:float_seq\ttimestamp:float"
        )
        found[part] = []
        for line in lines:
            user, items, item, times, time = line.split("\t")
            history = list(zip(items.split(" "), map(int, times.split(" ")), strict=True))
            found[part].append((user, [*history, (item, int(time))]))
    return found


class TestRecBole:
    def test_every_line_is_a_history_and_its_target(self, with_features: PreparedDataset, tmp_path: Path) -> None:
        exported = export_dataset(with_features, tmp_path / "out", form="recbole")
        assert exported.path == tmp_path / "out" / "toy"
        found, expected = lines_of(exported.path, "toy"), histories(with_features)
        assert found["train"] == [
            (user, rows[:end]) for user, rows in expected.items() for end in range(2, len(rows) - 1)
        ]
        assert found["valid"] == [(user, rows[:-1]) for user, rows in expected.items()]
        assert found["test"] == list(expected.items())
        assert exported.notes == ()

    def test_rows_of_features_follow_the_numbering_of_recbole(
        self, with_features: PreparedDataset, tmp_path: Path
    ) -> None:
        folder = export_dataset(with_features, tmp_path, form="recbole").path
        found = lines_of(folder, "toy")
        targets = [rows[-1][0] for part in PARTS for _, rows in found[part]]
        table = read_table(folder / "toy.item", required=("item_id",)).frame
        numbering = ["", *dict.fromkeys([*targets, *table["item_id"]])]
        assert numbering != with_features.item_tokens
        codes = [0.0, *(float(item[1]) + 1 for item in numbering[1:])]
        for name in ("txt", "img"):
            vectors = torch.load(folder / f"{name}_emb.pt", weights_only=True)
            assert vectors.dtype == torch.float32
            factor = with_features.statistics["features"]["text"]["scale"]["factor"]
            np.testing.assert_allclose(vectors.numpy(), factor * np.outer(codes, [1, 10]), rtol=1e-6)
            assert np.load(folder / f"{name}_clusters.npy").tolist() == [code - 1 for code in codes]
        assert torch.load(folder / "cat.pt", weights_only=True).argmax(dim=1).tolist()[1:] == [
            code - 1 for code in codes[1:]
        ]
        assert table["title"].to_list() == [f"''a\" toy {item[1]}" for item in table["item_id"]]

    def test_the_configuration_names_what_is_there(self, with_features: PreparedDataset, tmp_path: Path) -> None:
        folder = export_dataset(with_features, tmp_path, form="recbole").path
        config = yaml.safe_load((folder / "toy.yaml").read_text())
        assert all((folder / f"toy.{part}.inter").is_file() for part in config["benchmark_filename"])
        header = (folder / "toy.train.inter").read_text().split("\n")[0]
        assert config["load_col"]["inter"] == [column.split(":")[0] for column in header.split("\t")]
        assert config["alias_of_item_id"] == ["item_id" + config["LIST_SUFFIX"]]
        assert config["MAX_ITEM_LIST_LENGTH"] == LIST_LENGTH

    def test_long_histories_keep_their_latest_items(
        self, write_inter: Write, prepare_toy: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recbole, "_ELEMENTS_AT_ONCE", 70)
        write_inter([(user, f"i{step}", step) for user in "abcde" for step in range(60)])
        exported = export_dataset(prepare_toy(), tmp_path, form="recbole")
        found = lines_of(exported.path, "toy")
        assert [len(rows) - 1 for _, rows in found["train"][:57]] == [min(length, 50) for length in range(1, 58)]
        assert found["test"][0] == ("a", [(f"i{step}", step) for step in range(9, 60)])
        assert exported.notes == (f"{5 * 9} histories are longer than 50 items: the latest 50 are written",)

    def test_a_global_time_split_asks_whom_it_asks(self, tmp_path: Path) -> None:
        options = PrepareOptions(demo_users=150, demo_items=100, split="global-time", held_out_share=0.2)
        prepared = prepare("demo", data_dir=tmp_path, prepared_dir=tmp_path / "prepared", options=options)
        folder = export_dataset(prepared, tmp_path / "out", form="recbole").path
        found, expected = lines_of(folder, "demo"), histories(prepared)
        for part, name in (("valid", "validation"), ("test", "test")):
            users = prepared.split.users(name)
            assert [user for user, _ in found[part]] == [prepared.user_tokens[user] for user in users]
            ends = prepared.split.held_out(name)[users] - prepared.offsets[users] + 1
            assert [rows for _, rows in found[part]] == [
                expected[user][max(end - LIST_LENGTH - 1, 0) : end]
                for (user, _), end in zip(found[part], ends, strict=True)
            ]
        assert len(found["train"]) == np.maximum(prepared.split.training_end - prepared.split.start - 1, 0).sum()

    def test_names_in_categories_become_single_words(self, write_inter: Write, toy_rows: Rows, tmp_path: Path) -> None:
        folder = write_inter(toy_rows)
        rows = "".join(
            f"u{user},i{item},{time}\n" for user in range(7) for item, time in zip(range(6), range(6), strict=True)
        )
        (folder / "toy.inter").rename(folder / "old")
        (folder / "toy.csv").write_text(f"user,item,time\n{rows}")
        (folder / "items.jsonl").write_text('{"item": "i0", "tags": ["Toys & Games", "Dolls"], "my name:x": "b"}\n')
        prepared = prepare("toy", data_dir=folder.parent, prepared_dir=tmp_path / "prepared")
        table = read_table(
            export_dataset(prepared, tmp_path / "out", form="recbole").path / "toy.item", required=("item_id",)
        )
        assert table.types == {"item_id": "token", "categories": "token_seq", "my_name_x": "token"}
        assert (
            table.frame.row(0) == ("i0", "Toys_&_Games Dolls", "b")
            or ("i0", "Toys_&_Games Dolls", "b") in table.frame.rows()
        )

    @pytest.mark.parametrize("odd", ["two words", '"quoted', "1.#IND"])
    def test_ids_that_recbole_cannot_read_are_refused(
        self, write_inter: Write, toy_rows: Rows, prepare_toy: Prepare, tmp_path: Path, odd: str
    ) -> None:
        write_inter([(user, odd if item == "i3" else item, time) for user, item, time in toy_rows])
        prepared = prepare_toy()
        with pytest.raises(
            DataError, match=r"item id .* cannot be read by RecBole, .* \(1 such ids\)\. Export csv instead"
        ):
            export_dataset(prepared, tmp_path / "out", form="recbole")
        assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []
        export_dataset(prepared, tmp_path / "out", form="csv")

    def test_a_file_that_reads_back_otherwise_is_no_export(
        self, with_features: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = recbole._frame

        def wrong(*arguments: Any) -> pl.DataFrame:
            return right(*arguments).with_columns(pl.col("timestamp") + 1)

        monkeypatch.setattr(recbole, "_frame", wrong)
        with pytest.raises(DataError, match=r"toy\.train\.inter line 2 and on does not hold what was written to it"):
            export_dataset(with_features, tmp_path / "out", form="recbole")
        assert list((tmp_path / "out").iterdir()) == []


class TestCsv:
    @pytest.mark.parametrize("options", [{}, {"tie_order": "item"}, {"tie_order": "random", "seed": 3}])
    def test_preparing_it_again_gives_the_same_arrays(
        self, write_inter: Write, toy_rows: Rows, prepare_toy: Prepare, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        tied = [(user, item, int(str(time)) // 4 * 4) for user, item, time in toy_rows]
        rows = [tied[row] for row in np.random.default_rng(1).permutation(len(tied))]
        folder = write_inter([*rows, ("once", "i1", 5)])
        np.save(folder / "img_emb.npy", np.arange(7.0)[:, None])
        np.save(folder / "cat.npy", np.eye(7)[:, :4])
        (folder / "toy.item").write_text('item_id:token\ttitle:token_seq\ni1\ta "red", round toy\n')
        first = prepare_toy(**options)
        folder = export_dataset(first, tmp_path / "out", form="csv").path
        again = prepare(
            "toy", data_dir=tmp_path / "out", prepared_dir=tmp_path / "again", options=PrepareOptions(**options)
        )
        assert again.manifest["content_hash"] == first.manifest["content_hash"]
        assert again.user_tokens == first.user_tokens
        assert again.item_table().equals(first.item_table())
        assert again.version != first.version

    def test_parts_of_the_split_by_hand(self, write_inter: Write, prepare_toy: Prepare, tmp_path: Path) -> None:
        write_inter([(user, item, time) for user in "uv" for item, time in (("c", 3), ("a", 1), ("b", 2), ("d", 1))])
        (tmp_path / "dataset" / "toy" / "toy.item").write_text("item_id:token\ttitle:token_seq\na\tx\n")
        with pytest.raises(DataError, match="at least 2 users"):
            prepare_toy(min_interactions=3)
        write_inter([(user, item, time) for user in "uvw" for item, time in (("c", 3), ("a", 1), ("b", 2), ("d", 1))])
        folder = export_dataset(prepare_toy(min_interactions=3), tmp_path, form="csv").path
        lines = (folder / "toy.csv").read_text().splitlines()
        assert lines[:5] == [
            "user_id,item_id,timestamp,split",
            "u,c,3,test",
            "u,a,1,train",
            "u,b,2,valid",
            "u,d,1,train",
        ]
        assert (folder / "toy.items.csv").read_text().splitlines()[:3] == ["item_id,title", 'c,""', "a,x"]

    def test_ids_with_anything_in_them(self, toy_rows: Rows, data_dir: Path, tmp_path: Path) -> None:
        odd = {"i0": 'a "b", c', "i1": "two\nlines", "i2": "x y", "i3": "ä|;\t."}
        rows = [{"user": user, "item": odd.get(item, item), "time": time} for user, item, time in toy_rows]
        (data_dir / "toy").mkdir(parents=True)
        (data_dir / "toy" / "toy.jsonl").write_text("\n".join(map(json.dumps, rows)))
        first = prepare("toy", data_dir=data_dir, prepared_dir=tmp_path / "prepared")
        assert set(odd.values()) < set(first.item_tokens)
        export_dataset(first, tmp_path / "out", form="csv")
        again = prepare("toy", data_dir=tmp_path / "out", prepared_dir=tmp_path / "again")
        assert again.manifest["content_hash"] == first.manifest["content_hash"]
        assert again.item_tokens == first.item_tokens

    def test_a_version_without_source_order_is_written_by_user(
        self, with_features: PreparedDataset, tmp_path: Path
    ) -> None:
        (with_features.path / "file_rows.npy").unlink()
        manifest = json.loads((with_features.path / "manifest.json").read_text())
        del manifest["files"]  # as in version 0.1.0
        del manifest["arrays"]["file_rows"]
        (with_features.path / "manifest.json").write_text(json.dumps(manifest))
        from athwe_core.data.prepare import open_prepared

        older = open_prepared("toy", prepared_dir=with_features.path.parent.parent)
        exported = export_dataset(older, tmp_path, form="csv")
        users = pl.read_csv(exported.path / "toy.csv")["user_id"].to_list()
        assert users == [user for user in older.user_tokens for _ in range(6)]
        assert "does not know the order of its source" in exported.notes[0]


class TestFolder:
    def test_an_earlier_export_is_replaced_only_when_asked(
        self, with_features: PreparedDataset, tmp_path: Path
    ) -> None:
        folder = export_dataset(with_features, tmp_path, form="recbole").path
        with pytest.raises(ConfigError, match=r"--to must not hold toy yet, got .*\. Add --overwrite"):
            export_dataset(with_features, tmp_path, form="csv")
        export_dataset(with_features, tmp_path, form="csv", overwrite=True)
        assert {path.name for path in folder.iterdir()} == {
            *("toy.csv", "toy.items.csv", "emb_item_order.txt", "cat.npy", "export.json"),
            *(f"{kind}_{what}.npy" for kind in ("txt", "img") for what in ("emb", "clusters")),
        }
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_files_that_no_export_wrote_are_never_touched(self, with_features: PreparedDataset, tmp_path: Path) -> None:
        data_dir = with_features.path.parent.parent.parent / "dataset"
        before = sorted(path.name for path in (data_dir / "toy").iterdir())
        with pytest.raises(ConfigError, match=r"or only an earlier export of it, got .* no export wrote cat\.pt, "):
            export_dataset(with_features, data_dir, form="csv", overwrite=True)
        assert sorted(path.name for path in (data_dir / "toy").iterdir()) == before
        folder = export_dataset(with_features, tmp_path / "out", form="csv").path
        (folder / "mine.txt").write_text("dear")
        with pytest.raises(ConfigError, match=r"no export wrote mine\.txt there"):
            export_dataset(with_features, tmp_path / "out", form="csv", overwrite=True)
        (tmp_path / "out2").mkdir()
        (tmp_path / "out2" / "toy").write_text("a file")
        with pytest.raises(ConfigError, match="no export wrote it there"):
            export_dataset(with_features, tmp_path / "out2", form="csv", overwrite=True)

    def test_the_marker_says_what_it_is(self, with_features: PreparedDataset, tmp_path: Path) -> None:
        exported = export_dataset(with_features, tmp_path, form="csv")
        facts = json.loads((exported.path / MARKER).read_text())
        assert facts["version"] == with_features.version
        assert facts["form"] == "csv"
        assert facts["split"] == "leave-one-out"
        assert facts["files"] == exported.files
        assert exported.files["toy.csv"] == (exported.path / "toy.csv").stat().st_size

    def test_unknown_forms(self, with_features: PreparedDataset, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="--export must be one of recbole, csv, got 'tsv'"):
            export_dataset(with_features, tmp_path, form="tsv")


class TestReplacement:
    """`--overwrite`, killed at any moment, leaves the old export or the new one."""

    @pytest.fixture(params=[True, False], ids=["exchange", "renames"])
    def can_exchange(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
        if not request.param:
            monkeypatch.setattr(safe_write, "exchange", lambda *_: False)
        return bool(request.param)

    def test_the_new_export_takes_the_place(
        self, with_features: PreparedDataset, tmp_path: Path, can_exchange: bool
    ) -> None:
        for form in ("csv", "recbole"):
            export_dataset(with_features, tmp_path / "out", form=form, overwrite=True)
        facts = json.loads((tmp_path / "out" / "toy" / "export.json").read_text())
        assert facts["form"] == "recbole"
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["toy"]

    @pytest.mark.parametrize(
        ("can_exchange", "allowed"),
        [(True, 0), (False, 0), (False, 1), (False, 2)],
        ids=["exchange", "renames-0", "renames-1", "renames-2"],
        indirect=["can_exchange"],
    )
    def test_a_kill_between_two_renames(
        self,
        with_features: PreparedDataset,
        tmp_path: Path,
        can_exchange: bool,
        allowed: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Nothing after the kill runs, so the temporary folder stays too, and the next export tidies up."""
        code = (
            "import os, sys\nfrom pathlib import Path\nfrom athwe_core import safe_write\n"
            "from athwe_core.data.export import write\n"
            "from athwe_core.data.store.dataset import open_prepared\n"
            "if sys.argv[3] == 'False': safe_write.exchange = lambda *_: False\n"
            "left, rename = [int(sys.argv[4])], Path.rename\n"
            "def counted(self, target):\n"
            "    left[0] -= 1\n"
            "    if left[0] < 0: os.kill(os.getpid(), 9)\n"
            "    return rename(self, target)\n"
            "Path.rename = counted\n"
            "prepared = open_prepared('toy', prepared_dir=Path(sys.argv[1]))\n"
            "write.export_dataset(prepared, Path(sys.argv[2]), form='recbole', overwrite=True)\n"
        )
        out = tmp_path / "out"
        export_dataset(with_features, out, form="csv")
        arguments = [str(with_features.path.parents[1]), str(out), str(can_exchange), str(allowed)]
        killed = subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode == -9
        assert killed == (not can_exchange and allowed < 2)
        if killed and allowed == 1:
            assert not (out / "toy").exists()  # between the two renames; the old one is beside it
        with pytest.raises(ConfigError, match=r"--to must not hold toy yet, .*Add --overwrite"):
            export_dataset(with_features, out, form="csv")
        found = json.loads((out / "toy" / "export.json").read_text())["form"]
        assert found == ("csv" if killed else "recbole")
        export_dataset(with_features, out, form="recbole", overwrite=True)
        assert [path.name for path in out.iterdir()] == ["toy"]
