"""MovieLens in its three layouts: `u.data` and `u.item`, `ratings.dat` and `movies.dat`, `ratings.csv` and `movies.csv`."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.lines import blocks, first_lines
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import ItemTable, Records
from athwe_core.data.readers.text_cleaning import clean_text, join_names
from athwe_core.data.readers.user_table import TableFiles, read_tables
from athwe_core.errors import DataError

MOVIELENS = "movielens"
COLUMNS = ("userId", "movieId", "rating", "timestamp")
GENRES = (
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""In the order of the last columns of `u.item`."""
NO_GENRES = "(no genres listed)"


@dataclass(frozen=True)
class _Layout:
    """Names of the two files, what the first line of the ratings looks like, and whether both files must be there."""

    ratings: str
    movies: str
    first_line: re.Pattern[bytes]
    has_header: bool = False


_LAYOUTS = (
    _Layout(
        "ratings.csv", "movies.csv", re.compile(rb'"?userId"?,"?movieId"?,"?rating"?,"?timestamp"?'), has_header=True
    ),
    _Layout("ratings.dat", "movies.dat", re.compile(rb"\d+::\d+::[\d.]+::\d+")),
    _Layout("u.data", "u.item", re.compile(rb"\d+\t\d+\t\d+\t\d+")),
)


def find_movielens(places: Sequence[Path]) -> tuple[Path | None, Path | None]:
    """The ratings and the movies among files and in folders; the movies are None where they are not there.

    `ratings.csv` counts with `movies.csv` only: alone it is a table like others.
    """
    there = {path.name: path for place in places for path in (place.iterdir() if place.is_dir() else (place,))}
    for layout in _LAYOUTS:
        ratings, movies = there.get(layout.ratings), there.get(layout.movies)
        if ratings is None or not ratings.is_file() or (layout.has_header and movies is None):
            continue
        start = first_lines(ratings)
        if start and layout.first_line.fullmatch(start[0].strip()):
            return ratings, movies
    return None, None


def read_movielens(ratings: Path, movies: Path | None, options: PrepareOptions, reading: Reading) -> Records:
    """Read ratings as interactions, and the titles and genres of the movies. Every rating counts, whatever its value.

    Args:
        ratings, movies: See `find_movielens`.
        options: `max_missing_ids`; columns and the time unit are known.
        reading: Gets progress, counts and dropped rows.
    Returns:
        The records; the item table has `title` and `categories`.
    Raises:
        DataError: A file is damaged, or has too many lines that cannot be read.
    """
    layout = next(layout for layout in _LAYOUTS if layout.ratings == ratings.name)
    known = replace(options, time_unit="s", columns=None if layout.has_header else COLUMNS)
    records = read_tables(TableFiles((ratings,)), known, reading)
    if movies is None:
        return records
    before = len(reading.notes)
    items = _read_movies(movies, reading)
    return replace(records, items=items, notes=(*records.notes, *reading.notes[before:]))


def _read_movies(path: Path, reading: Reading) -> ItemTable:
    found: dict[str, tuple[str, str]] = {}
    for number, cells in _rows(path, reading):
        movie = cells[0].strip() if cells else ""
        if len(cells) < 3 or not movie.isdecimal():
            reading.bad_line(path, number, "must have a number, a title and genres", "|".join(cells)[:60])
            continue
        genres = _genres(path, cells)
        found.setdefault(str(int(movie)), (clean_text(cells[1]), join_names(genres)))
    reading.finish(path, are_rows_counted=False)
    if not found:
        raise DataError(str(path), "has no movies", remedy="Is the file complete?")
    rows = [(movie, *texts) for movie, texts in found.items()]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(("item_id", "title", "categories"), pl.String), orient="row")
    return ItemTable(frame, {"item_id": "token", "title": "token", "categories": "name_seq"}, path.name)


def _genres(path: Path, cells: list[str]) -> list[str]:
    if path.name == "u.item":
        return [genre for genre, flag in zip(GENRES, cells[-len(GENRES) :], strict=False) if flag.strip() == "1"]
    return [genre for genre in cells[2].split("|") if genre.strip() != NO_GENRES]


def _rows(path: Path, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line. The older files are Latin-1, the newer ones UTF-8."""
    lines = ((number, line) for block in blocks(path, reading) for number, line in block.lines())
    for number, line in lines:
        text = _decoded(line)
        if path.suffix == ".csv":
            cells = next(csv.reader([text]), [])
            if number == 1 and cells[:1] == ["movieId"]:
                continue
        else:
            cells = text.split("|" if path.name == "u.item" else "::")
        if text.strip():
            yield number, cells


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")
