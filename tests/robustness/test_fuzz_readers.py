"""Whatever lies in a data set's folder: it is read, or one error says where and how to mend it. Nothing else comes out."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fuzz_cases import few_and_many, fuzz, mutated
from fuzz_inputs import (
    GOOD_CSV,
    GOOD_INTER,
    GOOD_ITEM,
    GOOD_ITEM_CSV,
    GOOD_ITEM_JSONL,
    GOOD_JSONL,
    GOOD_META,
    GOOD_RATINGS,
    GOOD_REVIEWS,
    GOOD_REVIEWS_2023,
    ROWS,
    TITLES,
    assert_both,
    objects,
    outcome,
    packed,
    tables,
)
from hypothesis import strategies as st

from athwe_core.data.features.categories import category_table
from athwe_core.data.features.text import text_features
from athwe_core.data.interactions import filter_records, number_and_order
from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers import amazon_metadata
from athwe_core.data.readers.detect import find_source, read_source
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import Records

SHARES = st.sampled_from([0.0, 0.5, 1.0])


class Inline:
    """Stands for the worker processes of Python literals: the same function, called at once."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, task: Callable[[Any], Any], lines: list[Any]) -> Any:
        found = task(lines)
        return type("Done", (), {"result": lambda _: found})()

    def shutdown(self, **_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _inline_literals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amazon_metadata, "ProcessPoolExecutor", Inline)


def read_all(folder: Path, files: dict[str, bytes], **options: Any) -> str:
    """Read files as the data set `toy` up to its features; say how far that came."""
    shutil.rmtree(folder / "toy", ignore_errors=True)
    (folder / "toy").mkdir()
    for name, content in files.items():
        (folder / "toy" / name).write_bytes(content)

    def read() -> str:
        chosen = PrepareOptions(min_interactions=3, **options)
        source = find_source("toy", data_dir=folder, options=chosen)
        records = read_source(source, chosen, Reading(source.paths, chosen.max_bad_lines))
        check(records)
        interactions = number_and_order(filter_records(records, "toy", chosen), chosen)
        assert len(interactions.item_ids) == interactions.offsets[-1]
        tokens = interactions.item_tokens
        category_table(records.items, tokens, column=None, max_categories=9)
        vectors = text_features(records.items, tokens, columns=None, width=2)
        assert vectors is None or np.isfinite(vectors.vectors).all()
        return "accepted"

    return outcome(read, place="toy")


def check(records: Records) -> None:
    """What every reader promises."""
    users, items = records.user_tokens.to_list(), records.item_tokens.to_list()
    assert len(users) == len(items) == len(records) > 0
    assert all(token and "\0" not in token for token in (*users, *items))
    assert records.timestamps.min() >= 0
    if records.items is not None:
        frame = records.items.frame
        assert frame.columns[0] == "item_id"
        assert set(frame.columns) == set(records.items.types)
        assert frame["item_id"].is_unique().all()
        assert not any(frame[name].has_nulls() for name in frame.columns)
    assert all("\n" not in note and len(note) < 2000 for note in records.notes)


@few_and_many
def test_atomic_files(tmp_path: Path, cases: int) -> None:
    inter = tables(["user_id:token", "item_id:token", "timestamp:float"], "\t")
    item = tables(["item_id:token", "title:token_seq", "categories:token_seq", "brand:token"], "\t")
    case = st.fixed_dictionaries(
        {"toy.inter": st.just(GOOD_INTER) | mutated(GOOD_INTER) | inter},
        optional={"toy.item": st.just(GOOD_ITEM) | mutated(GOOD_ITEM) | item},
    )
    assert_both(fuzz(lambda files: read_all(tmp_path, files), case, cases=cases))


@few_and_many
def test_delimited_tables(tmp_path: Path, cases: int) -> None:
    found = tables(["user", "item", "time", "title"], ",\t;|")
    items = tables(["item", "title", "tags", "image_url"], ",\t;|")
    case = st.tuples(
        st.fixed_dictionaries(
            {"toy.csv": st.just(GOOD_CSV) | mutated(GOOD_CSV) | found},
            optional={"items.csv": st.just(GOOD_ITEM_CSV) | mutated(GOOD_ITEM_CSV) | items},
        ),
        SHARES,
        st.sampled_from(["auto", "s", "iso"]),
    )

    def run(drawn: Any) -> str:
        return read_all(tmp_path, drawn[0], max_bad_lines=drawn[1], time_unit=drawn[2])

    assert_both(fuzz(run, case, cases=cases))


@few_and_many
def test_json_lines(tmp_path: Path, cases: int) -> None:
    found = objects(["user", "item", "time", "x"])
    items = objects(["item", "title", "tags", "image_url"])
    case = st.tuples(
        st.fixed_dictionaries(
            {"toy.jsonl": st.just(GOOD_JSONL) | mutated(GOOD_JSONL) | found},
            optional={"items.jsonl": st.just(GOOD_ITEM_JSONL) | mutated(GOOD_ITEM_JSONL) | items},
        ),
        SHARES,
    )
    run = lambda drawn: read_all(tmp_path, drawn[0], max_bad_lines=drawn[1])  # noqa: E731
    assert_both(fuzz(run, case, cases=cases))


@few_and_many
def test_amazon_reviews(tmp_path: Path, cases: int) -> None:
    old = objects(["reviewerID", "asin", "unixReviewTime", "overall"])
    new = objects(["user_id", "parent_asin", "timestamp", "rating"])
    ratings = tables(["u", "i", "5.0", "1400000001"], ",")
    case = st.tuples(
        st.sampled_from(["amazon-2014", "amazon-2018"]).flatmap(
            lambda source: st.tuples(
                st.just(source), st.just(GOOD_REVIEWS) | mutated(GOOD_REVIEWS) | old | mutated(GOOD_RATINGS) | ratings
            )
        )
        | st.tuples(st.just("amazon-2023"), st.just(GOOD_REVIEWS_2023) | mutated(GOOD_REVIEWS_2023) | new),
        SHARES,
    )

    def run(drawn: Any) -> str:
        (source, content), share = drawn
        return read_all(tmp_path, {"reviews_toy.json": content}, source=source, max_bad_lines=share)

    assert_both(fuzz(run, case, cases=cases))


@few_and_many
def test_amazon_metadata(tmp_path: Path, cases: int) -> None:
    keys = [
        "asin",
        "parent_asin",
        "title",
        "categories",
        "category",
        "description",
        "imUrl",
        "images",
        "brand",
        "details",
    ]
    case = st.tuples(mutated(GOOD_META, most=8) | objects(keys), SHARES)

    def run(drawn: Any) -> str:
        files = {"reviews_toy.json": GOOD_REVIEWS, "meta_toy.json": drawn[0]}
        return read_all(tmp_path, files, source="amazon-2014", max_bad_lines=drawn[1])

    assert_both(fuzz(run, case, cases=cases))


@few_and_many
def test_archives(tmp_path: Path, cases: int) -> None:
    case = packed(GOOD_INTER)
    assert_both(fuzz(lambda content: read_all(tmp_path, {"toy.inter": content}), case, cases=cases))


def parquet(frame: pl.DataFrame, **options: Any) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file, **options)
    return file.getvalue()


FRAME = pl.DataFrame(ROWS, schema=["user", "item", "time"], orient="row")
KINDS: list[Any] = [
    *(
        pl.Int8,
        pl.Int64,
        pl.UInt64,
        pl.Float32,
        pl.Float64,
        pl.String,
        pl.Boolean,
        pl.Date,
        pl.Time,
        pl.Binary,
        pl.Null,
    ),
    *(pl.Datetime("ms"), pl.Datetime("us", "UTC"), pl.Datetime("ns"), pl.Duration("us"), pl.Decimal(20, 3)),
    *(pl.Categorical, pl.List(pl.String), pl.List(pl.Int64), pl.Array(pl.Int64, 2), pl.Struct({"a": pl.Int64})),
]
ODD = [None, 0, 1, -1, 2**31 - 1, 1_400_000_001, 2**62, -(2**63), 2**63 - 1]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Parquet of columns of any type."""
    columns = {}
    num_rows = draw(st.integers(0, 9))
    for name in ("user", "item", "time"):
        values = pl.Series(draw(st.lists(st.sampled_from(ODD), min_size=num_rows, max_size=num_rows)), dtype=pl.Int64)
        kind = draw(st.sampled_from(KINDS))
        try:
            columns[name] = values.cast(kind, strict=False)
        except pl.exceptions.PolarsError:
            columns[name] = values
    return parquet(pl.DataFrame(columns))


@few_and_many
def test_parquet(tmp_path: Path, cases: int) -> None:
    listed = FRAME.with_columns(pl.lit(["a", "b"]).alias("tags"), pl.lit(None).alias("nothing"))
    good = [
        parquet(FRAME, compression="uncompressed"),
        parquet(FRAME, compression="zstd"),
        parquet(FRAME, compression="snappy", statistics=False, row_group_size=7),
        parquet(listed, compression="gzip"),
        parquet(FRAME.with_columns(pl.from_epoch("time").alias("time")), compression="lz4"),
    ]
    item = parquet(pl.DataFrame({"item": [f"i{k}" for k in range(6)], "title": TITLES, "tags": [["a", None]] * 6}))
    case = st.tuples(
        st.fixed_dictionaries(
            {"toy.parquet": st.sampled_from(good) | st.sampled_from(good).flatmap(mutated) | frames()},
            optional={"items.parquet": st.just(item) | mutated(item)},
        ),
        SHARES,
    )
    run = lambda drawn: read_all(tmp_path, drawn[0], max_bad_lines=drawn[1])  # noqa: E731
    assert_both(fuzz(run, case, cases=cases))
