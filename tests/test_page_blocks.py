"""Every command and every code block of README and the documentation is run by a test, or says why not."""

import re
from pathlib import Path

import pytest
from page_blocks import ROOT, RUN_COMMANDS, blocks_of

RUN_ELSEWHERE = {
    "README.md": ".ci/run, tests/test_library.py",
    "CONTRIBUTING.md": ".ci/run",
    "docs/data.md": "tests/test_data_page.py",
    "docs/use.md": "tests/test_use.py",
    "docs/add_a_model.md": "tests/test_add_a_model.py",
    "docs/add_a_loss.md": "tests/test_add_a_loss.py",
    "docs/add_a_reader.md": "tests/test_add_a_reader.py",
    "docs/files.md": "tests/test_documents.py",
    "docs/reference/commands.md": "tests/test_documents.py",
}


def pages() -> list[str]:
    """README, CONTRIBUTING and the documentation."""
    return [
        "README.md",
        "CONTRIBUTING.md",
        *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
    ]


@pytest.mark.parametrize("page", pages())
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    if page in RUN_ELSEWHERE:
        assert [place for place in RUN_ELSEWHERE[page].split(", ") if not (ROOT / place).exists()] == []
        return
    run = blocks_of(page) if Path(page).stem in RUN_COMMANDS else []
    formulas = [block for block in blocks_of(page) if block.language == "text"]
    assert [block for block in formulas if re.search(r"^(athwe|pip|curl|python) ", block.text, re.MULTILINE)] == []
    left = [block for block in blocks_of(page) if block.not_run is None and block not in [*run, *formulas]]
    assert left == []
    for block in run:
        assert block.not_run is not None or block.language in ("bash", "python"), block
        if block.language == "bash" and block.not_run is None:
            assert [line for line in block.commands if not line.startswith("athwe ")] == []


def test_every_command_of_readme_is_run_by_ci_or_says_why_not() -> None:
    bash = [block for block in blocks_of("README.md") if block.language == "bash"]
    assert [block.comment for block in bash if block.not_run is None] == ["demo", "test"]
    for comment in ("demo", "test"):
        assert f"readme_command {comment}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", pages())
def test_no_command_hides_in_an_indented_line(page: str) -> None:
    outside = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^    (?:athwe|pip|python|torchrun) .*", outside, re.MULTILINE) == []
