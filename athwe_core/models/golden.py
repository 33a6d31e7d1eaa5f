"""Golden files: inputs, weights and outputs of a published network, recorded in one `.npz`.

Entries: `cfg.*` (settings), `in.*` (inputs), `w.*` (weights under their published names), `out.*` (outputs). Rows are padded
with item 0, all of them on the right or all on the left.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from athwe_core.batch import PackedBatch
from athwe_core.data.packing import pack_histories
from athwe_core.errors import CheckpointError


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file; CheckpointError when it is unreadable or holds objects."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {k: archive[k] for k in archive.files}
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(str(path), f"must be a readable .npz file ({error})") from None


@contextmanager
def outputs_of(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What modules return while the context lasts, by the names given to them; of several calls the last one's."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, arguments, output: found.__setitem__(name, output)

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Golden:
    """One golden file. B rows of at most L items."""

    path: Path
    arrays: Mapping[str, NDArray[Any]]

    @staticmethod
    def read(path: Path) -> Golden:
        """Raises: CheckpointError when the file is no `.npz` archive of plain arrays."""
        return Golden(path, read_npz(path))

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def require(self, *names: str) -> None:
        """Raise CheckpointError for entries that are missing; `out.*` stands for any output."""
        missing = [
            name
            for name in names
            if not (any(key.startswith(name[:-1]) for key in self.arrays) if name.endswith("*") else name in self)
        ]
        if missing:
            rule = f"must have the entries of a golden file: it lacks {', '.join(missing)}"
            raise CheckpointError(str(self.path), rule, remedy="Is it of another model? Name it with --model")

    def __getitem__(self, name: str) -> Tensor:
        """An entry as a tensor."""
        self.require(name)
        return torch.from_numpy(self.arrays[name])

    def get(self, name: str) -> Tensor | None:
        """An entry as a tensor; None where it is missing."""
        return None if name not in self.arrays else self[name]

    def setting(self, name: str, default: Any = None) -> Any:
        """The value of `cfg.NAME` as a plain value."""
        key = f"cfg.{name}"
        return self.arrays[key].item() if key in self else default

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Weights by published name."""
        return {key[2:]: torch.from_numpy(value) for key, value in self.arrays.items() if key.startswith("w.")}

    def weight(self, name: str) -> Tensor:
        """One weight, float32."""
        return self[f"w.{name}"].float()

    def layer(self, prefix: str, attention: str = "multi_head_attention", projection: str = "{}") -> dict[str, Tensor]:
        """Weights of one RecBole Transformer layer as those of one of our layers with a single encoder (M = 1).

        Args:
            prefix: of the layer's weights, with its last point.
            attention: what the layer's attention half is called.
            projection: what its query, key and value projections are called, `{}` standing for each.
        """
        feed, part = f"{prefix}feed_forward", f"{prefix}{attention}"
        qkv = [f"{part}.{projection.format(name)}" for name in ("query", "key", "value")]
        state = {
            "qkv_weight": torch.cat([self.weight(f"{name}.weight").T for name in qkv], dim=1)[None],
            "qkv_bias": torch.cat([self.weight(f"{name}.bias") for name in qkv])[None, None],
        }
        for ours, published in (("out", f"{part}.dense"), ("inner", f"{feed}.dense_1"), ("outer", f"{feed}.dense_2")):
            state[f"{ours}_weight"] = self.weight(f"{published}.weight").T[None]
            state[f"{ours}_bias"] = self.weight(f"{published}.bias")[None, None]
        for ours, published in (("attention", part), ("feed_forward", feed)):
            for kind in ("weight", "bias"):
                state[f"{ours}_norm.{kind}"] = self.weight(f"{published}.LayerNorm.{kind}")[None, None]
        return state

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """Outputs by name."""
        return {
            key[4:]: self[key] for key in self.arrays if key.startswith("out.") and self.arrays[key].dtype.kind != "U"
        }

    @cached_property
    def first_slot(self) -> Tensor:
        """Where the items of each row begin, (B,): 0, or after the padding where that is on the left."""
        items, lengths = self["in.item_seq"], self["in.lengths"]
        is_left = bool((items[:, 0] == 0).any())
        return items.shape[1] - lengths if is_left else torch.zeros_like(lengths)

    def batch(self, *, is_padded: bool = False) -> PackedBatch:
        """Each recorded row as one prefix row, supervised at its last item; `user_index` is the recorded row.

        Args:
            is_padded: rows hold their padding items too, as the published code has them; a causal model does not see them.
        """
        self.require("in.item_seq", "in.lengths", "in.targets")
        items, first = self["in.item_seq"], self.first_slot
        times = self["in.timestamps"] if "in.timestamps" in self else torch.zeros_like(items)
        begins, ends = first.tolist(), (first + self["in.lengths"]).tolist()
        if is_padded:
            begins, ends = [0] * len(items), [items.shape[1]] * len(items)
        histories = [
            (items[b, begin:end].tolist(), times[b, begin:end].tolist())
            for b, (begin, end) in enumerate(zip(begins, ends, strict=True))
        ]
        batch = pack_histories(histories, next_items=self["in.targets"].tolist())
        if not is_padded:
            return batch
        last = batch.offsets[:-1] + (first + self["in.lengths"])[batch.user_index] - 1
        return replace(batch, target_index=last, all_supervised=False)

    def all_supervised(self, batch: PackedBatch, labels: str | None = None) -> PackedBatch:
        """A batch of `batch()` with every token supervised by the (B, L) entry `labels`; padding labels are 0.

        Without labels the batch has no targets and serves to look at all states.
        """
        every = torch.arange(batch.num_tokens)
        targets = torch.full_like(every, -1) if labels is None else self.at_tokens(labels, batch)
        return replace(batch, target_index=every, target_ids=targets, all_supervised=True, num_targets=len(every))

    def at_tokens(self, name: str, batch: PackedBatch) -> Tensor:
        """A (B, L, ...) output in the order of the batch's tokens."""
        row = batch.user_index[batch.rows]
        return self[name][row, self.first_slot[row] + batch.positions]

    def pair(self, name: str, ours: Tensor, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Our value of an output and the recorded one in the order of the batch, by the recorded shape.

        (B, L, ...) outputs are compared at the tokens of the batch that are items, (B, ...) outputs at its rows, and scalars
        as they are.
        """
        recorded = self[f"out.{name}"]
        B, L = self["in.item_seq"].shape
        if recorded.ndim >= 3 and recorded.shape[:2] == (B, L):
            is_item = batch.item_ids > 0
            return ours[is_item], self.at_tokens(f"out.{name}", batch)[is_item]
        return ours, self.at_rows(f"out.{name}", batch) if recorded.ndim else recorded

    def at_rows(self, name: str, batch: PackedBatch) -> Tensor:
        """A (B, ...) output in the order of the batch's rows."""
        return self[name][batch.user_index]
