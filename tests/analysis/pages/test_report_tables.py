"""Tables of reports: their rows and columns."""

from typing import Any

import analysis_cases as made

from athwe_core.analysis.pages.report_tables import (
    best_epochs_table,
    comparison_table,
    epochs_table,
    experiment_table,
    groups_table,
    time_table,
)
from athwe_core.analysis.pages.table import PageTable


def texts(table: PageTable) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


def test_models_come_first_and_baselines_are_quiet() -> None:
    found = made.report([])
    table = comparison_table(found["comparison"], found["baselines"], stem="toys")
    assert [row.cells[0].text for row in table.rows] == ["hm4sr", "athwe", "popularity", "last-item transition"]
    assert [row.is_quiet for row in table.rows] == [False, False, True, True]
    assert all(len(row.cells) == len(table.columns) for row in table.rows)
    assert [column.name for column in table.columns if column.is_extra][:2] == ["NDCG@20", "NDCG@50"]
    assert table.extra == "@20 and @50"
    best = [
        (row.cells[0].text, column.name)
        for row in table.rows
        for cell, column in zip(row.cells, table.columns, strict=True)
        if cell.is_best
    ]
    assert best == [("athwe", f"NDCG@{k}") for k in (5, 10, 20, 50)]


def test_one_model_has_no_columns_of_tests() -> None:
    found = made.report([])["comparison"]
    found["rows"] = found["rows"][:1]
    names = [column.name for column in comparison_table(found, {}, stem="toys").columns]
    assert "change" not in names
    assert "p (Holm)" not in names


def test_groups_have_a_row_for_each_group() -> None:
    comparison = made.report([])["comparison"]
    rows = texts(groups_table(comparison, stem="toys"))
    entry = comparison["groups"]["same_day"]["same day"]
    assert rows[-1] == ["same day", "same day", "9,518", f"{entry['hm4sr']:.4f}", f"{entry['athwe']:.4f}"]


def test_time_has_a_row_for_each_bin() -> None:
    found: Any = {"edges": [0, 86_400, 172_800], "counts": [3, 1_000]}
    assert texts(time_table(found, stem="toys")) == [
        ["1970-01-01", "1970-01-02", "3"],
        ["1970-01-02", "1970-01-03", "1,000"],
    ]


def test_epochs_of_a_run() -> None:
    report = made.report([])
    run = report["runs"][0]
    table = epochs_table(run, at=1, stem="toys")
    assert len(table.rows) == run["epochs"]
    assert [column.name for column in table.columns] == ["epoch", "NDCG@20", *run["records"][0]["losses"], "seconds"]
    assert texts(best_epochs_table(report, stem="toys"))[0] == [
        *("athwe/first", "14", str(run["epochs"]), "NDCG@20", "0.0780", "0.0710"),
    ]


def test_a_table_of_models_has_the_papers_numbers_and_baselines() -> None:
    result = made.ablation()
    metrics = result["variants"][0]["metrics"][result["split"]]
    for variant in result["variants"]:
        variant["without_seen"] = metrics
    result["variants"][0]["published"] = {result["metric"]: 0.0612}
    flat = dict.fromkeys(metrics, 0.01)
    result["baselines"] = [{"label": "popularity", "metrics": flat, "without_seen": flat}]
    table = experiment_table(result, at=2, stem="toys")
    names = [column.name for column in table.columns]
    assert names[:4] == ["variant", "test NDCG@10", "seen items out", "in the paper"]
    assert all(len(row.cells) == len(names) for row in table.rows)
    assert table.rows[0].cells[3].text == "0.0612"
    assert table.rows[1].cells[3].text == "–"
    assert [cell.text for cell in table.rows[-1].cells[:4]] == ["popularity", "0.0100", "0.0100", ""]
    plain = [column.name for column in experiment_table(made.ablation(), at=1, stem="toys").columns]
    assert "seen items out" not in plain
    assert "in the paper" not in plain
