"""Help in panels: every option and command has one, and no panel names what does not exist."""

import pytest
from cli_runner import call
from typer.core import TyperGroup, TyperOption
from typer.main import get_command

from athwe_cli.app import app
from athwe_cli.panels import COMMAND_PANELS, EXCEPTIONS, OPTION_PANELS

GROUP = get_command(app)
assert isinstance(GROUP, TyperGroup)
OPTIONS = {
    name: [option for option in command.params if isinstance(option, TyperOption)]
    for name, command in GROUP.commands.items()
}


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_has_a_panel_and_panels_come_in_their_order(command: str) -> None:
    panels = [option.rich_help_panel for option in OPTIONS[command]]
    assert None not in panels, [option.opts for option in OPTIONS[command] if option.rich_help_panel is None]
    order = list(OPTION_PANELS)
    assert [order.index(str(panel)) for panel in panels] == sorted(order.index(str(panel)) for panel in panels)


def test_every_command_has_one_panel() -> None:
    named = [name for names in COMMAND_PANELS.values() for name in names]
    assert sorted(named) == sorted(OPTIONS)


def test_no_panel_names_an_option_that_is_not_there() -> None:
    there = {option.opts[0].removeprefix("--") for options in OPTIONS.values() for option in options}
    named = [name for names in OPTION_PANELS.values() for name in names.split()]
    assert sorted(named) == sorted(there)
    for command, moved in EXCEPTIONS.items():
        assert moved.keys() <= {option.opts[0].removeprefix("--") for option in OPTIONS[command]}
        assert set(moved.values()) <= set(OPTION_PANELS)


def test_help_is_short_and_long_and_shows_the_panels(tmp_path: object) -> None:
    short, long = call(tmp_path, "train", "-h"), call(tmp_path, "train", "--help")  # type: ignore[arg-type]
    assert short.exit_code == long.exit_code == 0
    assert short.stdout == long.stdout
    places = [short.stdout.index(f"─ {panel} ─") for panel in ("Data", "Model", "Training", "Output", "Folders")]
    assert places == sorted(places)
