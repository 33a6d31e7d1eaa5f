"""`athwe recommend`: files, tables and JSON for users, new histories and items."""

import json
from pathlib import Path

import polars as pl
import pytest
from cli_runner import SMALL, call, one_error_line
from typer.testing import CliRunner

from athwe_cli.app import app


@pytest.fixture(scope="module")
def everybody(world: Path) -> pl.DataFrame:
    """Recommendations for all users, by way of parquet."""
    to = world / "all.parquet"
    result = call(world, "recommend", "--run", "first", "--k", "4", "--with", "title", "--to", str(to), "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts.keys() == {*("run", "data_version", "k", "entries", "exclude_seen", "to", "bytes", "kept", "seconds")}
    assert (facts["run"], facts["k"], facts["exclude_seen"]) == ("demo/athwe/first", 4, True)
    found = pl.read_parquet(to)
    assert found["user_id"].n_unique() == facts["entries"]
    return found


def test_all_users_have_k_items_with_titles(everybody: pl.DataFrame) -> None:
    assert everybody.columns == ["user_id", "rank", "item_id", "score", "title"]
    assert everybody.group_by("user_id").len()["len"].unique().to_list() == [4]
    assert everybody["title"].str.len_chars().min() > 0


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_chosen_users_in_other_formats(world: Path, everybody: pl.DataFrame, ending: str, tmp_path: Path) -> None:
    users = everybody["user_id"].unique(maintain_order=True)[[3, 1]].to_list()
    (tmp_path / "users.txt").write_text("\n".join([*users, "nobody"]))
    to = tmp_path / f"some.{ending}"
    arguments = ("--run", "first", "--users", str(tmp_path / "users.txt"), "--k", "4", "--with", "title")
    result = call(world, "recommend", *arguments, "--to", str(to))
    assert result.exit_code == 0, result.output
    assert "1 of 3 (33.3%) are not users of data set demo" in result.stderr
    types = {"user_id": pl.String, "item_id": pl.String}
    found = pl.read_csv(to, schema_overrides=types) if ending == "csv" else pl.read_ndjson(to)
    expected = pl.concat([everybody.filter(pl.col("user_id") == user) for user in users])
    assert found.drop("score").equals(expected.drop("score"))
    assert found["score"].to_list() == pytest.approx(expected["score"].to_list(), abs=1e-5)


def test_new_histories_from_standard_input_are_printed(world: Path, everybody: pl.DataFrame) -> None:
    first, second = everybody["item_id"][:2].to_list()
    table = f"visitor,sku,time\nme,{first},2020-05-01\nme,{second},2020-05-02\nme,gone,2020-05-03\n"
    environment = {f"ATHWE_{name}": str(world / name.lower()) for name in ("PREPARED", "RUNS")}
    arguments = ["recommend", "--run", "first", "--histories", "-", "--k", "3", "--json"]
    result = CliRunner(env={"COLUMNS": "100", **environment}).invoke(app, arguments, input=table)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["recommendations"]
    assert [(row["user_id"], row["rank"]) for row in found] == [("me", 1), ("me", 2), ("me", 3)]
    assert not {first, second} & {row["item_id"] for row in found}
    assert "1 of 3 rows (33.3%) have items that are not in data set demo" in result.stderr
    assert "users visitor, items sku" in result.stderr


def test_only_items_in_stock_and_seen_ones_too(world: Path, everybody: pl.DataFrame, tmp_path: Path) -> None:
    stock = everybody["item_id"].unique(maintain_order=True)[:6].to_list()
    (tmp_path / "stock.csv").write_text("sku,country\n" + "".join(f"{item},de\n" for item in stock))
    user = everybody["user_id"][0]
    arguments = ("--run", "first", "--users", user, "--items", str(tmp_path / "stock.csv"), "--keep-seen", "--json")
    found = json.loads(call(world, "recommend", *arguments).stdout)
    assert {row["item_id"] for row in found["recommendations"]} == set(stock)


def test_items_like_an_item_in_a_table(world: Path, everybody: pl.DataFrame) -> None:
    item = everybody["item_id"][0]
    result = call(world, "recommend", "--run", "first", "--like", item, "--k", "2", "--with", "title")
    assert result.exit_code == 0, result.output
    assert "like" in result.stdout
    assert result.stdout.count(item) == 2


def test_mistakes_are_one_line(world: Path, tmp_path: Path) -> None:
    for arguments, code, message in [
        (("--k", "0"), 2, "--k must be at least 1"),
        (("--users", "a", "--like", "b"), 2, "cannot be combined"),
        (("--to", "file.xls"), 2, "--to must end with"),
        ((), 2, "--to must name a file for more than 100"),
        (("--users", "nobody"), 3, "--users must name users of data set demo"),
        (("--like", "nothing"), 3, "--like must name items of data set demo"),
        (("--items", "nothing", "--users", "nobody"), 3, "--items must name items"),
        (("--users", "nobody", "--with", "titel"), 3, "--users"),
        (("--histories", "none.csv"), 3, "must be a file that exists"),
        (("--time-unit", "weeks"), 2, "--time-unit must be one of"),
    ]:
        result = call(world, "recommend", "--run", "first", *arguments)
        assert result.exit_code == code, result.output
        assert message in one_error_line(result)
    result = call(tmp_path, "recommend", "--dataset", "demo")
    assert "athwe train --dataset demo" in one_error_line(result)


def test_an_item_that_nobody_has_bought_is_recommended(tmp_path: Path) -> None:
    rows = [
        f"u{user},i{(user + step) % 7},{1_500_000_000 + 100 * step + user}" for user in range(8) for step in range(6)
    ]
    (tmp_path / "clicks.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    goods = [f"i{item},ball number {item}" for item in range(7)]
    (tmp_path / "goods.csv").write_text("\n".join(["item,title", *goods, "new,ball number 8"]) + "\n")
    files = ["--raw", str(tmp_path / "clicks.csv"), "--item-file", str(tmp_path / "goods.csv")]
    prepared = call(tmp_path, "prepare", "--dataset", "shop", *files, "--keep-items", "--text-width", "4")
    assert prepared.exit_code == 0, prepared.output
    unknown = ["--set", "model.unknown_id_dropout=0.5"]
    trained = call(tmp_path, "train", "--dataset", "shop", "--epochs", "1", *SMALL, *unknown)
    assert trained.exit_code == 0, trained.output
    found = call(tmp_path, "recommend", "--k", "8", "--users", "u0", "--keep-seen", "--with", "title", "--json")
    assert found.exit_code == 0, found.output
    ranked = {row["item_id"]: row["title"] for row in json.loads(found.stdout)["recommendations"]}
    assert len(ranked) == 8
    assert ranked["new"] == "ball number 8"
