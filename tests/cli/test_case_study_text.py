"""A case study in a terminal: whole numbers at every width, and only the parts that a model gives."""

import io
import re
from typing import Any

import analysis_cases as made
import pytest

from athwe_cli.case_study_text import CaseText
from athwe_cli.render import SafeConsole


def shown(case: dict[str, Any], width: int = 80) -> str:
    file = io.StringIO()
    CaseText(SafeConsole(file=file, width=width)).show(case)
    return file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_number_is_cut(width: int) -> None:
    case = made.case(12, experts=6)
    text = shown(case, width)
    assert max(map(len, text.splitlines())) <= width
    assert not re.search(r"\.\d*…|%…", text)
    why = case["why"][made.RUNS[0]]
    for gates in (why["temporal_gates"], *why["interactive_gates"].values()):
        for value in gates[-1]:
            assert f" {value:.2f}" in text
    for shares in why["wavelet_energy"]["share"].values():
        for share in shares:
            assert f"{share:.0%}" in text
    for gap in why["gaps"]:
        assert f"{gap['score']:.2f}" in text
    for row in case["recommendations"][made.RUNS[0]]:
        assert f"{row['score']:.2f}" in text


def test_parts_of_the_attention_and_frequencies_are_shown_where_the_model_gives_them() -> None:
    case = made.case(3, runs=made.RUNS[:1])
    assert "alone would give" not in shown(case)
    assert "by frequency" not in shown(case)
    case["why"][made.RUNS[0]] |= {
        "attention_parts": {"id": [[0.1, 0.2, 0.7]], "brand": [[0.2, 0.5, 0.3]]},
        "frequency_energy": {"bands": ["0-9 (layer 2)", "10-25 (layer 1)"], "share": {"layer 1": [0.83, 0.17]}},
    }
    text = shown(case)
    assert "Attention that each part alone would give: oldest to latest item, and the most" in text
    assert re.search(r"brand +\S+ +item 2 50%, item 3 30%, item 1 20%", text)
    assert "Energy of each layer's input by frequency, from slow to fast change" in text
    assert re.search(r"layer 1 +83% .* 17%", text)


def test_a_model_without_an_inside_view_has_scores_influence_and_gaps() -> None:
    case = made.case(runs=made.RUNS[:1])
    case["why"][made.RUNS[0]] |= {
        **{"by_modality": {}, "attention": {}},
        **{"temporal_gates": None, "interactive_gates": None, "wavelet_energy": None},
    }
    for row in case["recommendations"][made.RUNS[0]]:
        row["by_modality"] = {}
    text = shown(case)
    for heading in ("Top 10 of athwe/first", "Its score is 8.40.", "What mattered most", "If the last item"):
        assert heading in text
    for heading in ("Gates", "Attention", "Wavelet", "image"):
        assert heading not in text


def test_parts_of_other_names_have_columns_of_their_own() -> None:
    case = made.case(runs=made.RUNS[:1])
    case["why"][made.RUNS[0]] |= {"by_modality": {"brand": 8.4}, "attention": {"sequence": [[0.5] + [0.1] * 5 + [0.0]]}}
    for row in case["recommendations"][made.RUNS[0]]:
        row["by_modality"] = {"brand": row["score"]}
    text = shown(case)
    assert re.search(r"score +brand", text)
    assert re.search(r"sequence +\S+ +item 1 50%, item 2 10%, item 3 10%", text)


def test_other_runs_are_shown_in_short() -> None:
    text = shown(made.case())
    assert "hm4sr/second in short; the page and --json have the rest" in text
    assert text.count("What mattered most") == 1
