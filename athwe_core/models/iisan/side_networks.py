"""Side networks of IISAN: small adapters beside the layers of frozen encoders, whose states are cached."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from athwe_core.errors import require
from athwe_core.models.iisan.config import IISANModelConfig
from athwe_core.nn.item_embeddings import linear

GATE_SCALE = 10.0
"""Gates are sigmoid(10 * parameter), as published."""
ITEMS_AT_ONCE = 4096
"""Items whose states go through the side networks at a time when all are needed in evaluation."""


class Tower(nn.Module):
    """A chain of adapters over the states of an encoder's layers, or of two encoders at once.

        one encoder:  h_s = A_s(g_s x_s + (1 - g_s) h_s-1)
        two encoders: h_s = A_s(h_s-1 + g_s image_s + (1 - g_s) text_s)
        A(x) = x + U relu(D x + b) + c        h_0 = 0        result = W_2 (W_1 h_S + b_1) + b_2

    Args:
        width: F of the states.
        num_states: S.
        adapter_size: width inside an adapter.
        hidden_size: D of the result.
    Source: IISAN (Fu et al., SIGIR 2024) and its authors' code.
    """

    def __init__(self, *, width: int, num_states: int, adapter_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.empty(num_states))
        self.down = nn.ModuleList(nn.Linear(width, adapter_size) for _ in range(num_states))
        self.up = nn.ModuleList(nn.Linear(adapter_size, width) for _ in range(num_states))
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, hidden_size)

    def forward(
        self, states: Float[Tensor, "n S F"], other: Float[Tensor, "n S F"] | None, dtype: torch.dtype
    ) -> Float[Tensor, "n D"]:
        """Vectors of n items; `other` has the states of the second encoder, products are in `dtype`."""
        gates = torch.sigmoid(GATE_SCALE * self.gates)
        h = torch.zeros_like(states[:, 0])
        for step, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            g, x = gates[step], states[:, step]
            h = torch.lerp(h, x, g) if other is None else h + torch.lerp(other[:, step], x, g)
            h = h + _product(up, _product(down, h, dtype).relu(), dtype)
        return _product(self.outer, _product(self.inner, h, dtype), dtype)


def _product(layer: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return linear(layer, x, dtype).float()


class SideNetworks(nn.Module):
    """Item vectors from the states of frozen encoders.

        item = W [tower_1; tower_2; ...] + b

    Args:
        model: sizes.
        states: by modality, states (V, S, F) of the layers of its encoder, entry 0 = padding.
        compute_dtype: of the products while training.
    Source: IISAN and its authors' code.
    """

    def __init__(
        self, model: IISANModelConfig, states: Mapping[str, Float[Tensor, "V S F"]], *, compute_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.compute_dtype, self.modalities = compute_dtype, tuple(states)
        sizes = {name: tuple(values.shape[1:]) for name, values in states.items()}
        self.towers, self.align = nn.ModuleDict(), None
        for name in model.towers:
            num_states, width = sizes["text" if name == "both" else name]
            self.towers[name] = Tower(
                width=width, num_states=num_states, adapter_size=model.adapter_size, hidden_size=model.hidden_size
            )
        if "both" in model.towers:
            counts = [count for count, _ in sizes.values()]
            rule = "cannot have both: text and image have unlike numbers of layer states"
            require(len(set(counts)) == 1, "model.towers", rule, counts, "Use --set model.towers=[image,text]")
            if sizes["image"][1] != sizes["text"][1]:
                self.align = nn.Linear(sizes["image"][1], sizes["text"][1])
        self.join = nn.Linear(len(model.towers) * model.hidden_size, model.hidden_size)
        for name, values in states.items():
            self.register_buffer(f"{name}_states", values, persistent=False)

    def forward(self, items: Int64[Tensor, " n"] | None = None) -> Float[Tensor, "n D"]:
        """Vectors of some items, or of all."""
        states = {name: self.get_buffer(f"{name}_states") for name in self.modalities}
        if items is not None:
            return self._vectors({name: values[items] for name, values in states.items()})
        if torch.is_grad_enabled():
            return self._vectors(states)
        parts = zip(*(values.split(ITEMS_AT_ONCE) for values in states.values()), strict=True)
        return torch.cat([self._vectors(dict(zip(states, part, strict=True))) for part in parts])

    def by_tower(self, states: Mapping[str, Float[Tensor, "n S F"]]) -> dict[str, Float[Tensor, "n D"]]:
        """The result of each tower."""
        dtype = self.compute_dtype if self.training else torch.float32
        states = {name: values.float() for name, values in states.items()}
        found = {}
        for name, tower in self.towers.items():
            if name != "both":
                found[name] = tower(states[name], None, dtype)
                continue
            image = states["image"]
            if self.align is not None:
                image = _product(self.align, image.flatten(0, 1), dtype).view(*image.shape[:2], -1)
            found[name] = tower(image, states["text"], dtype)
        return found

    def _vectors(self, states: Mapping[str, Tensor]) -> Tensor:
        dtype = self.compute_dtype if self.training else torch.float32
        return _product(self.join, torch.cat(list(self.by_tower(states).values()), dim=1), dtype)
