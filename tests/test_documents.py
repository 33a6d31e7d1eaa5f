"""The documents are true: paths exist, the trees list every folder, versions agree, terms are in the glossary."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

import athwe_core
from athwe_cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "examples/results.md", "examples/scaling.md"),
    *("tests/benchmarks/README.md", "tests/golden/README.md"),
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
]
PATH = re.compile(r"(?<![\w/.-])(?:athwe_core|athwe_cli|docs|examples|tests|\.ci|\.github)/[\w./*-]*[\w*/]")
MODULE = re.compile(r"`(athwe_(?:core|cli)(?:\.\w+)+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\":]+)\"")
ANCHOR = re.compile(r"\]\(([^)#:]*)#([^)]+)\)")
PLACEHOLDER = re.compile(r"NAME|/b\.py|test_b\.py")
"""Paths of files that the reader will write."""


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def tree_entries() -> list[str]:
    """The paths that the tree of files lists, made whole by their indentation."""
    block = read("docs/files.md").split("```")[1]
    entries: list[str] = []
    parents: list[str] = []
    for line in block.splitlines():
        found = re.match(r"( *)(\S+) {2,}\S", line)
        if found is None or len(found[1]) > 8:  # a comment that goes on
            continue
        depth = len(found[1]) // 2
        parents[depth:] = [found[2]]
        entries.append("".join(parents))
    return entries


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_a_document_exists(document: str) -> None:
    text = read(document)
    paths = [path for path in PATH.findall(text) if not PLACEHOLDER.search(path)]
    missing = [path for path in paths if not list(ROOT.glob(path.rstrip("/")))]
    links = [first or second for first, second in LINK.findall(text)]
    missing += [link for link in links if not (ROOT / document).parent.joinpath(link).exists()]
    modules = [name.replace(".", "/") for name in MODULE.findall(text)]
    missing += [name for name in modules if not any((ROOT / f"{name}{end}").exists() for end in (".py", ""))]
    assert missing == []


def headings(path: Path) -> set[str]:
    """The anchors that GitHub and the site give to the headings of a document."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_to_a_heading_finds_it(document: str) -> None:
    place = ROOT / document
    links = [(place.parent / path if path else place, anchor) for path, anchor in ANCHOR.findall(read(document))]
    assert [(str(path), anchor) for path, anchor in links if anchor not in headings(path)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_other_sites_are_encrypted(document: str) -> None:
    known = ("http://127.0.0.1", "http://localhost")
    found = re.findall(r"http://[^\s)>`\"']+", read(document))
    assert [link for link in found if not link.startswith(known)] == []


def test_the_check_of_paths_finds_some() -> None:
    assert len(PATH.findall(read("CONTRIBUTING.md"))) > 10
    assert MODULE.search(read("README.md"))
    assert LINK.search(read("README.md"))


def test_the_tree_of_files_lists_every_folder_and_top_level_module() -> None:
    entries = tree_entries()
    assert [entry for entry in entries if not (ROOT / entry).exists()] == []
    folders = {f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / "athwe_core").rglob("*.py")}
    assert folders <= set(entries)
    modules = {f"athwe_core/{path.name}" for path in (ROOT / "athwe_core").glob("*.py") if path.name[0] != "_"}
    assert modules <= set(entries)


def test_the_glossary_explains_each_term_in_about_two_sentences() -> None:
    entries = re.findall(r"^### (.*)\n\n((?:(?!#).+\n)+)", read("docs/glossary.md"), re.MULTILINE)
    terms = [term for term, _ in entries]
    required = {
        "Tie order",
        "Packed",
        "Prefix row",
        "Split",
        "Seen items",
        "Floor",
        "Window",
        "Target",
        "Early stop",
        "Preset",
    }
    assert required <= set(terms)
    assert len(terms) == len(set(terms)) == read("docs/glossary.md").count("\n### ")
    sentences = {term: len(re.findall(r"[.:;](?=\s)", text)) for term, text in entries}
    assert {term: count for term, count in sentences.items() if not 2 <= count <= 3} == {}


def test_contributing_is_one_page() -> None:
    assert len(read("CONTRIBUTING.md").splitlines()) <= 100


def test_versions_agree() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert athwe_core.__version__ == version
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    newest = re.search(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d|in development)\)$", read("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert version == newest[1] + (".dev0" if newest[2] == "in development" else "")


def test_every_entry_of_the_changelog_has_a_date() -> None:
    headings = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0].endswith("(in development)") or re.search(r"\(\d{4}-\d\d-\d\d\)$", headings[0])
    assert all(re.search(r"\(\d{4}-\d\d-\d\d\)$", heading) for heading in headings[1:])


def test_the_workflow_runs_ci_on_the_oldest_and_the_newest_python() -> None:
    job = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]
    project = tomllib.loads(read("pyproject.toml"))["project"]
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert job["strategy"]["matrix"]["python"] == [supported[0], supported[-1]]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]


def test_the_workflow_runs_the_long_tests() -> None:
    job = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["long"]
    assert ".ci/long" in [step.get("run") for step in job["steps"]]
    assert "pytest -n 2 -m long" in read(".ci/long")


def test_the_workflow_runs_the_tests_that_need_other_engines() -> None:
    job = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["engines"]
    assert ".ci/engines" in [step.get("run") for step in job["steps"]]
    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    assert '".[test,ray,spark]"' in read(".ci/engines")
    assert {"ray", "spark"} <= extras.keys()


def test_pre_commit_runs_the_checks_of_ci() -> None:
    hooks = [hook for each in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"] for hook in each["hooks"]]
    local = {hook["id"]: hook["entry"].split()[:2] for hook in hooks if hook.get("language") == "system"}
    python = ".venv-test/bin"
    assert local == {
        "ruff": [f"{python}/ruff", "check"],
        "ruff-format": [f"{python}/ruff", "format"],
        "mypy": [f"{python}/mypy"],
    }
    for command in (" ".join(words) for words in local.values()):
        assert command in read(".ci/run")


@pytest.mark.parametrize("package", ["athwe_core", "athwe_cli"])
def test_a_package_started_as_a_module_is_the_command_line(package: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", package, "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(f"athwe {athwe_core.__version__} (Python 3.")


COMMAND = re.compile(r"(?:^|`|\s{4})(athwe [a-z][^`\n#|]*)")


def documented_commands() -> list[tuple[str, str]]:
    """(document, command) of every `athwe ...` in a code block, an indented line or inline code."""
    found = []
    for document in DOCUMENTS:
        if document != "docs/reference/commands.md":
            text = re.sub(r"\\\n\s*", " ", read(document))
            found += [(document, command.strip()) for command in COMMAND.findall(text)]
    return [(document, command) for document, command in found if "--" in command and "..." not in command]


def test_every_documented_command_has_these_options() -> None:
    """Options exist and values are of their type; nothing runs."""
    group = typer.main.get_command(app)
    commands = documented_commands()
    assert len(commands) > 40
    for document, command in commands:
        plain = re.sub(r"(?<= )[A-Z](?= |$)", "1", re.split(r" 2?> ", command)[0].rstrip(".,;"))  # --seed S
        name, *arguments = shlex.split(plain)[1:]
        try:
            group.get_command(None, name).make_context(name, [*arguments], resilient_parsing=False)  # type: ignore[union-attr,arg-type]
        except Exception as error:
            raise AssertionError(f"{document}: {command}: {error}") from error


def test_the_command_reference_is_that_of_the_commands() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "typer", "athwe_cli.app", "utils", "docs", "--name", "athwe", "--title", "Commands"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    remedy = "python -m typer athwe_cli.app utils docs --name athwe --title Commands > docs/reference/commands.md"
    assert made.stdout == read("docs/reference/commands.md"), f"Run: {remedy}"
