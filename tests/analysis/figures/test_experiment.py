from typing import Any

import analysis_cases as made
import pytest
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure

from athwe_core.analysis.figures.experiment import ablation_figure, sweep_figure


def texts(figure: Figure) -> str:
    """Everything written in a figure."""
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def bars(figure: Figure) -> list[BarContainer]:
    return [container for container in figure.axes[0].containers if isinstance(container, BarContainer)]


def errors(figure: Figure) -> list[ErrorbarContainer]:
    return [container for container in figure.axes[0].containers if isinstance(container, ErrorbarContainer)]


class TestAblation:
    def test_bars_are_the_means_from_zero_of_both_metrics(self) -> None:
        result = made.ablation()
        figure = ablation_figure(result)
        for metric, container in zip(("ndcg@10", "ndcg@5"), bars(figure), strict=True):
            expected = [variant["metrics"]["test"][metric]["mean"] for variant in result["variants"]]
            assert [bar.get_height() for bar in container] == expected
            assert all(bar.get_y() == 0 for bar in container)
        assert figure.axes[0].get_ylim()[0] == 0

    def test_error_bars_are_one_sd_each_way(self) -> None:
        result = made.ablation()
        segments = errors(ablation_figure(result))[0].lines[2][0].get_segments()
        for variant, ((_, low), (_, high)) in zip(result["variants"], segments, strict=True):
            found = variant["metrics"]["test"]["ndcg@10"]
            assert high - low == pytest.approx(2 * found["sd"])
            assert (high + low) / 2 == pytest.approx(found["mean"])

    def test_no_error_bars_for_one_seed(self) -> None:
        assert errors(ablation_figure(made.ablation(seeds=1))) == []

    def test_full_model_is_marked_and_changes_and_circumstances_are_written(self) -> None:
        figure = ablation_figure(made.ablation())
        written = texts(figure)
        assert "Toys_and_Games" in written
        assert "mean and sd of 3 seeds, ties in item order" in written
        assert "quick" not in written
        change = made.ablation()["variants"][2]["change_percent"]
        assert f"{change:.1f}*".replace("-", "−") in written
        labels = figure.axes[0].get_xticklabels()
        assert [label.get_fontweight() for label in labels[:2]] == ["bold", "normal"]

    def test_a_quick_look_and_one_seed_say_so(self) -> None:
        written = texts(ablation_figure(made.ablation(seeds=1, quick_epochs=5)))
        assert "one seed, ties in item order · quick look: at most 5 epochs" in " ".join(written.split())

    def test_seeds_that_differ_between_variants_are_said(self) -> None:
        result = made.ablation()
        for metrics in result["variants"][1]["metrics"].values():
            metrics["ndcg@10"] |= {"values": metrics["ndcg@10"]["values"][:1], "sd": None}
        assert "mean of 1 to 3 seeds, sd where several" in " ".join(texts(ablation_figure(result)).split())

    def test_other_metrics(self) -> None:
        figure = ablation_figure(made.ablation(), metrics=["mrr@5"])
        assert len(bars(figure)) == 1
        assert "MRR@5" in texts(figure)

    @pytest.mark.parametrize(("metric", "pair"), [("ndcg@10", "NDCG@5"), ("mrr@5", "MRR@10"), ("hit@50", "Hit@20")])
    def test_the_second_metric_is_the_same_at_another_cut_off(self, metric: str, pair: str) -> None:
        assert pair in texts(ablation_figure(made.ablation() | {"metric": metric}))

    def test_metrics_of_zero_have_an_axis(self) -> None:
        result = made.ablation(reference=None)
        for variant in result["variants"]:
            for found in variant["metrics"]["test"].values():
                found |= {"mean": 0.0, "sd": 0.0}
        assert ablation_figure(result).axes[0].get_ylim() == (0, 1)


def x_labels(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


class TestSweep:
    def test_numbers_are_a_line_with_error_bars_and_a_tick_at_each(self) -> None:
        result = made.sweep()
        figure = sweep_figure(result)
        line = figure.axes[0].lines[0]
        assert list(line.get_xdata()) == [0.1, 0.3, 0.5, 0.7, 1.0, 1.5]
        means = [variant["metrics"]["validation"]["ndcg@10"]["mean"] for variant in result["variants"]]
        assert list(line.get_ydata()) == means
        assert len(errors(figure)) == 1
        assert x_labels(figure) == ["0.1", "0.3", "0.5", "0.7", "1", "1.5"]
        assert figure.axes[0].get_xscale() == "linear"
        assert figure.axes[0].get_xlabel() == "losses.pcl.weight"

    def test_the_axis_that_does_not_begin_at_zero_is_announced(self) -> None:
        figure = sweep_figure(made.sweep())
        assert figure.axes[0].get_ylim()[0] > 0
        assert "does not begin at zero" in " ".join(texts(figure).split())

    def test_points_are_in_the_order_of_their_values(self) -> None:
        result = made.sweep()
        result["variants"].reverse()
        assert list(sweep_figure(result).axes[0].lines[0].get_xdata()) == [0.1, 0.3, 0.5, 0.7, 1.0, 1.5]

    def test_the_preset_s_own_value_has_a_ring(self) -> None:
        ring = sweep_figure(made.sweep()).axes[0].lines[-1]
        assert list(ring.get_xdata()) == [1.0]
        assert ring.get_markerfacecolor() == "none"
        assert "ring" not in texts(sweep_figure(made.sweep(reference=None)))

    def test_two_decades_are_logarithmic_and_other_keys_are_lines(self) -> None:
        figure = sweep_figure(made.grid())
        assert figure.axes[0].get_xscale() == "log"
        written = texts(figure)
        assert "temporal_moe.num_experts = 2" in written
        assert "temporal_moe.num_experts = 4" in written

    def test_zero_among_the_values_is_no_logarithm(self) -> None:
        result = made.sweep()
        result["variants"][0]["values"] = {"losses.pcl.weight": 0.0}
        assert sweep_figure(result).axes[0].get_xscale() == "linear"

    def test_categories_are_bars_from_zero_in_the_given_order(self) -> None:
        result = made.kinds()
        figure = sweep_figure(result)
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
            v["label"] for v in result["variants"]
        ]
        assert figure.axes[0].get_xlim()[0] == 0
        assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1]
        widths = [bar.get_width() for bar in bars(figure)[0]]
        assert widths == [variant["metrics"]["test"]["ndcg@10"]["mean"] for variant in result["variants"]]
        assert "quick look: at most 5 epochs" in " ".join(texts(figure).split())

    @pytest.mark.parametrize("values", [(True, False), (None, 2), ("a", "b")])
    def test_what_is_no_number_is_a_category(self, values: tuple[Any, Any]) -> None:
        points = [(str(value), {"model.x": value}, 0.05) for value in values]
        assert bars(sweep_figure(made.experiment("sweep", points)))

    def test_long_labels_leave_room_for_the_bars(self) -> None:
        points = [
            ("interval+absolute, [id, text, image], " * 3 + str(number), {"a.b": str(number)}, 0.05)
            for number in (1, 2)
        ]
        figure = sweep_figure(made.experiment("sweep", points))
        figure.draw_without_rendering()
        assert figure.axes[0].get_position().width > 0.4

    def test_another_metric(self) -> None:
        assert "MRR@5" in texts(sweep_figure(made.sweep(), metric="mrr@5"))
