from datetime import UTC, datetime

import analysis_cases as made
import numpy as np
import pytest
from matplotlib.figure import Figure

from athwe_core.analysis.figures.plots import groups_figure, learning_curves, time_bins, time_distribution


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


class TestLearningCurves:
    def test_a_panel_for_the_selection_and_each_term_and_a_line_for_each_run_that_has_it(self) -> None:
        records = {"a": made.epoch_records(6), "b": made.epoch_records(4, 1, ("ce", "cp"))}
        figure = learning_curves(records)
        panels = ["validation NDCG@20", "loss total", "loss ce", "loss cp", "loss idcl", "loss pcl"]
        assert titles(figure) == panels
        curve = [line["losses"]["ce"] for line in records["b"]]
        drawn = [list(line.get_ydata()) for line in figure.axes[2].lines]
        assert curve in drawn
        assert [len(line.get_xdata()) for line in figure.axes[5].lines if len(line.get_xdata()) > 1] == [6]

    def test_a_dot_at_the_best_epoch(self) -> None:
        records = made.epoch_records(5)
        for number, line in enumerate(records):
            line["validation"]["ndcg@20"] = [1, 2, 5, 4, 3][number]
        dots = [line for line in learning_curves({"a": records}).axes[0].lines if len(line.get_xdata()) == 1]
        assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == [(3, 5)]

    def test_an_odd_number_of_panels_and_a_single_epoch(self) -> None:
        figure = learning_curves({"a": made.epoch_records(1, terms=("ce", "cp", "idcl"))})
        figure.draw_without_rendering()
        assert len([axes for axes in figure.axes if axes.axison]) == 5


class TestGroups:
    def test_bars_are_the_metric_with_the_users_beside_the_label(self) -> None:
        found = made.groups()
        figure = groups_figure({"athwe": found, "hm4sr": made.groups(0.03)}, "ndcg@10")
        assert len(figure.axes) == 3
        for axes, (kind, labels) in zip(figure.axes, found.items(), strict=True):
            widths = [bar.get_width() for bar in axes.containers[0]]
            assert widths == [values["ndcg@10"] for values in labels.values()], kind
            written = [label.get_text() for label in axes.get_yticklabels()]
            assert written == [f"{label} ({values['users']:,})" for label, values in labels.items()]

    def test_no_bar_is_cut_off(self) -> None:
        figure = groups_figure({"athwe": made.groups()}, "ndcg@10")
        widest = max(bar.get_width() for axes in figure.axes for bar in axes.patches)
        assert all(axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > widest for axes in figure.axes)

    def test_a_group_that_one_run_lacks_has_no_bar_of_it(self) -> None:
        fewer = made.groups()
        del fewer["history_length"]["50+"]
        figure = groups_figure({"all": made.groups(), "fewer": fewer}, "ndcg@10")
        assert [bar.get_width() for bar in figure.axes[0].containers[1]][-1] == 0


class TestTime:
    def test_bins_are_equal_and_count_everything(self) -> None:
        edges, counts = time_bins(made.timestamps())
        assert counts.sum() == len(made.timestamps())
        assert len(edges) == 31
        assert len(counts) == 30
        assert edges[0] == made.timestamps().min()
        assert edges[-1] == made.timestamps().max()
        assert np.ptp(np.diff(edges)) <= 1

    def test_the_axis_has_dates(self) -> None:
        start = int(datetime(2010, 1, 1, tzinfo=UTC).timestamp())
        figure = time_distribution(np.arange(start, start + 1500 * 86_400, 86_400), dataset="Toys")
        figure.draw_without_rendering()
        labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert {"2010", "2012", "2014"} & set(labels)
        assert len(figure.axes[0].patches) == 30

    @pytest.mark.parametrize("times", [[5], [5, 5], [5, 6], [0, 86_400]])
    def test_a_moment_of_data(self, times: list[int]) -> None:
        edges, counts = time_bins(np.array(times))
        assert counts.sum() == len(times)
        assert (np.diff(edges) > 0).all()
        time_distribution(np.array(times)).draw_without_rendering()
