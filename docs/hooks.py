"""The notebooks become pages of the site, and links that leave `docs/` point to the repository."""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

NOTEBOOKS = Path(__file__).parents[1] / "examples" / "notebooks"
PICTURES = NOTEBOOKS.with_name("pictures")


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Add `notebooks/NAME.md` for each notebook, and the picture of its figures where there is one.

    Args:
        files: of the site.
        config: of the site.
    Returns: the files.
    """
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        picture = PICTURES / f"{path.stem}.png"
        shown = (
            [f"## Its figures, from one run\n\n![Figures of the notebook]({picture.name})"] if picture.exists() else []
        )
        page = "\n\n".join([notebook_page(path), *shown])
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        if shown:
            files.append(File.generated(config, f"notebooks/{picture.name}", abs_src_path=str(picture)))
    return files


def notebook_page(path: Path) -> str:
    """The texts and the code of a notebook as Markdown; notebooks are stored without outputs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    pieces = [
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell, text in zip(cells, texts, strict=True)
    ]
    title, *rest = pieces
    source = f"The tests run [this notebook](../../examples/notebooks/{path.name}). Run it to see what it shows."
    return "\n\n".join([title, source, *rest]) + "\n"


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Replace `](../examples/results.md)` by the file's address in the repository, and notebooks by their pages.

    Args:
        markdown: text of the page.
        page: its place; each folder below `docs/` is one more `../`.
        config: of the site, with `repo_url`.
    Returns: the text.
    """
    depth = page.file.src_uri.count("/")
    up = "../" * (depth + 1)
    if not page.file.src_uri.startswith("notebooks/"):
        pages = rf"]({'../' * depth}notebooks/\1.md)"
        markdown = re.sub(rf"\]\({re.escape(up)}examples/notebooks/(\w+)\.ipynb\)", pages, markdown)
    return re.sub(rf"\]\({re.escape(up)}(?!\.)", f"]({config.repo_url}/blob/main/", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Keep options in running text on one line: `--tie-order` would break after a hyphen.

    Args:
        html: content of the page.
    Returns: the same, each option in inline code as one piece.
    """

    def in_code(found: re.Match[str]) -> str:
        words = re.sub(r"(?<!\S)--[\w-]+", r'<span style="white-space: nowrap">\g<0></span>', found[1])
        return f"<code>{words}</code>"

    return re.sub(r"<code>([^<\n]*)</code>", in_code, html)
