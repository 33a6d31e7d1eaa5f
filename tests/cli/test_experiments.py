"""What `ablate` and `sweep` show: durations, the table's columns, bars in a terminal."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from athwe_cli.experiment_tables import quick_look, result_table
from athwe_cli.experiments import ExperimentDisplay
from athwe_cli.render import Output

METRICS = ("ndcg@5", "ndcg@10", "mrr@10", "hit@5")


def result(labels: list[str], *, metric: str = "ndcg@10", varied: list[str] | None = None) -> dict[str, Any]:
    """A result whose second variant is 3.1 % worse with p 0.0004, the third 0.2 % better with p 0.5."""
    numbers = {"mean": 0.0421, "sd": 0.0012, "values": [0.0421] * 3}
    compared = [(None, None), (-3.1, 0.0004), (0.2, 0.5)]
    variants = [
        {
            "label": label,
            "metrics": {"test": dict.fromkeys(METRICS, numbers)},
            "change_percent": change,
            "p_holm": p,
        }
        for label, (change, p) in zip(labels, compared, strict=False)
    ]
    about = {"metric": metric, "split": "test", "varied": varied or [], "quick_epochs": None, "seeds": [0, 1, 2]}
    about |= {"test": "p is of some test"}
    kind = "sweep" if varied else "ablation"
    return {"kind": kind, "preset": "athwe", "dataset": "Toys_and_Games", "variants": variants, **about}


def shown(found: dict[str, Any]) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(result_table(found, rules="leave-one-out split, ties in item order"))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_quick_look_of_one_epoch_is_singular() -> None:
    assert (quick_look(1), quick_look(2)) == ("quick look: at most 1 epoch", "quick look: at most 2 epochs")


class TestTable:
    def test_numbers_as_written_in_papers(self) -> None:
        lines = shown(result(["full", "-PCL", "-IMoE+TMoE+DWT"])).splitlines()
        assert max(map(len, lines)) <= 80
        assert "ablation of athwe on Toys_and_Games, test, 3 seeds" in lines[0]
        rows = [line.split() for line in lines]
        assert "%: change of NDCG@10 against full. p is of some test" in lines[-1]
        assert ["full", *["0.0421±0.0012"] * 3] in rows
        assert ["-PCL", *["0.0421±0.0012"] * 3, "-3.1", "<0.001"] in rows
        assert ["-IMoE+TMoE+DWT", *["0.0421±0.0012"] * 3, "+0.2", "0.500"] in rows

    def test_long_labels_take_the_room_of_a_metric(self) -> None:
        text = shown(result(["interval+absolute", "day"], varied=["model.time_encoding.kind"], metric="hit@5"))
        assert "sweep of model.time_encoding.kind" in text
        header = next(line for line in text.splitlines() if "NDCG@5" in line)
        assert header.split() == ["NDCG@5", "Hit@5", "%", "p"]
        assert any(line.strip().startswith("interval+absolute ") for line in text.splitlines())

    def test_brackets_in_a_label_are_text(self) -> None:
        assert "[id, text]" in shown(result(["[id, text]", "[id]"], varied=["model.modalities"]))

    def test_without_a_reference_it_says_nothing_of_one(self) -> None:
        assert "against" not in shown(result(["a"], varied=["training.lr"]))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_of_two_runs_at_once(is_terminal: bool) -> None:
    output = Output(as_json=False)
    output.err = Console(file=io.StringIO(), force_terminal=is_terminal, width=100, highlight=False)
    display = ExperimentDisplay(output, total=2)
    runs: Any = [SimpleNamespace(label=label, seed=0, identity=label, existing=None) for label in ("full", "[id], 0.1")]
    for run in runs:
        display.run_begins(run)
        display.epoch_begins(run, 1, epochs=5, steps=10, done=0, best=None)
    for run in runs:
        display.step_ends(run, 4, {"ce": 1.0})
        display.epoch_ends(run, {"epoch": 1, "seconds": 1.5, "validation": {"ndcg@20": 0.05}}, is_best=True)
        display.epoch_begins(run, 2, epochs=5, steps=10, done=0, best=0.05)
    if is_terminal:
        assert [task.total for task in display._live().tasks] == [10, 10]
        display._live().refresh()
    display.note(runs[0], "all is well")
    display.run_ends(runs[0], "finished")
    display.run_ends(runs[1], "stopped")
    display.close()
    text = output.err.file.getvalue()  # type: ignore[attr-defined]
    assert ("[[id], 0.1, seed 0] epoch 2/5" in text) is is_terminal
    for expected in (
        "[full, seed 0] begins",
        "finished: 1 of 2 runs",
        "[[id], 0.1, seed 0] stopped",
        "[full, seed 0] all is well",
        "(best so far)",
    ):
        assert expected in text
