"""All item features of a data set by internal id: those given beside the interactions, else made from its text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from athwe_core.data.features.build import FeatureWork
from athwe_core.data.features.categories import ItemCategories, category_table
from athwe_core.data.features.from_files import ItemVectors, read_clusters, read_multi_hot, read_vectors
from athwe_core.data.readers.records import ItemTable

PROBLEMS = "image_problems.tsv"


@dataclass(frozen=True)
class ItemFeatures:
    """Features by internal id, V rows with the padding; None where a kind is absent.

    Attributes:
        text, image: Vectors.
        categories: Multi-hot categories.
        text_clusters, image_clusters: (V,) int32 labels, -1 = none.
        clusters_made: k and seed by modality, of the labels that were made here rather than given.
    """

    text: ItemVectors | None = None
    image: ItemVectors | None = None
    categories: ItemCategories | None = None
    text_clusters: Int32[np.ndarray, "V"] | None = None
    image_clusters: Int32[np.ndarray, "V"] | None = None
    clusters_made: dict[str, dict[str, int]] = field(default_factory=dict)

    def arrays(self) -> dict[str, Any]:
        """The arrays that exist, by their name in a prepared data set."""
        found = {
            "text_features": self.text.vectors if self.text else None,
            "image_features": self.image.vectors if self.image else None,
            "text_layers": self.text.layers if self.text else None,
            "image_layers": self.image.layers if self.image else None,
            "categories": self.categories.table if self.categories else None,
            "text_clusters": self.text_clusters,
            "image_clusters": self.image_clusters,
        }
        return {name: array for name, array in found.items() if array is not None}

    def facts(self) -> dict[str, Any]:
        """Width, missing items and source of each kind, None where absent: `features` of `prepare --json`."""
        vectors = {
            kind: found
            and {
                "width": found.vectors.shape[1],
                "missing": found.missing,
                "source": found.source,
                **({"scale": asdict(found.scale)} if found.scale else {}),
                **({"encoder": found.encoder} if found.encoder else {}),
            }
            for kind, found in (("text", self.text), ("image", self.image))
        }
        count = self.categories and {"count": self.categories.table.shape[1], "source": self.categories.source}
        return {**vectors, "categories": count}

    def statistics(self) -> dict[str, Any]:
        """The part of `prepare --json` that is about features."""
        labels = {"text": self.text_clusters, "image": self.image_clusters}
        count = {kind: None if found is None else int(found.max()) + 1 for kind, found in labels.items()}
        return {"features": self.facts(), "clusters": count}

    def origins(self) -> dict[str, Any]:
        """What the manifest needs so that a later refresh of one kind can tell the others' story again."""
        notes = {kind: list(found.notes) for kind, found in (("text", self.text), ("image", self.image)) if found}
        return {"vector_notes": notes, "clusters_made": self.clusters_made}

    def write_problems(self, folder: Path) -> None:
        """List the items whose picture is missing or broken in `folder/image_problems.tsv`; no file where none is."""
        if self.image is not None and self.image.problems:
            lines = ["item_id\tproblem", *("\t".join(problem) for problem in self.image.problems)]
            (folder / PROBLEMS).write_text("\n".join(lines) + "\n", encoding="utf-8")

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
            notes.append("no cluster labels found: the cluster loss is off (--clusters 100 makes them)")
        for kind, found in (("text", self.text), ("image", self.image)):
            if found and found.missing:
                notes.append(f"{found.missing} of {len(found.vectors) - 1} items have no {kind} vector (zero row)")
            notes += found.notes if found else ()
        return notes


def collect_features(folder: Path, items: ItemTable | None, item_tokens: list[str], work: FeatureWork) -> ItemFeatures:
    """Gather what `folder` and the item table give, and make the rest.

    Named columns win over files; files win over encoders and default columns.

    Args:
        folder: Where feature files may lie.
        items: The item table, None when the source has none.
        item_tokens: (V,) raw ids by internal id, `item_tokens[0]` the padding.
        work: Makes what is not given; its options' column names, widths and seed are used.
    Raises:
        DataError: A file does not fit (see `from_files`), or a named column does not exist.
    """
    options = work.options
    keep, order = options.keep_feature_scale, options.feature_rows
    text = None
    if options.text_columns is None:
        text = read_vectors(folder, "txt_emb", item_tokens, feature_rows=order)
    image = read_vectors(folder, "img_emb", item_tokens, feature_rows=order)
    given = read_multi_hot(folder, item_tokens, feature_rows=order) if options.category_column is None else None
    categories = (
        ItemCategories(given[0], [], given[1])
        if given
        else category_table(items, item_tokens, column=options.category_column, max_categories=options.max_categories)
    )
    found = ItemFeatures(
        text=work.text(items, item_tokens) if text is None else text.scaled("text", keep=keep),
        image=work.image(item_tokens) if image is None else image.scaled("image", keep=keep),
        categories=categories,
        text_clusters=read_clusters(folder, "txt_clusters", item_tokens, feature_rows=order),
        image_clusters=read_clusters(folder, "img_clusters", item_tokens, feature_rows=order),
    )
    return with_clusters(found, work)


def with_clusters(features: ItemFeatures, work: FeatureWork) -> ItemFeatures:
    """Add cluster labels of the vectors that have none, where the options ask for them."""
    if not work.options.clusters:
        return features
    labels = {"text": features.text_clusters, "image": features.image_clusters}
    made = dict(features.clusters_made)
    for kind, found in (("text", features.text), ("image", features.image)):
        if found is not None and labels[kind] is None:
            labels[kind] = work.clusters(found.vectors, what=kind)
            made[kind] = {"k": work.options.clusters, "seed": work.options.seed}
    return replace(features, text_clusters=labels["text"], image_clusters=labels["image"], clusters_made=made)
