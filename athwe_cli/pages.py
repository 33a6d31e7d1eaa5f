"""Writing pages: each says when and how it was written, and links to the others about its data set."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from athwe_cli.render import Output

if TYPE_CHECKING:
    from athwe_core.analysis.pages.origin import Origin


def write_page(page: Path, make: Callable[[Origin], str], *, dataset: str, runs: Path, output: Output) -> None:
    """Write a page and name it.

    Args:
        page: where; its folder is made where it is missing.
        make: its HTML, given where the page comes from.
        dataset: what it is about.
        runs: folder of all runs.
        output: gets a note.
    """
    from athwe_core.analysis.pages.origin import origin
    from athwe_core.safe_write import replace_text

    page.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["athwe", *sys.argv[1:]])
    replace_text(page, make(origin(page, dataset=dataset, runs_dir=runs, command=command)))
    output.note(f"page {page}")
