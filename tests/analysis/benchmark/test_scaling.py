"""Growth of time and memory: which points, what law, and one real measurement in processes of its own."""

from typing import Any

import pytest

from athwe_core.analysis.benchmark.scaling import START, Point, growth_laws, growth_points, measure, measure_growth
from athwe_core.analysis.benchmark.scaling_figure import growth_figure
from athwe_core.config import Config
from athwe_core.errors import AthweError
from athwe_core.models.registry import build_config, replace_in

TINY = Point("processes", items=60, users=40, targets=32, processes=2, loss="sampled")


@pytest.fixture(scope="module")
def config() -> Config:
    sizes = ["model.hidden_size=8", "model.inner_size=8", "model.max_length=8", "losses.catalogue.num_negatives=20"]
    return replace_in(build_config("hm4sr"), [*sizes, "training.device=cpu", "training.precision=fp32"])


def test_the_full_loss_stops_where_no_step_can_afford_it() -> None:
    points = growth_points(largest=1_000_000)
    assert max(point.items for point in points if point.loss == "full") == 100_000
    assert max(point.items for point in points if point.loss == "sampled") == 1_000_000
    assert {point.processes for point in points if point.axis == "processes"} == {1, 2, 3}
    assert max(point.items for point in growth_points(largest=1000)) <= START.items


def record(items: int, *, seconds: float, memory: float) -> dict[str, Any]:
    facts = {"axis": "catalogue", "loss": "full", "items": items, "users": 20_000, "targets": 1024, "processes": 1}
    step = {"median": seconds, "min": seconds, "max": seconds}
    return facts | {"step_seconds": step, "peak_memory_bytes": memory, "ranking_seconds": 2 * seconds}


def test_the_law_is_found_and_drawn() -> None:
    points = [record(10**k, seconds=3e-6 * 10 ** (1.5 * k), memory=5e8) for k in (4, 5, 6)]
    laws = {law["quantity"]: law for law in growth_laws(points)}
    assert laws["step"]["exponent"] == pytest.approx(1.5)
    assert laws["step"]["constant"] == pytest.approx(3e-6)
    assert laws["memory"]["exponent"] == pytest.approx(0, abs=1e-9)
    assert growth_laws(points[:2]) == []
    assert growth_figure(points, preset="hm4sr", device="cpu").get_axes()


@pytest.mark.long
def test_two_processes_are_measured_with_their_own_memory(config: Config) -> None:
    found = measure(config, TINY, feature_width=4, steps=1)
    times = found["step_seconds"]
    assert 0 < times["min"] <= times["median"] <= times["max"]
    assert found["peak_memory_bytes"] > 1e8
    assert found["ranking_seconds"] > 0


@pytest.mark.long
def test_a_measurement_that_fails_is_one_line(config: Config) -> None:
    impossible = Point("users", items=60, users=0, targets=32, processes=1, loss="full")
    with pytest.raises(AthweError, match=r"^bench of Point\(.*users=0.*\) was ended by \w+") as caught:
        list(measure_growth(config, [impossible], feature_width=4, steps=1, notify=lambda _: None))
    assert "\n" not in str(caught.value)
