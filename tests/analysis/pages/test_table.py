"""Cells, and tables as files."""

import base64

from athwe_core.analysis.pages import table as made
from athwe_core.analysis.pages.table import Cell, Column, PageTable, Row


def table() -> PageTable:
    columns = [Column("model", is_text=True), Column("NDCG@10"), Column("NDCG@20", is_extra=True), Column("p")]
    rows = [
        Row([made.words("a"), made.number(0.123456, sd=0.01), made.number(0.2), made.p_value(None)]),
        Row([made.words("b"), made.number(0.2, is_best=True), made.number(None), made.p_value(0.0001)]),
    ]
    return PageTable("comparison", "Comparison", columns, rows, "Toys & Games")


def test_files_have_every_column_and_csv_every_digit() -> None:
    files = {download.label: download for download in table().downloads}
    assert [download.file for download in files.values()] == [
        f"Toys-Games-comparison.{suffix}" for suffix in ("csv", "md", "tex")
    ]
    texts = {label: base64.b64decode(download.url.split(",")[1]).decode() for label, download in files.items()}
    assert texts["CSV"].splitlines() == [
        "model,NDCG@10,NDCG@10 sd,NDCG@20,p",
        "a,0.123456,0.01,0.2,",
        "b,0.2,,,0.0001",
    ]
    assert texts["Markdown"].splitlines()[2:] == [
        "| a | 0.1235 ± 0.0100 | 0.2000 | – |",
        "| b | **0.2000** | – | < 0.001 |",
    ]
    assert r"b & \textbf{0.2000} & – & $<$ 0.001 \\" in texts["LaTeX"]


def test_numbers_are_shown_as_people_read_them() -> None:
    assert made.number(-0.5, 2) == Cell("−0.50", -0.5)
    assert made.count(12673) == Cell("12,673", 12673)
    assert made.count(None) == Cell("–", None)
    assert made.percent(-3.14) == Cell("−3.1%", -3.14)
    assert made.share(0.469) == Cell("46.9%", 0.469)
    assert [made.p_value(p).text for p in (0.0009, 0.001, 0.43, None)] == ["< 0.001", "0.001", "0.430", "–"]
    assert made.listed([17, 15]).text == "17, 15"
