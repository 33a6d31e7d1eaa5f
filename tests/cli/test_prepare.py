"""`athwe prepare` on raw files of a user: what it says, what it exports, its exit codes."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runner import call, one_error_line
from rich.console import Console

from athwe_cli import progress
from athwe_cli.progress import ReadingDisplay
from athwe_cli.render import Output

USERS, ITEMS = 7, 6


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    """A table of 42 clicks in milliseconds."""
    rows = [
        (user, f"i{(user + step) % ITEMS}", 1_400_000_001_000 + 1000 * step)
        for user in range(USERS)
        for step in range(ITEMS)
    ]
    path = tmp_path / "clicks.csv"
    path.write_text("visitor,sku,at\n" + "".join(f"{user},{item},{time}\n" for user, item, time in rows))
    return path


NAMED = ("--user-column", "visitor", "--item-column", "sku", "--time-column", "at")


class TestSources:
    def test_a_table_with_named_columns_says_what_it_guesses(self, tmp_path: Path, clicks: Path) -> None:
        goods = tmp_path / "goods.jsonl"
        goods.write_text('{"sku": "i0", "title": "a &amp; b", "categories": ["Toys & Games", "Dolls"]}\n')
        result = call(
            tmp_path, "prepare", "--dataset", "mine", "--raw", str(clicks), "--item-file", str(goods), *NAMED, "--json"
        )
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert (found["users"], found["items"], found["interactions"]) == (7, 6, 42)
        assert found["features"]["categories"]["count"] == 2
        assert "source table: clicks.csv, goods.jsonl" in result.stderr
        assert "clicks.csv: users visitor, items sku, times at in ms\n" in result.stderr
        assert call(tmp_path, "prepare", "--dataset", "mine", "--export", "csv", "--to", str(tmp_path)).exit_code == 0
        assert "i0,a & b,Toys & Games | Dolls" in (tmp_path / "mine" / "mine.items.csv").read_text()

    def test_amazon_files_are_known_by_their_content(self, tmp_path: Path) -> None:
        folder = tmp_path / "data" / "Toys"
        folder.mkdir(parents=True)
        rows = [(user, (user + step) % ITEMS, step) for user in range(USERS) for step in range(ITEMS)]
        reviews = [
            {"reviewerID": f"U{u}", "asin": f"B{i}", "unixReviewTime": 1_400_000_000 + 86400 * t} for u, i, t in rows
        ]
        lines = [*map(json.dumps, reviews), json.dumps(reviews[0] | {"unixReviewTime": -1}), "{broken"]
        (folder / "reviews_Toys_5.json").write_text("\n".join(lines))
        (folder / "meta_Toys.json").write_text("{'asin': 'B1', 'title': 'a toy', 'categories': [['Toys & Games']]}\n")
        result = call(tmp_path, "prepare", "--dataset", "Toys", "--max-bad-lines", "0.05")
        assert result.exit_code == 0, result.output
        assert "source amazon-2014: reviews_Toys_5.json, meta_Toys.json" in result.stderr
        assert "rows: 44 in the files, 42 read, 2 dropped: 1 could not be read, 1 had a negative time" in result.stderr
        assert "1 of 44 lines could not be read and were dropped: line 44 is neither a JSON object" in result.stderr
        strict = call(tmp_path, "prepare", "--dataset", "Toys")
        assert strict.exit_code == 3
        assert "may have at most 0.1 % lines that cannot be read, got '1 of 44: line 44" in one_error_line(strict)

    def test_a_kind_that_is_named_is_no_other_version_than_one_that_is_found(
        self, tmp_path: Path, clicks: Path
    ) -> None:
        arguments = ("prepare", "--dataset", "mine", "--raw", str(clicks), *NAMED, "--json")
        first = json.loads(call(tmp_path, *arguments).stdout)
        again = call(tmp_path, *arguments, "--source", "table")
        assert json.loads(again.stdout)["version"] == first["version"]
        assert "already prepared" in again.stderr

    @pytest.mark.parametrize(
        ("arguments", "code", "text"),
        [
            (["--user-column", "who"], 3, "has no column who; its columns are visitor, sku, at"),
            (
                ["--columns", "who,what,when"],
                3,
                "has no column that is surely the user; its columns are who, what, when. Name it with --user-column",
            ),
            (
                ["--time-unit", "weeks"],
                2,
                "--time-unit must be one of auto, s, ms, us, ns, minutes, hours, days, excel, year, yyyymmdd",
            ),
            (["--time-unit", "days"], 3, "half of them are after the year 5138 when read in days"),
            (["--source", "amazon"], 2, "--source must be one of auto, atomic, amazon-2014"),
            (["--source", "amazon-2018"], 3, "has no interactions"),
            (["--max-bad-lines", "2"], 2, "--max-bad-lines must be in [0, 1], got 2.0"),
            (["--item-file", "absent.csv"], 3, "absent.csv does not exist"),
            (["--raw", "absent.csv"], 3, "absent.csv does not exist"),
            (["--export", "csv"], 2, "--export, --to must be given together"),
            (["--to", "x"], 2, "--export, --to must be given together"),
            (["--overwrite"], 2, "--overwrite only with them"),
        ],
    )
    def test_mistakes_are_one_line(
        self, tmp_path: Path, clicks: Path, arguments: list[str], code: int, text: str
    ) -> None:
        result = call(tmp_path, "prepare", "--dataset", "mine", "--raw", str(clicks), *arguments)
        assert result.exit_code == code, result.output
        assert text in one_error_line(result)
        assert not (tmp_path / "prepared" / "mine").exists()

    def test_raw_files_need_a_name(self, tmp_path: Path, clicks: Path) -> None:
        result = call(tmp_path, "prepare", "--raw", str(clicks))
        assert result.exit_code == 2
        assert "--dataset must name the data set" in one_error_line(result)


class TestExport:
    def test_a_prepared_data_set_is_written_as_it_is(self, tmp_path: Path, clicks: Path) -> None:
        arguments = ("prepare", "--dataset", "mine", "--raw", str(clicks), *NAMED, "--tie-order", "item", "--json")
        version = json.loads(call(tmp_path, *arguments).stdout)["version"]
        clicks.unlink()
        result = call(
            tmp_path, "prepare", "--dataset", "mine", "--export", "recbole", "--to", str(tmp_path / "out"), "--json"
        )
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["version"] == version
        assert found["export"]["folder"] == str(tmp_path / "out" / "mine")
        assert {"mine.train.inter", "mine.valid.inter", "mine.test.inter", "mine.item"} < found["export"][
            "files"
        ].keys()
        assert (
            f"exporting version {version} as it is prepared: leave-one-out split, ties in item order" in result.stderr
        )

    def test_an_unprepared_one_is_prepared_first(self, tmp_path: Path, clicks: Path) -> None:
        arguments = (
            "prepare",
            "--dataset",
            "mine",
            "--raw",
            str(clicks),
            *NAMED,
            "--export",
            "csv",
            "--to",
            str(tmp_path / "o"),
        )
        assert call(tmp_path, *arguments).exit_code == 0
        again = call(tmp_path, *arguments)
        assert again.exit_code == 2
        assert "to must not hold mine yet" in one_error_line(again)
        assert call(tmp_path, *arguments, "--overwrite").exit_code == 0
        assert (tmp_path / "o" / "mine" / "mine.csv").read_text().count("\n") == 43

    def test_unknown_forms(self, tmp_path: Path) -> None:
        small = ("prepare", "--dataset", "demo", "--users", "100", "--items", "100")
        result = call(tmp_path, *small, "--export", "tsv", "--to", str(tmp_path / "out"))
        assert result.exit_code == 2
        assert "export must be one of recbole, csv, got 'tsv'" in one_error_line(result)


class TestReadingDisplay:
    @pytest.fixture
    def display(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., tuple[ReadingDisplay, io.StringIO, list[float]]]:
        """A display on a text, with a clock that is set by hand."""

        def make(*, is_terminal: bool) -> tuple[ReadingDisplay, io.StringIO, list[float]]:
            now = [100.0]
            monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
            output, text = Output(as_json=False), io.StringIO()
            output.err = Console(file=text, force_terminal=is_terminal, width=100)
            return ReadingDisplay(output), text, now

        return make

    def test_plain_lines_now_and_then(self, display: Callable) -> None:
        shown, text, now = display(is_terminal=False)
        for seconds, done in ((0.5, 1), (10, 20), (25, 25), (26, 26), (50, 50), (51, 100)):
            now[0] = 100 + seconds
            shown(done * 10**6, 100 * 10**6)
        assert text.getvalue().splitlines() == ["read 25 of 100 MB, 75 s left", "read 50 of 100 MB, 50 s left"]

    def test_a_bar_with_bytes_in_a_terminal(self, display: Callable) -> None:
        shown, text, now = display(is_terminal=True)
        shown(1, 100)
        assert text.getvalue() == ""
        now[0] += 5
        shown(25 * 10**6, 100 * 10**6)
        shown(50 * 10**6, 100 * 10**6)
        shown.close()
        assert "50.0/100.0 MB" in text.getvalue()


class TestDemo:
    def test_json_is_one_object_on_stdout(self, world: Path) -> None:
        result = call(world, "prepare", "--dataset", "demo", "--users", "200", "--items", "150", "--json")
        found = json.loads(result.stdout)
        expected = {"users", "items", "interactions", "sparsity", "tied_test_share", "features", "tie_order", "version"}
        assert expected <= found.keys()
        assert found["features"]["text"].keys() >= {"width", "missing", "source"}
        assert found["features"]["categories"]["count"] > 0
        assert "already prepared" in result.stderr

    def test_unknown_data_set(self, tmp_path: Path) -> None:
        result = call(tmp_path, "prepare", "--dataset", "Toyz")
        assert result.exit_code == 3
        assert "'Toyz' is unknown" in one_error_line(result)

    def test_unknown_tie_order(self, tmp_path: Path) -> None:
        result = call(tmp_path, "prepare", "--dataset", "demo", "--tie-order", "alphabet")
        assert result.exit_code == 2
        assert "must be one of file, item, random, got 'alphabet'" in one_error_line(result)

    def test_malformed_row_names_file_and_row(self, tmp_path: Path) -> None:
        folder = tmp_path / "data" / "Bad"
        folder.mkdir(parents=True)
        header = "user_id:token\titem_id:token\ttimestamp:float\n"
        (folder / "Bad.inter").write_text(header + "u\ti\t5\nu\ti\tsoon\n")
        result = call(tmp_path, "prepare", "--dataset", "Bad")
        assert result.exit_code == 3
        line = one_error_line(result)
        assert "Bad.inter" in line
        assert "3" in line
        assert "soon" in line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--engine", "flink"), "--engine must be one of local, spark, got 'flink'"),
        (("--spark-master", "local[2]"), "--spark-master needs --engine spark, got 'local[2]'"),
        (("--engine", "spark"), "--engine spark reads tables and Amazon reviews, and this is demo. Use --engine local"),
        (
            ("--engine", "spark", "--refresh", "text"),
            "--refresh makes features in this process and takes neither --engine",
        ),
    ],
)
def test_an_engine_that_cannot_do_it_is_refused(arguments: tuple[str, ...], line: str, tmp_path: Path) -> None:
    result = call(tmp_path, "prepare", "--dataset", "demo", *arguments)
    assert result.exit_code == 2
    assert line in one_error_line(result)
