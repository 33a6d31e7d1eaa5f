"""Lines of Amazon's item metadata to plain text. No heavy library: worker processes import it.

The 2014 files hold Python literals, not JSON. They are read in worker processes, for speed, and so that a line which breaks
the parser ends no more than its worker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import cpu_count, get_context
from typing import Any

from athwe_core.data.readers.literals import MAX_LITERAL_BYTES, parse_literal
from athwe_core.data.readers.text_cleaning import clean_text, is_text, join_names
from athwe_core.host_process import can_have_children

COLUMNS = {
    **{"item_id": "token", "title": "token", "brand": "token", "categories": "name_seq"},
    **{"description": "token", "image_url": "token"},
}
"""Columns of an item row and their types in an item table."""
Row = tuple[str, ...]
MAX_DESCRIPTION = 1000  # characters: more than encoders read, and a million items stay within a gigabyte
MAX_URL = 10_000  # characters
_LINES_A_TASK = 500
_TASKS_A_WORKER = 3  # waiting at most, so that memory is bounded
_IMAGE_SIZES = ("large", "hi_res", "thumb")


def item_row(found: Any) -> Row | None:
    """One metadata object of any release as texts in the order of `COLUMNS`, empty where absent; None without an item id."""
    if not isinstance(found, dict):
        return None
    item = found.get("parent_asin") or found.get("asin")
    if not isinstance(item, str) or not item.strip() or not is_text(item):
        return None
    details = found.get("details")
    brand = found.get("brand") or found.get("store") or (details.get("Brand") if isinstance(details, dict) else None)
    categories = found.get("categories") or found.get("category") or found.get("main_category")
    return (
        item.strip(),
        clean_text(" ".join(_strings(found.get("title")))),
        clean_text(" ".join(_strings(brand))),
        join_names(_strings(categories)),
        clean_text(" ".join(_strings(found.get("description"))))[:MAX_DESCRIPTION].rstrip(),
        _first_image(found),
    )


def json_row(line: bytes) -> tuple[bool, Row | None]:
    """Whether a line is JSON (UTF-8), and its row."""
    try:
        return True, item_row(json.loads(line.decode("utf-8-sig")))
    except (ValueError, RecursionError):
        return False, None


def literal_row(line: bytes) -> Row | None:
    """The row of a line that holds a Python literal, None where it does not."""
    return item_row(parse_literal(line))


def _literal_rows(lines: list[tuple[int, bytes]]) -> list[tuple[int, Row | None]]:
    return [(number, literal_row(line)) for number, line in lines]


def _in_this_process(lines: list[tuple[int, bytes]]) -> Future[list[tuple[int, Row | None]]]:
    done: Future[list[tuple[int, Row | None]]] = Future()
    done.set_result(_literal_rows(lines))
    return done


class LiteralReader:
    """Reads Python literals in worker processes, which start with the first full task and end with the `with` block.

    Where this process can have no children, it reads them itself.

    A script that uses this needs `if __name__ == "__main__":`, as for every spawned process.
    """

    def __init__(self) -> None:
        self._workers = max(1, min(cpu_count(), 8))
        self._can_start = can_have_children()
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: list[tuple[int, bytes]] = []
        self._running: list[Future[list[tuple[int, Row | None]]]] = []

    def __enter__(self) -> LiteralReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def add(self, number: int, line: bytes) -> Iterator[tuple[int, Row | None]]:
        """Hand over a line; yield what is done. Too long a line is no literal. Raises BrokenProcessPool."""
        if len(line) > MAX_LITERAL_BYTES:
            yield number, None
            return
        self._waiting.append((number, line))
        if len(self._waiting) == _LINES_A_TASK:
            self._submit()
        while len(self._running) > _TASKS_A_WORKER * self._workers:
            yield from self._running.pop(0).result()

    def rest(self) -> Iterator[tuple[int, Row | None]]:
        """Yield all that is left. Raises BrokenProcessPool."""
        if self._waiting:
            self._submit()
        while self._running:
            yield from self._running.pop(0).result()

    def _submit(self) -> None:
        if not self._can_start:
            self._running.append(_in_this_process(self._waiting))
            self._waiting = []
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        self._running.append(self._pool.submit(_literal_rows, self._waiting))
        self._waiting = []


def _strings(value: Any) -> Iterable[str]:
    """The texts in a text, a list or nested lists."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        return [text for part in value for text in _strings(part)]
    return []


def _first_image(found: dict[str, Any]) -> str:
    """URL of the first picture, the large one where sizes are told apart: 2014 imUrl, 2018 imageURL..., 2023 images."""
    images = found.get("images")
    if isinstance(images, dict):
        images = [
            dict(zip(images, values, strict=True)) for values in zip(*map(_sequence, images.values()), strict=False)
        ]
    for image in _sequence(images):
        if isinstance(image, dict):
            url = next((image[size] for size in _IMAGE_SIZES if isinstance(image.get(size), str)), "")
            if url:
                return _one_line(url)
    urls = [url for key in ("imageURLHighRes", "imageURL", "imUrl") for url in _strings(found.get(key)) if url.strip()]
    return _one_line(urls[0]) if urls else ""


def _one_line(url: str) -> str:
    """A URL without white space; empty where it is none that could be fetched."""
    return " ".join(url.split()) if is_text(url) and len(url) <= MAX_URL else ""


def _sequence(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


__all__ = ["COLUMNS", "BrokenProcessPool", "LiteralReader", "Row", "item_row", "json_row", "literal_row"]
