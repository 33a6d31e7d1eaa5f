"""Saving a figure as files, or as a part of a page."""

from __future__ import annotations

import hashlib
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

from athwe_core.analysis.figures.style import CSS, INK, RC
from athwe_core.safe_write import replacing

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_PRESENTATION = (
    *("fill", "fill-opacity", "opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-dasharray"),
    *("stroke-dashoffset", "stroke-linejoin", "stroke-linecap", "stroke-miterlimit"),
    *("text-anchor", "font-size", "font-weight"),
)
"""Style properties that are kept as attributes; the font is the page's."""


_FILE_OPTIONS: dict[str, dict[str, Any]] = {"svg": {"metadata": {"Date": None, "Creator": None}}, "png": {"dpi": 200}}


def figure_bytes(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """The figure as a file on white: SVG with text as outlines, equal bytes for an equal figure, or PNG of 200 dpi."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC | {"svg.fonttype": "path"}):
        _save(figure, buffer, kind, facecolor="white", **_FILE_OPTIONS[kind])
    return buffer.getvalue()


def _save(figure: Figure, buffer: io.BytesIO, kind: str, **options: Any) -> None:
    """Write the figure. Its layout is that of its first file: otherwise each file computes it anew, half of its time."""
    figure.savefig(buffer, format=kind, **options)
    figure.set_layout_engine(None)


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.svg and STEM.png as `figure_bytes` makes them, each atomically."""
    written = []
    for kind in ("svg", "png"):
        path = stem.with_name(f"{stem.name}.{kind}")
        with replacing(path) as temporary:
            temporary.write_bytes(figure_bytes(figure, kind))
        written.append(path)
    return written


def inline_svg(figure: Figure, *, title: str, description: str) -> str:
    """The figure as an `<svg>` element for HTML: transparent, as wide as its container, in the page's CSS colours.

    Args:
        figure: the figure.
        title, description: text alternatives for screen readers. Two figures of one page must differ in one of them or in
            their content.
    Returns: markup without style attributes or scripts; its ids begin with a hash of the content and the two texts.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC | {"svg.fonttype": "none"}):
        _save(figure, buffer, "svg", transparent=True, metadata={"Date": None, "Creator": None})
    prefix = "f" + hashlib.sha256(buffer.getvalue() + f"\0{title}\0{description}".encode()).hexdigest()[:10]
    root = ET.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag == f"{_SVG}style" or not child.tag.startswith(_SVG)]:
            parent.remove(child)
        for child in [child for child in parent if child.tag.endswith("}metadata")]:
            parent.remove(child)
    values = [(name, value) for element in root.iter() for name, value in element.attrib.items()]
    referenced = {value[1:] for name, value in values if name == f"{_XLINK}href"}
    referenced |= {found for _, value in values for found in _REFERENCE.findall(value)}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = dict(_page_attributes(element.attrib, prefix, referenced))
    names = {"title": title, "desc": description}
    for place, (tag, text) in enumerate(names.items()):
        child = ET.Element(tag, {"id": f"{prefix}-{tag}"})
        child.text = text
        root.insert(place, child)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib = {
        "class": "figure",
        "role": "img",
        "aria-labelledby": f"{prefix}-title",
        "aria-describedby": f"{prefix}-desc",
        "viewBox": f"0 0 {width} {height}",
        "width": f"{float(width) * 4 / 3:.0f}",
        "fill": CSS[INK],
        "stroke-linejoin": "round",
    }
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _page_attributes(attributes: dict[str, str], prefix: str, referenced: set[str]) -> list[tuple[str, str]]:
    """Attributes with each style property on its own, ids with the figure's prefix, and the page's colours."""
    found = []
    for name, value in attributes.items():
        if name == "id":
            found += [("id", f"{prefix}-{value}")] if value in referenced else []
        elif name == "style":
            found += _declarations(value, prefix)
        elif name == f"{_XLINK}href":
            found.append(("href", f"#{prefix}-{value[1:]}"))
        else:
            found.append((name, _own(value, prefix)))
    return found


def _declarations(style: str, prefix: str) -> list[tuple[str, str]]:
    found = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":  # of older versions of the library: weight and size in one
            found += [("font-size", size) for size in re.findall(r"[\d.]+px", value)]
            found += [("font-weight", weight) for weight in re.findall(r"\b(bold|[1-9]00)\b", value)]
        elif name in _PRESENTATION:
            found.append((name, CSS.get(value, value)))
        elif name == "clip-path":
            found.append((name, _own(value, prefix)))
    return found


def _own(value: str, prefix: str) -> str:
    return _REFERENCE.sub(rf"url(#{prefix}-\1)", value)
