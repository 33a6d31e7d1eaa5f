"""Source files to a prepared data set on disk: read, filter, number, order, split, add features, write one version."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from athwe_core.data.demo import generate as generate_module
from athwe_core.data.features import scale
from athwe_core.data.features.build import TEXT_FORMAT, EncodingSettings, FeatureWork, plan_work
from athwe_core.data.features.collect import ItemFeatures, collect_features
from athwe_core.data.features.from_files import VECTOR_STEMS, find_feature_files, has_given
from athwe_core.data.interactions import Interactions, filter_records, number_and_order
from athwe_core.data.options import DEMO, PrepareOptions, SplitRule
from athwe_core.data.readers.detect import Source, available_datasets, find_source, read_source
from athwe_core.data.readers.movielens import MOVIELENS
from athwe_core.data.readers.reading import ByteProgress, Reading, ignore
from athwe_core.data.readers.records import ItemTable
from athwe_core.data.readers.sniff import ATOMIC, INTERACTIONS, ITEMS
from athwe_core.data.spark.session import require_spark
from athwe_core.data.split import tied_test_share
from athwe_core.data.store.dataset import (
    PreparedDataset,
    current_version,
    list_versions,
    mark_current,
    new_version,
    open_prepared,
    prepared_folder,
)
from athwe_core.data.store.schema import FORMAT, save_arrays, write_manifest
from athwe_core.errors import ConfigError, DataError, require
from athwe_core.host_process import require_polars
from athwe_core.messages import brief, clipped
from athwe_core.safe_write import file_hash, reason

__all__ = ["PrepareOptions", "PreparedDataset", "available_datasets", "list_versions", "open_prepared", "prepare"]


Engine = Literal["local", "spark"]
READER = 2
"""Generation of the readers: raise when the same files would be read in another way."""
_LARGE = 10**9  # bytes that take seconds to hash


def prepare(
    name: str,
    *,
    data_dir: Path,
    prepared_dir: Path,
    options: PrepareOptions | None = None,
    raw: Sequence[Path] = (),
    item_file: Path | None = None,
    encoding: EncodingSettings | None = None,
    engine: Engine = "local",
    spark_master: str | None = None,
    notify: Callable[[str], None] = ignore,
    progress: ByteProgress = ignore,
) -> PreparedDataset:
    """Turn the source of `name` into a prepared version, mark it current and open it.

    Args:
        name: Folder `data_dir/NAME` with files of any source, or `demo`, which is generated, or a name for the files in
            `raw`.
        data_dir: Folder of data sets; only read.
        prepared_dir: The version goes to `prepared_dir/NAME/<version>/`. The same input with the same options is the
            same version, which is then left as it is.
        options: Defaults where None.
        raw: Files, folders and patterns to read in place of `data_dir/NAME`, see `find_source`; only read.
        item_file: Item table of a `table`.
        encoding: Where the pictures are and how encoders work; the defaults where None.
        engine: What reads, filters and orders: this process (`local`), or `spark`, which needs the extra `spark` and Java 17
            and reads tables and Amazon reviews. The version and its content are the same.
        spark_master: Of spark: URL of the master, see `spark.session.spark_session`.
        notify: Called with one sentence for each thing the user should know.
        progress: Called with the bytes read so far and in all.
    Returns:
        The version, opened.
    Raises:
        ConfigError: NAME is no plain folder name, options do not fit together, or a library of an encoder is missing.
        DataError: The data set is unknown, malformed, too small after filtering, or its features do not fit.
    """
    require_polars()
    options = options or PrepareOptions()
    folder = prepared_folder(prepared_dir, name)
    source = find_source(name, data_dir=Path(data_dir), raw=raw, item_file=item_file, options=options)
    _check_engine(engine, spark_master, source)
    options = replace(options, split=_split_rule(source, options))
    if source.why:
        notify(source.why)
    feature_files = [] if source.kind == DEMO else find_feature_files(source.folder)
    num_bytes = sum(path.stat().st_size for path in (*source.paths, *feature_files))
    if num_bytes > _LARGE:
        notify(f"hashing {num_bytes / 1e9:.1f} GB of source files, to know whether they are prepared already")
    hashes = {path: file_hash(path) for path in (*source.paths, *feature_files)}
    reading = Reading(source.paths, options.max_bad_lines, progress)
    load = partial(_load, source, options, reading)
    if engine == "spark":
        load = partial(_load_with_spark, source, options, progress, master=spark_master, folder=folder)
    work = _plan_work(source, options, encoding or EncodingSettings(), folder, notify)
    loaded = None
    if work.needs_item_table:
        loaded = load()
        work.find_pictures(source.folder, loaded.items, loaded.interactions.item_tokens)
        for note in work.notes:
            notify(note)
    version = _version(source, hashes, options, work)
    versions = list_versions(name, prepared_dir=prepared_dir)
    if source.kind == ATOMIC and not (version in versions and _counts_rows(name, prepared_dir, version)):
        loaded = loaded or load()
        if loaded.is_rewritten:
            version = _version(source, hashes, options, work, reader=READER)
    if version in versions:
        notify(f"{name} is already prepared with these files and options: version {version}")
    else:
        with new_version(folder, version) as temporary:
            manifest = _write(temporary, source, hashes, work, loaded or load())
            statistics = {**manifest["statistics"], "version": version, "notes": manifest["notes"]}
            write_manifest(temporary, {"name": name, "version": version, **manifest, "statistics": statistics})
        work.finish()
    prepared = open_prepared(name, prepared_dir=prepared_dir, version=version)
    if current_version(name, prepared_dir=prepared_dir) != version:
        mark_current(folder, version)
    for note in prepared.manifest["notes"]:
        notify(note)
    return prepared


@dataclass(frozen=True)
class _Loaded:
    """Item table and ordered interactions of a source, and what gives the features of numbered items.

    `is_rewritten`: version 0.1.0 read some cell of the files in another way.
    """

    items: ItemTable | None
    interactions: Interactions
    features_of: Callable[[list[str], FeatureWork], ItemFeatures]
    is_rewritten: bool = False


def _split_rule(source: Source, options: PrepareOptions) -> SplitRule:
    if options.split != "auto":
        return options.split
    return "given" if source.has_parts else "leave-one-out"


def _counts_rows(name: str, prepared_dir: Path, version: str) -> bool:
    """Whether a version was read by this generation of readers, which count rows."""
    return "rows" in open_prepared(name, prepared_dir=prepared_dir, version=version).statistics


def _plan_work(
    source: Source, options: PrepareOptions, encoding: EncodingSettings, place: Path, notify: Callable[[str], None]
) -> FeatureWork:
    is_demo = source.kind == DEMO
    return plan_work(
        options,
        encoding,
        place=place,
        folder=source.folder,
        has_text=options.text_columns is None and (is_demo or has_given(source.folder, "txt_emb")),
        has_image=is_demo or has_given(source.folder, "img_emb"),
        notify=notify,
    )


def _version(
    source: Source, hashes: dict[Path, str], options: PrepareOptions, work: FeatureWork, *, reader: int = 0
) -> str:
    """First 12 hex digits of a hash of format, name, every option and every source file's content.

    Later kinds of source add their kind, the generation of their reader and the role of each file, and encoders where there
    are any: versions that were prepared before keep their names.
    """
    generator = generate_module.FORMAT if source.kind == DEMO else 0
    inputs: Any = {path.name: digest for path, digest in hashes.items()}
    if source.kind not in (ATOMIC, DEMO):
        files = [[role, path.name, hashes[path]] for role in (INTERACTIONS, ITEMS) for path in getattr(source, role)]
        inputs = [source.kind, READER, files, inputs]
        inputs += [[source.constants.get(path, {}) for path in source.interactions]] if source.constants else []
    elif len(source.interactions) > 1:
        inputs = [[path.name, hashes[path]] for path in source.interactions] + [inputs]
    identity = [FORMAT, generator, source.name, options.identity(is_demo=source.kind == DEMO), inputs]
    identity += [made] if (made := work.identity()) else []
    identity += [{"reader": reader}] if reader else []
    has_vectors = any(path.stem in VECTOR_STEMS for path in hashes) or work.text_model or work.image_model
    if has_vectors and not options.keep_feature_scale:  # as it was before there was a choice
        identity.append(["scale", scale.FORMAT])
    if work.text_model is None and _has_texts(source, options):
        identity.append(["text", TEXT_FORMAT])
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _has_texts(source: Source, options: PrepareOptions) -> bool:
    """Whether built-in features may be made from item texts."""
    if options.text_columns is not None:
        return True
    return source.kind != DEMO and bool(source.items) and not has_given(source.folder, "txt_emb")


def _write(path: Path, source: Source, hashes: dict[Path, str], work: FeatureWork, loaded: _Loaded) -> dict[str, Any]:
    """Write arrays and tables to `path` and return the manifest's facts about them."""
    items, interactions, options = loaded.items, loaded.interactions, work.options
    features = loaded.features_of(interactions.item_tokens, work)
    arrays = {**interactions.arrays(), **features.arrays()}
    save_arrays(path, arrays, half_features=options.half_features)
    _write_table(interactions.user_tokens.to_frame("user_id"), path / "users.parquet")
    _write_table(_item_frame(items, interactions.item_tokens), path / "items.parquet")
    features.write_problems(path)
    return {
        "options": asdict(options),
        "source": source.kind,
        "sources": [{"file": file.name, "bytes": file.stat().st_size, "sha256": hashes[file]} for file in hashes],
        "arrays": {stem: list(array.shape) for stem, array in arrays.items()},
        "item_columns": items.types if items else {},
        "statistics": {**_statistics(interactions, features), "tie_order": options.tie_order},
        "category_names": features.categories.names if features.categories else [],
        **features.origins(),
        "item_rows": _three_pairs(interactions.item_tokens, features),
        "notes": [*interactions.notes, *features.notes()],
    }


def _write_table(frame: pl.DataFrame, path: Path) -> None:
    try:
        frame.write_parquet(path)
    except pl.exceptions.PolarsError as error:  # so it calls a full disk
        raise OSError(errno.EIO, reason(error), str(path)) from None


def _load(source: Source, options: PrepareOptions, reading: Reading) -> _Loaded:
    if source.kind == DEMO:
        generated = generate_module.generate(options.demo_users, options.demo_items, seed=options.seed)
        interactions = number_and_order(filter_records(generated.records, source.name, options), options)
        return _Loaded(generated.records.items, interactions, generated.features)
    records = read_source(source, options, reading)
    records = filter_records(records, source.name, options)  # in the place of what was read, which is freed
    interactions = number_and_order(records, options)
    return _with_features(source, records.items, interactions, is_rewritten=records.is_rewritten)


def _load_with_spark(
    source: Source, options: PrepareOptions, progress: ByteProgress, *, master: str | None, folder: Path
) -> _Loaded:
    from athwe_core.data.spark.engine import SparkEngine  # noqa: PLC0415 - pyspark is an extra

    items, interactions = SparkEngine(master, folder, progress).load(source, options)
    return _with_features(source, items, interactions)


def _with_features(
    source: Source, items: ItemTable | None, interactions: Interactions, *, is_rewritten: bool = False
) -> _Loaded:
    if items is not None:
        _refuse_other_items(items, interactions.item_tokens)
    return _Loaded(items, interactions, partial(collect_features, source.folder, items), is_rewritten)


def _check_engine(engine: Engine, master: str | None, source: Source) -> None:
    """Raise ConfigError where the engine is unknown, cannot read the source, or is not installed."""
    require(engine in get_args(Engine), "--engine", f"must be one of {', '.join(get_args(Engine))}", engine)
    if engine == "local":
        require(master is None, "--spark-master", "needs --engine spark", master)
        return
    if source.kind in (ATOMIC, MOVIELENS, DEMO):
        rule = f"reads tables and Amazon reviews, and this is {source.kind}"
        raise ConfigError("--engine spark", rule, remedy="Use --engine local")
    require_spark()


def _refuse_other_items(items: ItemTable, item_tokens: list[str]) -> None:
    there = items.frame["item_id"]
    wanted = pl.DataFrame({"item_id": item_tokens[1:]}, schema={"item_id": pl.String})
    if not wanted.join(there.to_frame(), on="item_id", how="semi").height:
        rule = f"must describe items of the interactions, e.g. {brief(item_tokens[1])}, and describes none of them"
        first = clipped(there[0]) if len(there) else "no item that is known"
        raise DataError(items.source, rule, first, "Is it of another data set? Leave it out or repair its ids")


def _item_frame(items: ItemTable | None, item_tokens: list[str]) -> pl.DataFrame:
    """The item table by internal id; empty strings for the padding and for items that it lacks."""
    by_id = pl.DataFrame({"item_id": item_tokens})
    if items is None:
        return by_id
    return by_id.join(items.frame, on="item_id", how="left", maintain_order="left").fill_null("")


def _statistics(interactions: Interactions, features: ItemFeatures) -> dict[str, Any]:
    num_users, num_items = len(interactions.user_tokens), len(interactions.item_tokens) - 1
    count = len(interactions.item_ids)
    return {
        "users": num_users,
        "items": num_items,
        "interactions": count,
        "split": interactions.split_rule,
        "asked": {name: len(interactions.split.users(name)) for name in ("validation", "test")},
        "sparsity": 1 - count / (num_users * num_items),
        "actions_per_user": count / num_users,
        "actions_per_item": count / num_items,
        "rows": _rows(interactions),
        "tied_test_share": tied_test_share(interactions.split, interactions.timestamps),
        **features.statistics(),
    }


def _rows(interactions: Interactions) -> dict[str, Any] | None:
    """Rows in the files and kept, and how many were dropped for which reason; None where there is no file."""
    counts = interactions.counts
    return None if counts is None else {"in_files": counts.in_files, "kept": counts.read, "dropped": counts.dropped}


def _three_pairs(item_tokens: list[str], features: ItemFeatures) -> list[dict[str, Any]]:
    """First, middle and last item with its row here and in the feature files, so that a mix-up of orders shows."""
    last = len(item_tokens) - 1
    pairs = []
    for row in sorted({1, (1 + last) // 2, last}):
        pair: dict[str, Any] = {"item": item_tokens[row], "row": row}
        for kind, found in (("text_file_row", features.text), ("image_file_row", features.image)):
            if found and found.source_rows is not None:
                pair[kind] = int(found.source_rows[row])
        pairs.append(pair)
    return pairs
