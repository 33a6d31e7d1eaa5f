"""Where a page comes from, and what else there is on its data set: its footer and its links."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2.utils import url_quote

import athwe_core

REPORT, AUDIT, CASES = "report.html", "audit.html", "case-studies"
"""Names of pages and of the folder of case studies within RUNS/DATASET."""
MOST_CASES = 12
_TOKEN = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:\\.|[^"\\])*"|['"])+""", re.DOTALL)


@dataclass(frozen=True)
class Link:
    """Another page, relative to this one."""

    label: str
    href: str


@dataclass(frozen=True)
class Related:
    """Other pages of one kind about the data set; where there is none, the command that writes one."""

    kind: str
    links: list[Link]
    more: int
    """How many pages are not listed."""
    command: str


@dataclass(frozen=True)
class Origin:
    """When a page was written, with what, and what it links to."""

    written: str
    """UTC, `2026-11-21 10:15`."""
    version: str
    """Of athwe."""
    command: str
    """What writes it again."""
    related: list[Related]


def origin(page: Path, *, dataset: str, runs_dir: Path, command: str) -> Origin:
    """What the footer of a page tells, now.

    Args:
        page: where it is written.
        dataset: name of the data set.
        runs_dir: folder of all runs, where the commands leave their pages.
        command: as typed.
    """
    folder = runs_dir / dataset
    named = shlex.quote(dataset)
    cases = sorted((folder / CASES).glob("*.html"), key=lambda path: -path.stat().st_mtime)
    kinds: list[tuple[str, list[Path], str]] = [
        ("Report", [folder / REPORT], f"athwe report --dataset {named}"),
        ("Audit", [folder / AUDIT], f"athwe audit --dataset {named}"),
        ("Case studies", cases, f"athwe case-study --dataset {named} --random 1"),
    ]
    related = []
    for kind, paths, how in kinds:
        others = [path for path in paths if path.exists() and path.resolve() != page.resolve()]
        shown = others[:MOST_CASES]
        is_this = page.resolve() in [path.resolve() for path in paths]
        if others or not is_this:
            related.append(Related(kind, list(_links(shown, page, kind)), len(others) - len(shown), how))
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    return Origin(written, athwe_core.__version__, command, related)


def _links(paths: Iterable[Path], page: Path, kind: str) -> Iterable[Link]:
    for path in paths:
        relative = Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix()
        label = path.stem if path.parent.name == CASES else kind
        yield Link(label, url_quote(relative))


def command_parts(command: str) -> list[str]:
    """A command in parts that a line must not be broken within: an option stays with its value.

    Args:
        command: for a shell. Blanks between its words become one, those within quotes stay.
    """
    parts: list[str] = []
    takes_value = False
    for token in _TOKEN.findall(command):
        is_option = token.startswith("-")
        if takes_value and not is_option:
            parts[-1] = f"{parts[-1]} {token}"
        else:
            parts.append(token)
        takes_value = is_option and "=" not in token
    return parts
