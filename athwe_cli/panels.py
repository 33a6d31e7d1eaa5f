"""How help is arranged: each option of a command in the panel of its topic, each command in the panel of its use."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperOption

COMMAND_PANELS = {
    "Data": ("download", "prepare", "audit", "datasets"),
    "Train": ("train", "ablate", "sweep", "tune", "table1", "bench"),
    "Judge": ("evaluate", "compare", "case-study", "report", "runs"),
    "Use": ("recommend", "export", "serve"),
}
"""Commands by panel, in the order in which `athwe --help` shows them."""

OPTION_PANELS = {
    "Data": "dataset version verify raw source item-file refresh sources run from histories user users items like random "
    "history pick with ranks",
    "Columns and bad rows": "user-column item-column time-column time-unit time-format category-column image-column "
    "text-columns columns quotes max-bad-lines max-missing-ids",
    "Filtering and split": "min-interactions keep-items max-categories tie-order split held-out-share seed",
    "Text and images": "text-encoder text-layers text-pooling text-max-tokens text-width image-encoder image-layers images "
    "download-images allow-private-hosts feature-rows half-features keep-feature-scale clusters",
    "Demo data": "",
    "Model": "preset modalities config set init-from space vary remove all",
    "Training": "batching epochs patience batch-targets lr seeds jobs launcher ray-address trials device precision compile "
    "checkpoint-minutes resume all-data refit",
    "Judging": "metric k exclude-seen against groups force shuffles",
    "Sizes": "suite models growth largest only steps mean-length feature-width",
    "Address": "host port api-key-file page",
    "Engine": "engine spark-master",
    "Limits": "max-k max-history max-body-kb max-batch max-queue timeout-seconds check-seconds",
    "Output": "name to format export overwrite html no-html latex markdown csv data-licence track dry-run yes json",
    "Folders": "data prepared runs",
}
"""Long names of options by panel, in the order in which help shows the panels."""

EXCEPTIONS = {
    "prepare": {"users": "Demo data", "items": "Demo data", "device": "Text and images"},
    "train": {"seed": "Training"},
    "tune": {"seed": "Training"},
    "bench": {"users": "Sizes", "items": "Sizes"},
    "serve": {"images": "Data"},
    "case-study": {"images": "Data", "seed": "Data", "split": "Judging"},
    "evaluate": {"split": "Judging"},
    "compare": {"split": "Judging"},
    "ablate": {"split": "Judging"},
    "sweep": {"split": "Judging"},
    "table1": {"split": "Judging"},
    "audit": {"seed": "Judging"},
}
"""Options that belong to another panel in one command."""

_PANEL_OF = {name: panel for panel, names in OPTION_PANELS.items() for name in names.split()}
_ORDER = list(OPTION_PANELS)


def panel_of(command: str, option: str) -> str | None:
    """The panel of a command's option by its long name without dashes; None where it has none."""
    return EXCEPTIONS.get(command, {}).get(option) or _PANEL_OF.get(option)


class PanelledCommand(TyperCommand):
    """A command whose help shows options in panels by topic."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        for option in self.params:
            if isinstance(option, TyperOption):
                option.rich_help_panel = panel_of(self.name or "", option.opts[0].removeprefix("--"))

        def place(parameter: Any) -> int:
            panel = getattr(parameter, "rich_help_panel", None)
            return _ORDER.index(panel) if panel in _ORDER else -1

        self.params.sort(key=place)
