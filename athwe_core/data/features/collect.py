"""All item features of a data set by internal id: those given beside the interactions, else made from its text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from athwe_core.data.features.categories import ItemCategories, category_table
from athwe_core.data.features.given import ItemVectors, read_clusters, read_multi_hot, read_vectors
from athwe_core.data.features.text import text_features
from athwe_core.data.options import PrepareOptions
from athwe_core.data.records import ItemTable


@dataclass(frozen=True)
class ItemFeatures:
    """Features by internal id, V rows with the padding; None where a kind is absent.

    Attributes:
        text, image: Vectors.
        categories: Multi-hot categories.
        text_clusters, image_clusters: (V,) int32 labels, -1 = none.
    """

    text: ItemVectors | None = None
    image: ItemVectors | None = None
    categories: ItemCategories | None = None
    text_clusters: Int32[np.ndarray, "V"] | None = None
    image_clusters: Int32[np.ndarray, "V"] | None = None

    def arrays(self) -> dict[str, Any]:
        """The arrays that exist, by their name in a prepared data set."""
        found = {
            "text_features": self.text.vectors if self.text else None,
            "image_features": self.image.vectors if self.image else None,
            "categories": self.categories.table if self.categories else None,
            "text_clusters": self.text_clusters,
            "image_clusters": self.image_clusters,
        }
        return {name: array for name, array in found.items() if array is not None}

    def facts(self) -> dict[str, Any]:
        """Width, missing items and source of each kind, None where absent: `features` of `prepare --json`."""
        vectors = {
            kind: found and {"width": found.vectors.shape[1], "missing": found.missing, "source": found.source}
            for kind, found in (("text", self.text), ("image", self.image))
        }
        count = self.categories and {"count": self.categories.table.shape[1], "source": self.categories.source}
        return {**vectors, "categories": count}

    def notes(self) -> list[str]:
        """What is off, and what the readers met, one sentence each."""
        notes = []
        if self.text is None:
            notes.append("no text found: the text modality is off")
        if self.image is None:
            notes.append("no images found: the image modality is off")
        if self.categories is None:
            notes.append("no categories found: the category loss (cp) is off")
        if self.text_clusters is None and self.image_clusters is None:
            notes.append("no cluster labels found: the cluster loss is off")
        for kind, found in (("text", self.text), ("image", self.image)):
            if found and found.missing:
                notes.append(f"{found.missing} of {len(found.vectors) - 1} items have no {kind} vector (zero row)")
            notes += found.notes if found else ()
        return notes


def collect_features(
    folder: Path, items: ItemTable | None, item_tokens: list[str], options: PrepareOptions
) -> ItemFeatures:
    """Gather what `folder` and the item table give. Named columns win over files; files win over default columns.

    Args:
        folder: Where feature files may lie.
        items: The item table, None when the source has none.
        item_tokens: (V,) raw ids by internal id, `item_tokens[0]` the padding.
        options: Its column names, widths and seed are used.
    Raises:
        DataError: A file does not fit (see `given`), or a named column does not exist.
    """
    text = read_vectors(folder, "txt_emb", item_tokens) if options.text_columns is None else None
    if text is None:
        text = text_features(
            items, item_tokens, columns=options.text_columns, width=options.text_width, seed=options.seed
        )
    given = read_multi_hot(folder, item_tokens) if options.category_column is None else None
    categories = (
        ItemCategories(given[0], [], given[1])
        if given
        else category_table(items, item_tokens, column=options.category_column, max_categories=options.max_categories)
    )
    return ItemFeatures(
        text=text,
        image=read_vectors(folder, "img_emb", item_tokens),
        categories=categories,
        text_clusters=read_clusters(folder, "txt_clusters", item_tokens),
        image_clusters=read_clusters(folder, "img_clusters", item_tokens),
    )
