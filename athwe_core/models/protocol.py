"""The seam between models and the engine: what a network must offer to be trained, ranked, compared and explained.

The engine (packing, training loop, checkpoints, ranking, experiments) knows a model through `Model` alone, and finds it
through a `ModelSpec` in the registry. A model in a package of its own declares its spec as an entry point of the group
`athwe.models`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from athwe_core.batch import Catalogue, Histories, PackedBatch, SeenItems, TimeRange
from athwe_core.config import Config
from athwe_core.distributed import ALONE, BatchShards, ProcessGroup
from athwe_core.losses.catalogue_ce import CHUNK_ELEMENTS
from athwe_core.losses.sampled_ce import Candidates
from athwe_core.models.golden import Golden

Draws = Mapping[str, Tensor]
"""Random choices of one step by name, on the batch's device."""
Tree = dict[str, Any]
"""A configuration as plain dictionaries and lists."""


@dataclass(frozen=True)
class ModelInputs:
    """What a model is built from besides its configuration."""

    catalogue: Catalogue
    time_range: TimeRange
    """Of the training split."""
    compute_dtype: torch.dtype = torch.float32
    """dtype of the products while training; weights and evaluation are in float32."""
    generator: torch.Generator | None = None
    """Draws the initial weights; None = torch's default generator."""
    histories: Histories | None = None
    """The training split, for models that declare it in `InputNeeds`."""
    world: ProcessGroup = ALONE
    """Processes over which the item tables are divided by rows; for models with `ModelSpec.offers_sharding`."""


@dataclass(frozen=True, kw_only=True)
class LossInputs:
    """What the losses of one step use besides the batch."""

    draws: Draws = field(default_factory=dict)
    """What the model's own `draw` returned for this batch."""
    candidates: Candidates | None = None
    """The items that stand for the catalogue where its loss is sampled; None = the whole catalogue."""
    shards: BatchShards | None = None
    """How the batch is divided over processes; each term is then this process's part of it. None = one process."""
    chunk_elements: int = CHUNK_ELEMENTS
    """Most catalogue scores held at a time."""


@dataclass(frozen=True)
class Explanation:
    """An inside view of one history for `case-study`; every part may be left out. n = positions of the history."""

    score_parts: Mapping[str, slice] = field(default_factory=dict)
    """Columns of the item table by what they hold (id, text, image): the score is the sum of the parts' products."""
    attention: Mapping[str, list[list[float]]] = field(default_factory=dict)
    """By encoder, for each layer the n weights of the last position, mean over heads."""
    attention_parts: Mapping[str, list[list[float]]] = field(default_factory=dict)
    """By part of the attention (a source of its scores, a branch), for each layer the n weights of the last position that
    this part alone gives."""
    temporal_gates: list[list[float]] | None = None
    """(n, E) weights of the temporal experts."""
    interactive_gates: Mapping[str, list[list[float]]] | None = None
    """By modality, (n, E) weights of the interactive experts."""
    wavelet_bands: tuple[str, ...] = ()
    """Bands from slow to fast."""
    wavelet_energy: Mapping[str, list[float]] = field(default_factory=dict)
    """By modality, the share of each band in the sum of squares."""
    frequency_bands: tuple[str, ...] = ()
    """Ranges of the frequencies of a Fourier transform over the positions, from slow to fast."""
    frequency_energy: Mapping[str, list[float]] = field(default_factory=dict)
    """By layer, the share of each range in the sum of squares of the layer's input."""


class Model(nn.Module, ABC):
    """A sequential recommender as the engine sees it.

    The score of item v after a supervised position is

        score(v) = user_vector . item_table[v] + item_bias[v] + term of v, if v is in the history and `model.repeat` is true

    A model reads a `PackedBatch`: rows laid end to end without padding. Where it needs a rectangle, `batch.padded` is one.

    Source: HM4SR eq. 19; the bias is that of matrix factorisation.
    """

    max_length: int
    """L: latest items of a history that the model reads."""
    loss_weights: Mapping[str, float]
    """Weight of each auxiliary loss term by name. The main term counts once and is not listed."""
    has_fixed_shapes: bool = True
    """Whether every shape inside a step follows from the batch's shapes, so that compiled code serves all batches."""

    def begin_epoch(self, epoch: int, *, is_resumed: bool) -> None:
        """What a model does before the steps of an epoch.

        Args:
            epoch: counted from 0.
            is_resumed: whether some of its steps are done; what was renewed at its beginning is then in the checkpoint, if
                it is in a persistent buffer.
        """

    def draw(self, batch: PackedBatch, generator_of: Callable[[str], torch.Generator]) -> Draws:
        """Every random choice of a step besides weights and dropout.

        Args:
            batch: the batch of the step.
            generator_of: a CPU generator for a purpose. The same purpose, epoch and step give the same draws on resume.
        Returns: tensors by name on the batch's device; `losses` receives them.
        """
        return {}

    @abstractmethod
    def losses(self, batch: PackedBatch, inputs: LossInputs) -> dict[str, Float[Tensor, ""]]:
        """Loss terms by name, unweighted, the main term first.

        The total is the main term + sum of `loss_weights[name]` * term; it is formed in one place, `total_loss`.
        """

    @abstractmethod
    def user_vectors(self, batch: PackedBatch, table: Float[Tensor, "V K"] | None = None) -> Float[Tensor, "N K"]:
        """One vector for each supervised position, whose product with the item table is the score.

        Args:
            table: `self.item_table()` where many batches share it; None computes it.
        """

    @abstractmethod
    def item_table(self) -> Float[Tensor, "V K"]:
        """One vector for each item; row 0 is the padding and never ranked."""

    def item_bias(self) -> Float[Tensor, " V"] | None:
        """A term added to every score of an item; None = no bias."""
        return None

    def scores(
        self, user_vectors: Float[Tensor, "N K"], table: Float[Tensor, "V K2"], bias: Float[Tensor, " V"] | None
    ) -> Float[Tensor, "N V"]:
        """Scores of all items for user vectors, without the terms of seen items.

        A model whose score is no inner product defines it here; its user vectors and its table may differ in width then.
        The score of an item depends on no other item: ranking computes the scores of some items at a time.

        Args:
            user_vectors: from `user_vectors`.
            table, bias: what `item_table` and `item_bias` return, or the same rows of both.
        Returns: scores in memory of their own, which the caller may overwrite.
        """
        scores = user_vectors @ table.T
        return scores if bias is None else scores + bias

    def seen_items(self, batch: PackedBatch) -> SeenItems | None:
        """Terms for the scores of items of the histories, which `losses` passes on to its main loss.

        Returns: the terms of the part `repeat`, which `build_model` adds where `model.repeat` is true; None without it.
        """
        repeat = self._modules.get("repeat")
        return None if repeat is None else cast(SeenItems, repeat(batch))

    @final
    def ranking_scores(
        self, batch: PackedBatch, table: Float[Tensor, "V K"], bias: Float[Tensor, " V"] | None
    ) -> Float[Tensor, "N V"]:
        """Scores of all items after each supervised position, by which they are ranked.

        Ranking itself computes the same from `user_vectors`, `scores` and `seen_items` in tiles of items.

        Args:
            table, bias: what `item_table` and `item_bias` return.
        """
        scores = self.scores(self.user_vectors(batch, table), table, bias)
        seen = self.seen_items(batch)
        return scores if seen is None else seen.add_to(scores)

    def recompute_stages(self) -> Sequence[nn.Module]:
        """Modules whose activations may be dropped and computed again in the backward pass, to save memory."""
        return ()

    def explain(self, batch: PackedBatch, table: Float[Tensor, "V K"]) -> Explanation:
        """An inside view of a batch of one row; the default has none."""
        return Explanation()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


def total_loss(terms: Mapping[str, Float[Tensor, ""]], loss_weights: Mapping[str, float]) -> Float[Tensor, ""]:
    """main + sum of weight * term; the main term is the first and has no weight.

    Source: HM4SR eq. 27.
    """
    main, *others = terms
    return sum((loss_weights[name] * terms[name] for name in others), start=terms[main])


@dataclass(frozen=True)
class InputNeeds:
    """What a configuration reads of the catalogue besides the item ids."""

    features: tuple[str, ...] = ()
    """Modalities: text, image."""
    categories: bool = False
    clusters: bool = False
    similar_items: bool = False
    layer_states: bool = False
    """States of the layers of the encoders of `features`, where the data set has them."""
    target_counts: bool = False
    """How often each item is a training target; a sampled loss has it anyway."""
    histories: bool = False
    """The training interactions of all users."""
    attributes: tuple[str, ...] = ()
    """Kinds of labels: `categories`, or a column of the item metadata."""


@dataclass(frozen=True)
class Available:
    """What a prepared data set has, for a configuration to adapt to."""

    dataset: str
    features: frozenset[str]
    """Of text, image."""
    categories: bool
    clusters: frozenset[str]
    """Modalities with cluster labels."""
    layer_states: frozenset[str] = frozenset()
    """Modalities with states of their encoder's layers."""
    attributes: frozenset[str] = frozenset()
    """Kinds of labels: `categories`, and the columns of the item metadata."""


@dataclass(frozen=True)
class Removal:
    """A part that `ablate --remove` can take out of a configuration."""

    name: str
    """As the papers and the command line write it, e.g. TMoE."""
    is_in: Callable[[Tree], bool]
    take_out: Callable[[Tree], Mapping[str, str]]
    """Changes the tree so that the part is gone and the rest is legal; returns a sentence for each further part that had to
    go too, by that part's name."""


def _take_out_repeat(tree: Tree) -> Mapping[str, str]:
    tree["model"]["repeat"] = False
    return {}


REPEAT = Removal("Repeat", lambda tree: bool(tree["model"]["repeat"]), _take_out_repeat)
"""The removal that every model has."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything the engine must know of a model before it is built."""

    name: str
    """Value of `model.name`."""
    summary: str
    """One line: what it is, authors and year."""
    config: type[Config]
    """The whole configuration, with the model's own `model` and `losses` sections."""
    build: Callable[[Any, ModelInputs], Model]
    """(configuration, inputs) to a model on the CPU with its initial weights."""
    batchings: tuple[str, ...] = ("packed", "prefix")
    """Legal values of `training.batching`; the configuration may allow fewer."""
    needs: Callable[[Any], InputNeeds] = lambda config: InputNeeds()
    """What a configuration reads of the catalogue."""
    adapt: Callable[[Tree, Available], list[str]] = lambda tree, available: []
    """Changes a tree to what a data set has; returns one sentence for each part that it switches off."""
    removals: tuple[Removal, ...] = ()
    """Parts for `ablate`."""
    golden_pairs: Callable[[Golden], dict[str, tuple[Tensor, Tensor]]] | None = None
    """A golden file to pairs (ours, published) by output name, of one shape each. Raises CheckpointError for a file that is
    not of this model. None = no published form is known."""
    golden_tolerance: Mapping[str, float] = field(default_factory=dict)
    """Largest difference allowed by output name, where it is not the usual one."""
    offers_repeat: bool = True
    """Whether `model.repeat` may be true: the main loss takes `seen_items`."""
    offers_sharding: bool = False
    """Whether `training.shard_tables` may be true: item vectors come from an `ItemEmbeddings` named `tables`, which is given
    `ModelInputs.world`, and `losses` and `user_vectors` use the rows of the batch's items and candidates only."""
    presets: Traversable = field(default_factory=lambda: resources.files("athwe_core") / "presets")
    """Folder with the presets that set `model.name` to this model."""

    @property
    def parts(self) -> tuple[Removal, ...]:
        """Everything that `ablate` can take out: the model's own parts, and the learned term for seen items."""
        return (*self.removals, REPEAT)
