"""Tables as LaTeX, Markdown and CSV, by hand."""

from athwe_core.analysis.experiments.table_text import csv_table, latex_table, markdown_table

HEADING = ["", "NDCG@10", "change"]
ROWS = [["a|b", "0.0582 ± 0.0020", ""], ["50%_x", "0.0600", "−3.1%"]]


def test_markdown_escapes_bars_and_marks_bold() -> None:
    assert markdown_table(HEADING, ROWS, bold=frozenset({(1, 1)})).splitlines() == [
        "|  | NDCG@10 | change |",
        "| --- | ---: | ---: |",
        r"| a\|b | 0.0582 ± 0.0020 |  |",
        "| 50%_x | **0.0600** | −3.1% |",
    ]


def test_latex_escapes_what_it_would_read() -> None:
    assert latex_table(HEADING, ROWS, bold=frozenset({(0, 1)})).splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\hline",
        r" & NDCG@10 & change \\",
        r"\hline",
        r"a|b & \textbf{0.0582 $\pm$ 0.0020} &  \\",
        r"50\%\_x & 0.0600 & $-$3.1\% \\",
        r"\hline",
        r"\end{tabular}",
    ]


def test_csv_quotes_and_leaves_none_empty() -> None:
    assert csv_table(["name", "value"], [['a,"b"', None], ["c", 0.1]]) == 'name,value\n"a,""b""",\nc,0.1\n'
