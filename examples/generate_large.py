"""Generate a data set in the format of Amazon 2023, of any size, to test `athwe prepare` with it.

    python examples/generate_large.py --interactions 10000000 --format parquet --to raw
    athwe prepare --dataset large --raw raw

Writes large.jsonl.gz and meta_large.jsonl.gz, or large.parquet and large.items.parquet. With `--parts 20` interactions are in
large-000.parquet to large-019.parquet: `--raw 'raw/large-*.parquet' --item-file raw/large.items.parquet`. Few users and items
have many interactions, most have few. The JSON lines contain review texts, repeated rows and a few negative times, as real
files do.
"""

import argparse
import gzip
from pathlib import Path
from typing import IO, cast

import numpy as np
import polars as pl

CHUNK = 500_000
FIRST, LAST = 852_076_800_000, 1_694_000_000_000  # ms: 1997-01-01 to 2023-09-06
WORDS = ("soft", "tiny", "wooden", "red", "blue", "magic", "robot", "puzzle", "doll", "train", "kite", "drum")
CATEGORIES = ("Dolls & Accessories", "Puzzles", "Games", "Learning & Education", "Vehicles", "Building Toys")


def reviews(count: int, num_users: int, num_items: int, rng: np.random.Generator) -> pl.DataFrame:
    """Draw `count` interactions in no order: user, item, time in milliseconds, rating."""
    numbers = {
        "user": (num_users * rng.random(count) ** 1.3).astype(np.int64),
        "item": (num_items * rng.random(count) ** 2.5).astype(np.int64),
        "timestamp": rng.integers(FIRST, LAST, count),
    }
    return pl.DataFrame(numbers).select(
        pl.format("AE{}", pl.col("user").cast(pl.String).str.zfill(26)).alias("user_id"),
        item_id(pl.col("item")).alias("parent_asin"),
        pl.col("timestamp"),
        (1.0 + pl.col("item") % 5).alias("rating"),
    )


def item_id(number: pl.Expr) -> pl.Expr:
    """Write item numbers as ids of ten characters, as Amazon's are."""
    return pl.format("B{}", number.cast(pl.String).str.zfill(9))


def catalogue(num_items: int, rng: np.random.Generator) -> pl.DataFrame:
    """Draw the metadata of `num_items` items: id, title, shop and categories."""

    def words() -> pl.Series:
        return pl.Series(WORDS).gather(rng.integers(len(WORDS), size=num_items))

    number = pl.int_range(num_items)
    names = pl.DataFrame({f"word{place}": words() for place in range(4)})
    kinds = pl.Series(CATEGORIES).gather(rng.integers(len(CATEGORIES), size=num_items))
    return names.select(
        item_id(number).alias("parent_asin"),
        pl.concat_str(pl.all(), number.cast(pl.String), separator=" ").alias("title"),
        pl.format("shop {}", number % 997).alias("store"),
        pl.concat_list(pl.lit("Toys & Games"), kinds).alias("categories"),
    )


def write_json_lines(folder: Path, name: str, count: int, num_users: int, num_items: int, seed: int) -> None:
    """Write interactions and item metadata as compressed JSON lines."""
    rng = np.random.default_rng(seed)
    with _compressed(folder / f"{name}.jsonl.gz") as file:
        for begin in range(0, count, CHUNK):
            chunk = reviews(min(CHUNK, count - begin), num_users, num_items, rng)
            is_odd = pl.int_range(pl.len()) % 10_000 == 7
            text = pl.concat_list(pl.lit(" ".join(WORDS)), pl.col("user_id"), pl.lit("a <br /> b & c")).list.join(" ")
            chunk = chunk.with_columns(
                pl.when(is_odd).then(-pl.col("timestamp")).otherwise(pl.col("timestamp")).alias("timestamp"),
                text.alias("text"),
                pl.lit(True).alias("verified_purchase"),
            )
            pl.concat([chunk, chunk.head(len(chunk) // 1000)]).write_ndjson(file)
    with _compressed(folder / f"meta_{name}.jsonl.gz") as file:
        images = pl.format("https://example.org/{}.jpg", pl.col("parent_asin")).alias("large")
        catalogue(num_items, rng).with_columns(pl.concat_list(pl.struct(images)).alias("images")).write_ndjson(file)


def _compressed(path: Path) -> IO[bytes]:
    """A new gzip file, of the type that polars writes to."""
    return cast("IO[bytes]", gzip.open(path, "wb", compresslevel=1))


def write_parquet(
    folder: Path, name: str, count: int, num_users: int, num_items: int, seed: int, *, parts: int = 1
) -> None:
    """Write interactions, in one file or several, and item metadata as parquet files."""
    rng = np.random.default_rng(seed)
    for part in range(parts):
        path = folder / (f"{name}.parquet" if parts == 1 else f"{name}-{part:03}.parquet")
        size = count * (part + 1) // parts - count * part // parts
        reviews(size, num_users, num_items, rng).write_parquet(path, row_group_size=CHUNK)
    catalogue(num_items, rng).write_parquet(folder / f"{name}.items.parquet")


def main() -> None:
    """Parse the arguments, write the files and list them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=20_000)
    parser.add_argument("--users", type=int, help="default: a tenth of --interactions")
    parser.add_argument("--items", type=int, help="default: a fiftieth of --interactions")
    parser.add_argument("--format", choices=("jsonl", "parquet"), default="jsonl")
    parser.add_argument("--parts", type=int, default=1, help="parquet files of interactions")
    parser.add_argument("--name", default="large")
    parser.add_argument("--to", type=Path, default=Path("raw"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    users, items = given.users or max(given.interactions // 10, 10), given.items or max(given.interactions // 50, 10)
    if given.format == "parquet":
        write_parquet(given.to, given.name, given.interactions, users, items, given.seed, parts=given.parts)
    else:
        write_json_lines(given.to, given.name, given.interactions, users, items, given.seed)
    for path in sorted(given.to.glob(f"*{given.name}[.-]*")):
        print(f"{path}  {path.stat().st_size / 1e6:,.1f} MB")


if __name__ == "__main__":
    main()
