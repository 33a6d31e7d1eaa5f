"""`athwe download`: the list, the question, the result, and the commands that name it."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import call, one_error_line
from faulty_server import Server
from typer.testing import CliRunner

from athwe_cli.app import app

CONTENT = gzip.compress(
    b"user,item,time\n" + b"".join(b"u%d,i%d,%d\n" % (u, i, 9**9 + u) for u in range(6) for i in range(6))
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server with one data set, `shop`, that the table in the data folder names."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    found = Server()
    found.files["/shop.csv.gz"] = CONTENT
    (tmp_path / "data").mkdir()
    facts = (
        f"title: Our shop, terms: for tests, citation: Nobody 2026, files: ['{found.url}/shop.csv.gz'], names: [shop]"
    )
    (tmp_path / "data" / "sources.yaml").write_text(f"shop: {{{facts}}}")
    yield found
    found.close()


def test_it_is_fetched_and_prepared_and_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    done = call(tmp_path, "download", "shop", "--yes", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["name"], result["kept"]) == ("shop", [])
    assert (result["fetched"][0]["name"], result["fetched"][0]["bytes"]) == ("shop.csv.gz", len(CONTENT))
    for text in ("Our shop", "for tests", "Nobody 2026", f"{server.url}/shop.csv.gz: 0.0 MB"):
        assert text in done.stderr
    assert "Prepare it: athwe prepare --dataset shop" in done.stderr
    assert call(tmp_path, "prepare", "--dataset", "shop").exit_code == 0
    again = call(tmp_path, "download", "shop", "--json")  # nothing to ask
    assert json.loads(again.stdout) == {**result, "fetched": [], "kept": ["shop.csv.gz"]}
    assert "is there already" in again.stderr
    assert [method for method, _, _ in server.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize(("answer", "is_fetched"), [("n\n", False), ("y\n", True)])
def test_it_asks_first(server: Server, tmp_path: Path, answer: str, is_fetched: bool) -> None:
    runner = CliRunner(env={"ATHWE_DATA": str(tmp_path / "data")})
    done = runner.invoke(app, ["download", "shop"], input=answer)
    assert done.exit_code == 0
    assert f"Fetch 0.0 MB to {tmp_path / 'data' / 'shop'}?" in done.stderr.replace("\n", "")
    assert (tmp_path / "data" / "shop" / "shop.csv.gz").exists() is is_fetched


def test_without_an_answer_it_names_the_option(server: Server, tmp_path: Path) -> None:
    done = call(tmp_path, "download", "shop")
    assert done.exit_code == 2
    assert one_error_line(done).startswith("error: --yes must be given")
    assert not (tmp_path / "data" / "shop").exists()


def test_the_list_has_the_packages_and_the_users_sources(server: Server, tmp_path: Path) -> None:
    extra = tmp_path / "more.yaml"
    extra.write_text("mine: {title: Mine, files: ['http://localhost:8000/b.csv'], names: [mine]}")
    done = call(tmp_path, "download", "--json", "--sources", str(extra))
    assert done.exit_code == 0, done.output
    found = {each["name"]: each["title"] for each in json.loads(done.stdout)["sources"]}
    assert (found["shop"], found["mine"], found["ml-100k"][:9]) == ("Our shop", "Mine", "MovieLens")
    assert "Toys_and_Games-2018" in call(tmp_path, "download").stdout.replace("\n", "").replace(" ", "")
    assert server.requests == []


def test_errors_are_one_line(server: Server, tmp_path: Path) -> None:
    unknown = call(tmp_path, "download", "shp")
    assert unknown.exit_code == 2
    assert "did you mean shop?, got 'shp'" in one_error_line(unknown)
    server.files.clear()
    missing = call(tmp_path, "download", "shop", "--yes")
    assert missing.exit_code == 3
    assert "cannot be fetched (status 404)" in one_error_line(missing)
    absent = call(tmp_path, "download", "shop", "--sources", "none.yaml")
    assert absent.exit_code == 2
    assert "--sources must be a file, got 'none.yaml'" in one_error_line(absent)


@pytest.mark.parametrize("command", ["train", "prepare"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_data_set_that_is_not_there_is_named_with_its_two_commands(
    tmp_path: Path, command: str, is_folder: bool
) -> None:
    if is_folder:
        (tmp_path / "data" / "Beauty").mkdir(parents=True)
    done = call(tmp_path, command, "--dataset", "Beauty")
    assert done.exit_code == 3
    wanted = "Get it: athwe download Beauty, then prepare it: athwe prepare --dataset Beauty"
    assert one_error_line(done).endswith(wanted)
    other = call(tmp_path, command, "--dataset", "Beautz")
    assert "Put its files there, or name them with --raw" in one_error_line(other)
