"""A comparison as LaTeX, Markdown and CSV, by hand."""

import csv
import io
from typing import Any

from athwe_core.analysis.experiments.comparison_text import comparison_text


def row(label: str, values: list[float], **facts: Any) -> dict[str, Any]:
    mean = sum(values) / len(values)
    found = {"mean": mean, "sd": 0.002 if len(values) > 1 else None, "values": values}
    own = {"change_percent": None, "p_value": None, "p_holm": None, "p_over": None, "parameters": None} | facts
    return {
        "label": label,
        "preset": label,
        "seeds": list(range(len(values))),
        "metrics": {"ndcg@10": found},
        "seconds_per_epoch": 1.25,
        **own,
    }


ROWS: Any = {
    "rows": [
        row("hm4sr", [0.0581, 0.0583], parameters=1_234_567),
        row("my_model|50%", [0.06], change_percent=3.09, p_value=0.0002, p_holm=0.0004, p_over="users"),
    ],
    "best": {"ndcg@10": "my_model|50%"},
}


def test_markdown() -> None:
    assert comparison_text(ROWS, "markdown").splitlines() == [
        "|  | NDCG@10 | change in % | p (Holm) | s per epoch | parameters |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| hm4sr | 0.0582 ± 0.0020 |  |  | 1.2 | 1,234,567 |",
        r"| my_model\|50% | **0.0600** | +3.1 | < 0.001 | 1.2 |  |",
    ]


def test_latex() -> None:
    lines = comparison_text(ROWS, "latex").splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrr}"
    assert lines[4] == r"hm4sr & 0.0582 $\pm$ 0.0020 &  &  & 1.2 & 1,234,567 \\"
    assert lines[5] == r"my\_model|50\% & \textbf{0.0600} & +3.1 & $<$ 0.001 & 1.2 &  \\"
    assert lines[-1] == r"\end{tabular}"


def test_csv_has_every_digit() -> None:
    first, second = csv.DictReader(io.StringIO(comparison_text(ROWS, "csv")))
    assert float(first["ndcg@10"]) == (0.0581 + 0.0583) / 2
    assert (first["ndcg@10_sd"], first["p_holm"], first["parameters"]) == ("0.002", "", "1234567")
    assert (second["label"], second["ndcg@10_sd"], second["p_holm"]) == ("my_model|50%", "", "0.0004")


def test_a_file_of_ranks_has_no_preset_no_seconds_and_no_parameters() -> None:
    other = row("recbole", [0.05, 0.07]) | {"preset": None, "seconds_per_epoch": None}
    own: Any = ROWS | {"rows": [*ROWS["rows"], other]}
    assert comparison_text(own, "markdown").splitlines()[-1] == "| recbole | 0.0600 ± 0.0020 |  |  |  |  |"
    found = list(csv.DictReader(io.StringIO(comparison_text(own, "csv"))))[-1]
    assert (found["preset"], found["seeds"], found["seconds_per_epoch"]) == ("", "2", "")
