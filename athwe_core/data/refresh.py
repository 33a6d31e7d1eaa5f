"""One kind of features made again for a prepared version: a new version that shares everything else with it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from athwe_core.data.features.build import TEXT_FORMAT, EncodingSettings, FeatureWork, plan_work
from athwe_core.data.features.categories import ItemCategories
from athwe_core.data.features.collect import PROBLEMS, ItemFeatures, with_clusters
from athwe_core.data.features.from_files import ItemVectors
from athwe_core.data.features.scale import VectorScale
from athwe_core.data.options import BUILTIN, PrepareOptions, RefreshKind, typed
from athwe_core.data.readers.records import ItemTable
from athwe_core.data.store.checksums import CHECKED
from athwe_core.data.store.dataset import (
    PreparedDataset,
    list_versions,
    mark_current,
    new_version,
    open_prepared,
    prepared_folder,
)
from athwe_core.data.store.schema import FORMAT, MANIFEST, damaged, save_arrays, write_manifest
from athwe_core.errors import ConfigError, DataError
from athwe_core.host_process import require_polars
from athwe_core.messages import reason

DEFAULT_CLUSTERS = 100
_OPTIONS = {
    "text": (
        "text_encoder",
        "text_pooling",
        "text_max_tokens",
        "text_layers",
        "text_columns",
        "text_width",
        "keep_feature_scale",
        "seed",
    ),
    "image": ("image_encoder", "image_layers", "image_column", "keep_feature_scale"),
    "clusters": ("clusters", "seed"),
}
"""What each kind takes; everything else belongs to the version that is refreshed."""


def refresh(
    name: str,
    kind: RefreshKind,
    *,
    data_dir: Path,
    prepared_dir: Path,
    options: PrepareOptions,
    encoding: EncodingSettings | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> PreparedDataset:
    """Make text vectors, image vectors or cluster labels again, from the current version of `name`, and mark the result.

    Interactions, split and the other features stay as they are, byte for byte (linked, not copied, where the disk can).
    New features take precedence over given ones. Labels that were made follow new vectors.

    Args:
        name: A prepared data set.
        kind: `text` (built-in or `text_encoder`), `image` (`image_encoder`) or `clusters` (k = 100 where not named).
        data_dir: Pictures may lie in `data_dir/NAME`; only read.
        prepared_dir: Where the versions are.
        options: Only those of the kind may differ from their default or from the version's; columns that are not named
            are the version's.
        encoding: See `prepare`.
        notify: Called with one sentence for each thing the user should know.
    Returns:
        The new version, or the current one where it has these features already.
    Raises:
        ConfigError: An option that `kind` does not take, or no encoder for images.
        DataError: `name` is not prepared, or has nothing to make the features from.
    """
    require_polars()
    base = open_prepared(name, prepared_dir=prepared_dir)
    options = _checked(kind, options, base)
    place = prepared_folder(prepared_dir, name)
    old, items, last_step = _whole(base)
    work = plan_work(
        options,
        encoding or EncodingSettings(),
        place=place,
        folder=Path(data_dir) / name,
        has_text=kind != "text",
        has_image=kind != "image",
        notify=notify,
    )
    if work.needs_item_table:
        work.find_pictures(Path(data_dir) / name, items, base.item_tokens)
        for note in work.notes:
            notify(note)
    taken = {option: value for option, value in asdict(options).items() if option in _OPTIONS[kind]}
    made: dict[str, Any] = {"kind": kind, "options": taken, **work.identity()}
    if kind == "text" and work.text_model is None:
        made["text_format"] = TEXT_FORMAT
    step = json.loads(json.dumps(made))  # as the manifest will have it
    if last_step == step:
        notify(f"{name} has these {kind} features already: version {base.version}")
        return base
    identity = json.dumps([FORMAT, "refresh", base.version, step], sort_keys=True)
    version = hashlib.sha256(identity.encode()).hexdigest()[:12]
    if version not in list_versions(name, prepared_dir=prepared_dir):
        new = _refreshed(kind, old, work, items, base.item_tokens)
        with new_version(place, version) as temporary:
            _write(temporary, base, old, new, version=version, kind=kind, step=step)
        work.finish()
    mark_current(place, version)
    found = open_prepared(name, prepared_dir=prepared_dir, version=version)
    notify(f"{kind} features of version {base.version} made again: version {version}")
    for note in found.manifest["notes"]:
        notify(note)
    return found


def _checked(kind: str, options: PrepareOptions, base: PreparedDataset) -> PrepareOptions:
    if kind not in get_args(RefreshKind):
        raise ConfigError("--refresh", f"must be one of {', '.join(get_args(RefreshKind))}", kind)
    before = base.manifest["options"]
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name not in _OPTIONS[kind] and value not in (option.default, before.get(option.name)):
            remedy = f"It stays as in version {base.version}: leave it out, or prepare without --refresh"
            raise ConfigError(
                typed(option.name), f"cannot change when only {kind} features are made again", value, remedy
            )
    if kind == "image" and options.image_encoder is None:
        raise ConfigError("--refresh", "image needs an encoder", remedy="Name one with --image-encoder")
    columns = {name: before.get(name) for name in ("text_columns", "image_column")}
    changes: dict[str, Any] = {name: value for name, value in columns.items() if value and not getattr(options, name)}
    if kind == "clusters" and not options.clusters:
        changes["clusters"] = DEFAULT_CLUSTERS
    if kind != "text":
        changes |= {"text_encoder": BUILTIN, "text_layers": None}
    if kind != "image":
        changes |= {"image_encoder": None, "image_layers": None}
    return replace(options, **changes)


def _whole(base: PreparedDataset) -> tuple[ItemFeatures, ItemTable, Any]:
    """Features, items and the last refresh of a version. Raises DataError where its manifest does not say enough of them."""
    try:
        return _features(base), _items(base), base.manifest.get("refreshed", [{}])[-1].get("step")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise damaged(base.path, base.name, f"{MANIFEST}: {reason(error)}") from None


def _items(base: PreparedDataset) -> ItemTable:
    frame = base.item_table()[1:]
    types = base.manifest.get("item_columns") or dict.fromkeys(frame.columns, "token_seq")
    return ItemTable(frame, types, f"the items of version {base.version}")


def _features(base: PreparedDataset) -> ItemFeatures:
    """The features of a version, with the facts of its manifest."""
    facts, manifest = base.statistics["features"], base.manifest
    vectors = {
        kind: None
        if array is None
        else ItemVectors(
            np.asarray(array),
            facts[kind]["source"],
            notes=tuple(manifest.get("vector_notes", {}).get(kind, ())),
            encoder=facts[kind].get("encoder"),
            scale=VectorScale(**known) if (known := facts[kind].get("scale")) else None,
            layers=None if states is None else np.asarray(states),
        )
        for kind, array, states in (
            ("text", base.text_features, base.text_layers),
            ("image", base.image_features, base.image_layers),
        )
    }
    categories = None
    if base.categories is not None:
        source = facts["categories"]["source"]
        categories = ItemCategories(np.asarray(base.categories), manifest["category_names"], source)
    return ItemFeatures(
        text=vectors["text"],
        image=vectors["image"],
        categories=categories,
        text_clusters=base.text_clusters,
        image_clusters=base.image_clusters,
        clusters_made=manifest.get("clusters_made", {}),
    )


def _refreshed(
    kind: RefreshKind, old: ItemFeatures, work: FeatureWork, items: ItemTable, item_tokens: list[str]
) -> ItemFeatures:
    if kind == "clusters":
        if old.text is None and old.image is None:
            rule, remedy = (
                "found neither text nor image vectors to cluster",
                "Prepare with item texts or pictures first",
            )
            raise DataError("refresh clusters", rule, remedy=remedy)
        return with_clusters(replace(old, text_clusters=None, image_clusters=None, clusters_made={}), work)
    found = work.text(items, item_tokens) if kind == "text" else work.image(item_tokens)
    if found is None:
        rule, remedy = f"found no {kind} of items to make vectors from", "Prepare with a table of items first"
        raise DataError(f"refresh {kind}", rule, remedy=remedy)
    new = replace(old, text=found) if kind == "text" else replace(old, image=found)
    labels = {"text": old.text_clusters, "image": old.image_clusters}[kind]
    made = old.clusters_made.get(kind) or (next(iter(old.clusters_made.values()), None) if labels is None else None)
    if made is None:
        return new
    again = replace(work, options=replace(work.options, clusters=made["k"], seed=made["seed"]))
    without = replace(new, text_clusters=None) if kind == "text" else replace(new, image_clusters=None)
    return with_clusters(without, again)


def _write(
    path: Path,
    base: PreparedDataset,
    old: ItemFeatures,
    new: ItemFeatures,
    *,
    version: str,
    kind: str,
    step: dict[str, Any],
) -> None:
    """Fill a version's folder: new arrays written, the rest linked, the manifest brought up to date."""
    before, after = old.arrays(), new.arrays()
    changed = {stem: array for stem, array in after.items() if array is not before.get(stem)}
    left_out = {MANIFEST, CHECKED, *(f"{stem}.npy" for stem in changed), *({PROBLEMS} if kind == "image" else ())}
    linked = [file for file in base.path.iterdir() if file.name not in left_out and not file.name.startswith(".")]
    for file in linked:
        _link(file, path / file.name)
    save_arrays(path, changed, half_features=base.manifest["options"].get("half_features", False))
    if kind == "image":
        new.write_problems(path)
    manifest = {key: value for key, value in base.manifest.items() if key != "tables"}  # of older versions
    known = manifest.get("files", {})
    notes = [note for note in manifest["notes"] if note not in old.notes()] + new.notes()
    given = [k for k in ("text", "image") if k == kind and f"{k}_clusters" in after and k not in new.clusters_made]
    notes += [f"the {k} clusters were given and stay: they are not of the new vectors" for k in given]
    rows = [{key: value for key, value in pair.items() if key != f"{kind}_file_row"} for pair in manifest["item_rows"]]
    manifest = {
        **manifest,
        **new.origins(),
        "version": version,
        "files": {file.name: known[file.name] for file in linked if file.name in known},
        "options": {**manifest["options"], **step["options"]},
        "arrays": {**manifest["arrays"], **{stem: list(array.shape) for stem, array in changed.items()}},
        "statistics": {**manifest["statistics"], **new.statistics(), "version": version, "notes": notes},
        "item_rows": rows,
        "notes": notes,
        "refreshed": [*manifest.get("refreshed", []), {"from": base.version, "step": step}],
    }
    write_manifest(path, manifest)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the disk knows no links. Versions are never changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
