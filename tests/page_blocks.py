"""The fenced blocks of a page, and why some are not run."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN_COMMANDS = (
    *("quickstart", "download", "train", "judge", "models", "paper", "scale", "reliability", "speed"),
    *("coming_from", "questions"),
)
"""Pages below `docs/` whose blocks `test_page_commands.py` runs."""
_COMMENT = re.compile(r"<!-- (.+) -->")
_NOT_RUN = "not run: "


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    comment: str = ""
    """Of the line before."""

    @property
    def not_run(self) -> str | None:
        """Why no test runs it, as `<!-- not run: WHY -->` before it says; None where there is no such comment."""
        return self.comment.removeprefix(_NOT_RUN) if self.comment.startswith(_NOT_RUN) else None

    @property
    def commands(self) -> list[str]:
        """Its lines, with those that end with a backslash joined to the next one."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page in order.

    Args:
        page: path from the root of the repository.
    """
    found: list[Block] = []
    inside: tuple[str, list[str], str] | None = None
    before = ""
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            if inside is None:
                comment = _COMMENT.fullmatch(before.strip())
                inside = (line[3:].strip(), [], comment[1] if comment else "")
            else:
                language, lines, text = inside
                found.append(Block(language, "\n".join(lines) + "\n", text))
                inside = None
        elif inside is not None:
            inside[1].append(line)
        if line.strip():
            before = line
    assert inside is None, f"{page}: a block does not end"
    return found
