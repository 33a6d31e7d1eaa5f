"""Docstrings of layers, losses and what they build on name every argument, and what comes back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "athwe_core"
ROOMS = (
    *(
        "nn/*.py",
        "losses/*.py",
        "batch.py",
        "device.py",
        "distributed.py",
        "errors.py",
        "data/packing.py",
        "data/rows.py",
    ),
    *(f"evaluation/{name}.py" for name in ("baselines", "groups", "ranking", "significance")),
)
MODULES = [path for room in ROOMS for path in sorted(ROOT.glob(room)) if path.stem != "residual_triton"]  # a GPU kernel


def public(body: list[ast.stmt]) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, ast.FunctionDef | None]]:
    """Public functions, methods and classes, each with the function whose arguments its docstring explains."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node, next((part for part in node.body if getattr(part, "name", "") == "__init__"), None)  # type: ignore[misc]
            yield from public(node.body)


def missing(node: ast.FunctionDef | ast.ClassDef, function: ast.FunctionDef | None) -> list[str]:
    """What the docstring should name and does not."""
    text = ast.get_docstring(node) or ""
    if not text:
        return ["a docstring"]
    if function is None:
        return []
    arguments = [a.arg for a in (*function.args.args, *function.args.kwonlyargs) if a.arg != "self"]
    if re.search(r"with the arguments of `\w", text):
        return []
    explained = text.partition("Args:")[2]
    found = [name for name in arguments if not re.search(rf"\b{name}\b", explained)]
    gives = function is node and function.returns is not None and ast.unparse(function.returns) != "None"
    return found + ["Returns"] * (gives and bool(arguments) and not re.search(r"\b(Returns|Yields):", text))


FORMULA = re.compile(r"\n\n {4,}\S.* = \S")
WITH_EQUATIONS = sorted(
    path for room in ("nn", "losses", "models", "evaluation") for path in (ROOT / room).rglob("*.py")
)


@pytest.mark.parametrize("path", WITH_EQUATIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_equation_has_its_source(path: Path) -> None:
    """In the docstring itself, or of all in a module in the module's."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if "Source:" in (ast.get_docstring(tree) or ""):
        return
    texts = {node.name: ast.get_docstring(node) or "" for node, _ in public(tree.body)}
    assert not [name for name, text in texts.items() if FORMULA.search(text) and "Source:" not in text]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_docstrings_are_complete(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.name: names for node, function in public(tree.body) if (names := missing(node, function))}
    assert not found
