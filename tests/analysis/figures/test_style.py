from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from athwe_core.analysis.figures.style import CSS, SERIES, new_figure, plain, shortened, text_width, wrap


def test_wrapped_lines_fit_and_keep_every_word() -> None:
    text = "Toys_and_Games: what each of the many parts of the network is worth, in percent of the whole"
    lines = wrap(text, 8.5, 2.0)
    assert " ".join(lines) == text
    assert len(lines) > 2
    drawn = [Text(0, 0, line, fontsize=8.5, figure=Figure(dpi=400)) for line in lines]
    widths = [line.get_window_extent().width / 400 for line in drawn]
    assert max(widths) <= 2.01
    assert max(widths) > 1.7


def test_a_word_wider_than_the_line_stands_alone() -> None:
    assert wrap("a interval+absolute+and+so+on b", 8, 0.5) == ["a", "interval+absolute+and+so+on", "b"]


def test_a_long_name_loses_its_middle_and_a_short_one_nothing() -> None:
    name = "model.temporal_moe.num_experts = 4, losses.pcl.weight = 0.25, training.seed = 3"
    short = shortened(name, 7, 1.5)
    assert text_width(short, 7) <= 1.5 < text_width(name, 7)
    beginning, end = short.split("…")
    assert name.startswith(beginning)
    assert name.endswith(end)
    assert min(len(beginning), len(end)) > 5
    assert shortened("athwe", 7, 1.5) == "athwe"


def test_a_title_of_more_lines_makes_the_figure_higher_not_the_plot_smaller() -> None:
    short, long = (new_figure("word " * count, height=2.0) for count in (1, 40))
    assert long.get_figheight() > short.get_figheight() > 2.0


def test_dollar_signs_are_text() -> None:
    figure = new_figure(plain("costs $5 or $6_x"), height=1.0)
    figure.draw_without_rendering()
    assert any("\\$" in text.get_text() for text in figure.texts)


def test_every_colour_is_a_variable_of_its_own_and_told_apart_in_grey() -> None:
    assert len(set(CSS.values())) == len(CSS)
    assert set(SERIES) <= CSS.keys()
    first, second, third = (sum(w * c for w, c in zip((0.3, 0.59, 0.11), to_rgb(x), strict=True)) for x in SERIES[:3])
    assert min(abs(first - second), abs(second - third), abs(first - third)) > 0.05
