"""`athwe case-study`: whom it takes, what it prints where, the page it leaves."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cli_runner import SMALL, call, one_error_line
from PIL import Image
from rich.console import Console

from athwe_cli.case_study import page_name
from athwe_cli.case_study_text import CaseText

KEYS = {"user", "history", "target", "recommendations", "why", "runs", "k", "picked", "earlier_items"}


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[dict[str, Any]], Any]]:
    """Cases and pictures of each page written, in the place of the HTML of the page's own tests."""
    written: list[tuple[list[dict[str, Any]], Any]] = []

    def page(cases: list[dict[str, Any]], images: Any, origin: Any) -> str:
        written.append((cases, images))
        return f"<title>{len(cases)} cases</title>"

    monkeypatch.setattr("athwe_core.analysis.pages.html.case_study_page", page)
    return written


@pytest.fixture(scope="module")
def both(world: Path) -> Path:
    """The world with a second run, `second`, on the same data."""
    trained = call(
        world, *("train", "--dataset", "demo", "--preset", "hm4sr", "--epochs", "1", "--name", "second"), *SMALL
    )
    assert trained.exit_code == 0, trained.output
    return world


def study(world: Path, *arguments: str, run: str = "first") -> dict[str, Any]:
    """What `case-study --json` says."""
    result = call(world, "case-study", "--run", run, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class TestWhom:
    def test_a_user_of_the_demo_with_the_newest_run(
        self, world: Path, pages: list[tuple[list[dict[str, Any]], Any]]
    ) -> None:
        result = call(world, "case-study", "--user", "123", "--json")
        found = json.loads(result.stdout)
        assert found.keys() >= KEYS
        assert found["user"] == "123"
        assert 1 <= found["target"]["rank"] <= 150
        (run,) = found["runs"]
        assert f"data set demo (the newest finished run)\nrun {run}, prepared version" in result.stderr
        assert len(found["recommendations"][run]) == 10
        page = world / "runs" / "demo" / "case-studies" / "123.html"
        assert page.read_text() == "<title>1 cases</title>"
        ((cases, pictures),) = pages
        assert cases == [found]
        assert pictures.has(found["target"]["item_id"])
        assert f"page {page}" in result.stderr.replace("\n", "")

    def test_the_rank_is_that_of_the_run(self, world: Path) -> None:
        ranks = pl.read_parquet(world / "runs" / "demo" / "athwe" / "first" / "per_user.parquet")
        for split in ("test", "validation"):
            row = ranks.filter((pl.col("user_id") == "77") & (pl.col("split") == split)).row(0, named=True)
            target = study(world, "--user", "77", "--split", split)["target"]
            assert (target["item_id"], target["rank"]) == (row["target_item_id"], row["rank"])

    def test_random_users_are_several_cases_and_pages(
        self, world: Path, pages: list[tuple[list[dict[str, Any]], Any]]
    ) -> None:
        found = study(world, "--random", "3", "--seed", "1", "--k", "2")
        users = [case["user"] for case in found["cases"]]
        assert found.keys() == {"cases"}
        assert len(set(users)) == 3
        assert users == [case["user"] for case in study(world, "--random", "3", "--seed", "1", "--no-html")["cases"]]
        assert [[case["user"] for case in cases] for cases, _ in pages] == [[user] for user in users]
        for user in users:
            assert (world / "runs" / "demo" / "case-studies" / f"{user}.html").is_file()

    @pytest.mark.parametrize("kind", ["improved", "failed"])
    def test_picked_against_another_run(self, kind: str, both: Path) -> None:
        found = study(both, "--pick", kind, "--against", "second", "--no-html")
        target = found["target"]
        ours, theirs = target["ranks"]["demo/athwe/first"], target["ranks"]["demo/hm4sr/second"]
        assert found["picked"] == f"{kind}: rank {theirs:g} -> {ours:g} against demo/hm4sr/second"
        assert min(ours, theirs) <= 10
        assert (ours < theirs) == (kind == "improved")
        assert list(found["why"]) == ["demo/athwe/first", "demo/hm4sr/second"]

    def test_a_new_user(self, world: Path, tmp_path: Path) -> None:
        history = study(world, "--user", "5", "--no-html")["history"]
        lines = [f"{item['item_id']},{item['timestamp']}" for item in history]
        path = tmp_path / "mine.csv"
        path.write_text("\n".join(["item_id,timestamp", *lines]))
        found = study(world, "--history", str(path))
        assert (found["user"], found["target"]) == (None, None)
        assert found["history"] == history
        assert (world / "runs" / "demo" / "case-studies" / "new-user-mine.html").is_file()
        path.write_text("item_id,timestamp\nnothing,1\n")
        result = call(world, "case-study", "--run", "first", "--history", str(path))
        assert result.exit_code == 3
        assert "mine.csv line 2: item must be an item of demo, got 'nothing'" in one_error_line(result)


class TestPage:
    def test_one_file_of_ones_own_for_several_users(
        self, world: Path, tmp_path: Path, pages: list[tuple[list[dict[str, Any]], Any]]
    ) -> None:
        path = tmp_path / "new" / "both.html"
        study(world, "--random", "2", "--html", str(path))
        assert path.read_text() == "<title>2 cases</title>"
        assert len(pages) == 1

    def test_pictures_are_found_or_named_and_broken_ones_counted(
        self,
        world: Path,
        tmp_path: Path,
        pages: list[tuple[list[dict[str, Any]], Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        item = study(world, "--user", "5", "--no-html")["history"][0]["item_id"]
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4)).save(buffer, "PNG")
        for folder in (tmp_path / "mine", tmp_path / "data" / "demo" / "images"):
            folder.mkdir(parents=True)
            (folder / f"{item}.png").write_bytes(buffer.getvalue())
        study(world, "--user", "5", "--data", str(tmp_path / "data"))
        assert pages[-1][1].path == tmp_path / "data" / "demo" / "images"
        study(world, "--user", "5", "--images", str(tmp_path / "mine"))
        assert pages[-1][1].path == tmp_path / "mine"
        assert pages[-1][1].has(item)
        (tmp_path / "mine" / f"{item}.png").write_bytes(b"no picture")
        monkeypatch.setattr(
            "athwe_core.analysis.pages.html.case_study_page", lambda cases, images, origin: str(images.thumbnail(item))
        )
        result = call(world, "case-study", "--run", "first", "--user", "5", "--images", str(tmp_path / "mine"))
        assert f"that could not be read: 1 ({item!r})" in result.stderr

    @pytest.mark.parametrize(
        ("user", "name"),
        [
            ("A1Z-_.9", r"A1Z-_\.9\.html"),
            ("../../etc/x", r"[A-Za-z_.]+x-[0-9a-f]{8}\.html"),
            ("..", r"-[0-9a-f]{8}\.html"),
            ("", r"\.html"),
            ("ü" * 300, r"_{100}-[0-9a-f]{8}\.html"),
        ],
    )
    def test_its_name_stays_a_name(self, user: str, name: str) -> None:
        found = page_name(None, {"user": user})
        assert re.fullmatch(name, found)
        assert Path(found).name == found
        assert page_name(None, {"user": "a/b"}) != page_name(None, {"user": "a_b"})


class TestText:
    def test_it_says_everything_in_80_columns(self, both: Path) -> None:
        arguments = ("case-study", "--run", "first", "--against", "second", "--user", "123", "--no-html")
        result = call(both, *arguments, COLUMNS="80")
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        found = study(both, "--against", "second", "--user", "123", "--no-html")
        text = " ".join(result.stdout.split())
        target = found["target"]
        assert "User 123 of demo, test, leave-one-out split, ties in file order" in text
        assert f"rank {target['rank']:g} by athwe/first, rank {target['ranks']['demo/hm4sr/second']:g}" in text
        for item in found["history"][-3:]:
            assert f"{item['position'] + 1} {item['date']}" in text
        for row in found["recommendations"]["demo/athwe/first"]:
            assert any(row["title"] in line and f"{row['score']:.2f}" in line for line in lines)
        for heading in (
            "History",
            "Top 10 of",
            "Why ",
            "What mattered most",
            "If the last item",
            "Temporal gates",
            "Attention",
        ):
            assert any(line.startswith(heading) for line in lines), heading
        gap = found["why"]["demo/athwe/first"]["gaps"][3]
        assert f"one year 1 year {gap['rank']:g} {gap['score']:.2f} {gap['kept']} of 10" in text

    def test_with_json_it_goes_to_stderr(self, world: Path) -> None:
        result = call(world, "case-study", "--run", "first", "--user", "9", "--no-html", "--json")
        assert json.loads(result.stdout)["user"] == "9"
        assert "What mattered most" in result.stderr

    @pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
    def test_titles_are_only_text(self, encoding: str, shown: Callable[..., str]) -> None:
        title = "\x1b[31mred\x1b]0;own\x07 [bold]not[/] \u202eback \x9b2J\u2066x\u200b 日本 \r\nline"
        text = shown(encoding, title=title, category="\x1b[2J[/]")
        assert not set(re.sub(r"[^\n]", "", text)) - {"\n"}
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
        assert "[31mred]0;own [bold]not[/] back 2Jx" in text

    @pytest.fixture
    def shown(self, world: Path) -> Callable[..., str]:
        """The text of a case whose items all have the given title and category, in the given encoding."""

        def show(encoding: str, *, title: str, category: str) -> str:
            case = study(world, "--user", "123", "--no-html")
            items = [
                *case["history"],
                case["target"],
                *(row for rows in case["recommendations"].values() for row in rows),
            ]
            for item in (*items, *(why["subject"] for why in case["why"].values())):
                item |= {"title": title, "category": category}
            stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
            CaseText(Console(file=stream, width=120, highlight=False)).show(case)
            stream.flush()
            return stream.buffer.getvalue().decode(encoding)

        return show

    def test_escape_codes_in_the_data_do_not_reach_the_terminal(self, world: Path, tmp_path: Path) -> None:
        shutil.copytree(world, tmp_path / "copy")
        (path,) = (tmp_path / "copy" / "prepared").glob("demo/*/items.parquet")
        pl.read_parquet(path).with_columns(title=pl.lit("\x1b]0;owned\x07\x1b[2J[red]toy")).write_parquet(path)
        manifest = path.with_name("manifest.json")
        facts = {key: value for key, value in json.loads(manifest.read_text()).items() if key != "files"}
        manifest.write_text(json.dumps(facts))  # as written before each file had a checksum
        result = call(tmp_path / "copy", "case-study", "--run", "first", "--user", "1", "--no-html")
        assert result.exit_code == 0, result.output
        assert "]0;owned[2J[red]toy" in result.stdout
        assert "\x1b" not in result.stdout
        assert "\x07" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "needs exactly one of --user, --random, --pick, --history, got 'none'. Try --random 1"),
        (["--user", "1", "--random", "2"], 2, "got '--user and --random'"),
        (["--user", "2001"], 3, "--user must be one of the 200 users of demo, got '2001'. Similar ids: '200'"),
        (["--random", "0"], 2, "--random must be in 1..200"),
        (["--random", "201"], 2, "--random must be in 1..200"),
        (["--pick", "worst"], 2, "--pick must be one of improved, failed, typical, got 'worst'"),
        (["--pick", "improved"], 2, "Add --against RUN"),
        (["--user", "1", "--split", "dev"], 2, "--split must be validation or test, got 'dev'"),
        (["--user", "1", "--k", "0"], 2, "--k must be positive, got 0"),
        (["--user", "1", "--against", "first"], 2, "--against must name another run, got 'demo/athwe/first'"),
        (["--user", "1", "--against", "frist"], 2, "Did you mean first"),
        (["--user", "1", "--images", "absent"], 3, "absent must be a folder or a zip archive"),
        (["--user", "1", "--html", "x.html", "--no-html"], 2, "--html must not be given with --no-html"),
        (["--history", "absent.csv"], 3, "absent.csv must be a readable CSV file"),
    ],
)
def test_mistakes_are_one_line(world: Path, arguments: list[str], code: int, text: str) -> None:
    result = call(world, "case-study", "--run", "first", *arguments)
    assert result.exit_code == code, result.output
    assert text in one_error_line(result)


def test_no_run_prints_the_line_to_type(tmp_path: Path) -> None:
    result = call(tmp_path, "case-study", "--user", "1")
    assert result.exit_code == 2
    assert "athwe train --dataset demo" in one_error_line(result)
