"""Files within a page: links that save a table or a figure, and need neither a network nor a script."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from athwe_core.analysis.figures.save import figure_bytes, inline_svg

_TYPES = {"csv": "text/csv", "md": "text/markdown", "tex": "text/x-tex", "svg": "image/svg+xml", "png": "image/png"}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Download:
    """A file that a link of the page saves."""

    label: str
    """`CSV`."""
    file: str
    """Its name."""
    url: str
    """A `data:` URL that holds the file."""


@dataclass(frozen=True)
class PageFigure:
    """A figure as a page shows it, and as files."""

    svg: Markup
    downloads: tuple[Download, ...]


def download(label: str, stem: str, suffix: str, content: bytes | str) -> Download:
    """A file as a link.

    Args:
        label: text of the link.
        stem: name of the file without its suffix; characters other than letters, digits, `.`, `_` and `-` become `-`.
        suffix: `csv`, `md`, `tex`, `svg` or `png`.
        content: of the file; text is encoded as UTF-8.
    """
    raw = content.encode() if isinstance(content, str) else content
    encoding = ";charset=utf-8" if isinstance(content, str) else ""
    url = f"data:{_TYPES[suffix]}{encoding};base64,{base64.b64encode(raw).decode()}"
    return Download(label, f"{_UNSAFE.sub('-', stem).strip('-.')}.{suffix}", url)


def page_figure(figure: Figure, *, stem: str, title: str, description: str) -> PageFigure:
    """A figure within a page, in the page's colours, and as SVG and PNG on white.

    Args:
        figure: the figure.
        stem: name of the files without their suffix.
        title, description: text alternatives for screen readers.
    """
    return PageFigure(
        svg=Markup(inline_svg(figure, title=title, description=description)),
        downloads=(
            download("SVG", stem, "svg", figure_bytes(figure, "svg")),
            download("PNG", stem, "png", figure_bytes(figure, "png")),
        ),
    )
