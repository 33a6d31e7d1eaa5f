"""Features that are made, not given: which models and pictures they take, and the making."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from athwe_core.data.features.categories import column_missing
from athwe_core.data.features.clusters import cluster_labels
from athwe_core.data.features.download import Limits
from athwe_core.data.features.encode_images import encode_images, load_image_encoder
from athwe_core.data.features.encode_text import encode_texts, load_text_encoder
from athwe_core.data.features.encoders import ModelFiles, find_model
from athwe_core.data.features.from_files import ItemVectors
from athwe_core.data.features.image_download import FAILURES, download_images
from athwe_core.data.features.image_files import ImageSource, find_images
from athwe_core.data.features.resumable import Shards, WorkProgress, say_nothing
from athwe_core.data.options import BUILTIN, PrepareOptions
from athwe_core.data.readers.records import ItemTable
from athwe_core.errors import ConfigError, DataError

URL_COLUMN = "image_url"
TEXT_FORMAT = 2
"""Raise when the built-in features of the same texts change. 1: version 0.1.0; 2: scikit-learn."""
_SHOWN = 5


@dataclass(frozen=True)
class EncodingSettings:
    """Where and how features are made. No part of a version but for what the pictures are.

    Attributes:
        images: Folder or archive of pictures named by item id; None takes `images/` or `images*.zip` beside the
            interactions.
        download_to: Folder to fetch the pictures of the item table's URLs to.
        allow_private_hosts: Also from this machine and private networks.
        device: auto, cpu, cuda, cuda:N or mps, for encoders.
        progress: Told how far encoding, downloading and clustering are.
    """

    images: Path | None = None
    download_to: Path | None = None
    allow_private_hosts: bool = False
    device: str = "auto"
    progress: WorkProgress = say_nothing


@dataclass
class FeatureWork:
    """What it takes to make the features of one version.

    Attributes:
        options, encoding: As given.
        place: Folder of the data set's prepared versions; unfinished work is kept there.
        text_model, image_model: Encoders in use; None = built-in text features, no image features.
        pictures: Pictures in use; None = none, or not looked for yet.
        notes: What the user should know about how they were found.
    """

    options: PrepareOptions
    encoding: EncodingSettings
    place: Path
    text_model: ModelFiles | None = None
    image_model: ModelFiles | None = None
    pictures: ImageSource | None = None
    notes: list[str] = field(default_factory=list)
    _shards: list[Shards] = field(default_factory=list)

    @property
    def needs_item_table(self) -> bool:
        """Whether the item table says where the pictures are, so that it must be read before the version has a name."""
        return self.encoding.download_to is not None or (
            self.image_model is not None and bool(self.options.image_column)
        )

    def identity(self) -> dict[str, Any]:
        """What the version's name takes in beside the options; empty without encoders."""
        models = {"text_model": self.text_model, "image_model": self.image_model}
        found: dict[str, Any] = {kind: model.identity() for kind, model in models.items() if model is not None}
        if self.image_model is not None and self.pictures is not None:
            found["pictures"] = self.pictures.fingerprint()
        return found

    def find_pictures(self, folder: Path, items: ItemTable | None, item_tokens: list[str]) -> None:
        """Find the pictures by the item table, and fetch them where `download_to` says so.

        Args:
            folder: Of the data set's files; relative paths of the item table start there.
            items: The item table.
            item_tokens: (V,) raw ids by internal id; pictures of other items are left alone.
        Raises:
            DataError: There is no such column, or it holds no path or URL.
            ConfigError: URLs without `download_to`, or httpx is not installed.
        """
        if self.encoding.images is not None:
            ImageSource.open(self.encoding.images)  # says what is wrong with it
        column = self.options.image_column or URL_COLUMN
        if items is None or column not in items.types:
            raise column_missing(items, column)
        cells = dict(zip(items.frame["item_id"].to_list(), items.frame[column].to_list(), strict=True))
        places = {token: cell for token in item_tokens[1:] if (cell := cells.get(token, "").strip())}
        if not places:
            rule = "must hold paths or URLs of pictures, and is empty"
            raise DataError(f"column {column} of {items.source}", rule, remedy="Name another with --image-column")
        urls = {token: cell for token, cell in places.items() if cell.lower().startswith(("http://", "https://"))}
        if self.encoding.download_to is not None:
            self._download(urls, len(places) - len(urls))
        elif urls:
            rule = f"holds {len(urls)} URLs; fetching them is asked for by --download-images FOLDER"
            raise ConfigError(f"column {column} of {items.source}", rule)
        else:
            self.pictures = ImageSource(self.encoding.images or folder, places)

    def _download(self, urls: dict[str, str], num_others: int) -> None:
        to = self.encoding.download_to
        assert to is not None
        limits = Limits(allow_private_hosts=self.encoding.allow_private_hosts)
        found = download_images(urls, to, limits=limits, progress=self.encoding.progress)
        self.pictures = found.source
        self.notes.append(f"pictures in {to}: {found.kept} were there, {found.fetched} fetched")
        if found.failures:
            self.notes.append(f"{len(found.failures)} pictures could not be fetched: see {to / FAILURES}")
        if num_others:
            self.notes.append(f"{num_others} items have something else than a URL, which was not fetched")

    def text(self, items: ItemTable | None, item_tokens: list[str]) -> ItemVectors | None:
        """Vectors of the item texts by the encoder or, without one, built-in; None when there is no text."""
        from athwe_core.data.features.text import item_texts, text_features  # noqa: PLC0415 - scikit-learn takes a second

        columns = self.options.text_columns
        if self.text_model is None:
            return text_features(
                items, item_tokens, columns=columns, width=self.options.text_width, seed=self.options.seed
            )
        found = item_texts(items, item_tokens, columns=columns, between_names=", ")
        if found is None:
            return None
        encoder = load_text_encoder(
            self.text_model,
            pooling=self.options.text_pooling,
            max_tokens=self.options.text_max_tokens,
            layers=self.options.text_layers or (),
            device=self.encoding.device,
        )
        encoded = encode_texts(found.texts, encoder, place=self.place, progress=self.encoding.progress)
        self._shards.append(encoded.shards)
        notes: tuple[str, ...] = ()
        if encoded.num_full:
            notes = (f"{encoded.num_full} item texts reach {encoder.max_tokens} tokens; what is longer was cut there",)
        source = f"{self.text_model.name} ({encoder.pooling}) from {found.source}"
        vectors = ItemVectors(encoded.vectors, source, notes=notes, encoder=encoded.facts, layers=encoded.layers)
        return vectors.scaled("text", keep=self.options.keep_feature_scale)

    def image(self, item_tokens: list[str]) -> ItemVectors | None:
        """Vectors of the pictures by the encoder; None without one."""
        if self.image_model is None or self.pictures is None:
            return None
        layers = self.options.image_layers or ()
        encoder = load_image_encoder(self.image_model, layers=layers, device=self.encoding.device)
        encoded = encode_images(
            item_tokens[1:], self.pictures, encoder, place=self.place, progress=self.encoding.progress
        )
        self._shards.append(encoded.shards)
        vectors = _with_padding(encoded.vectors)
        states = None if encoded.layers is None else _with_padding(encoded.layers)
        notes = []
        for what, listed in (("no picture", encoded.missing), ("a broken picture", encoded.broken)):
            if listed:
                more = ", ..." if len(listed) > _SHOWN else ""
                notes.append(f"{len(listed)} items have {what}: {', '.join(listed[:_SHOWN])}{more}")
        problems = [(token, "missing") for token in encoded.missing] + [(token, "broken") for token in encoded.broken]
        source = f"{self.image_model.name} ({encoder.pooling}) from {self.pictures.path.name}"
        made = ItemVectors(
            vectors,
            source,
            notes=tuple(notes),
            encoder=encoded.facts,
            problems=tuple(sorted(problems)),
            layers=states,
        )
        return made.scaled("image", keep=self.options.keep_feature_scale)

    def clusters(self, vectors: Float32[np.ndarray, "V F"], *, what: str) -> Int32[np.ndarray, "V"]:
        """Labels of the vectors by k-medoids."""
        begun = f"clustering {what} vectors"
        self.encoding.progress(begun, 0, 0, 0.0)
        return cluster_labels(
            vectors,
            k=self.options.clusters,
            seed=self.options.seed,
            progress=lambda moves, _objective: self.encoding.progress(begun, moves, 0, 0.0),
        )

    def finish(self) -> None:
        """Remove unfinished work: the version is written."""
        for shards in self._shards:
            shards.remove()


def _with_padding(rows: Any) -> Any:
    """The rows behind a zero one."""
    return np.concatenate([np.zeros_like(rows[:1]), rows])


def plan_work(
    options: PrepareOptions,
    encoding: EncodingSettings,
    *,
    place: Path,
    folder: Path,
    has_text: bool,
    has_image: bool,
    notify: Callable[[str], None],
) -> FeatureWork:
    """Find models and pictures, without loading any.

    Args:
        options, encoding: As given to `prepare`.
        place: Folder of the data set's prepared versions.
        folder: Of the data set's files, where pictures may lie.
        has_text, has_image: Whether vectors are given, which then win.
        notify: Told where an encoder is not used.
    Raises:
        ConfigError: A library is missing, or there are no pictures to encode.
        DataError: A model or the pictures cannot be found or read.
    """
    if options.image_encoder is None and (encoding.images or (options.image_column and not encoding.download_to)):
        what = "images" if encoding.images else "image_column"
        raise ConfigError(what, "is for an image encoder", remedy="Name one with --image-encoder")
    work = FeatureWork(options, encoding, place)
    if options.text_encoder != BUILTIN:
        if has_text:
            notify(
                "text vectors are given and win over text_encoder; --text-columns or --refresh text encodes the texts"
            )
        else:
            work.text_model = find_model(options.text_encoder, option="text_encoder")
    if options.image_encoder is not None:
        if has_image:
            notify("image vectors are given and win over image_encoder; --refresh image encodes the pictures")
        else:
            work.image_model = find_model(options.image_encoder, option="image_encoder")
    elif not has_image and (beside := _beside(folder)) is not None:
        notify(f"{len(beside)} pictures are in {beside.path.name}: --image-encoder MODEL makes vectors of them")
    if work.image_model is not None and not work.needs_item_table:
        work.pictures = ImageSource.open(encoding.images) if encoding.images else _beside(folder)
        if work.pictures is None:
            remedy = "Name a folder or archive with --images, or a column with --image-column"
            raise ConfigError(
                "image_encoder", f"needs pictures: no images/ and no images*.zip in {folder}", remedy=remedy
            )
    return work


def _beside(folder: Path) -> ImageSource | None:
    return find_images(folder.parent, folder.name) if folder.is_dir() else None
