"""Adam that skips an update that is not finite, and is lazy where a gradient touches only a few rows of a table."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from athwe_core.config_schema import TrainingConfig


class GuardedAdam(torch.optim.Adam):
    """Adam that leaves weights and state as they are when a flag on the device is set; the CPU does not wait to read it."""

    found_inf: Tensor | None = None
    """() float32: 1 = skip the update, 0 = make it. torch's fused Adam reads it under this name."""

    # torch wraps these for its compiler, which they import: 2 s at the start of each process that trains.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))

    def set_rate(self, lr: float) -> None:
        """Learning rate of the steps from now on."""
        for group in self.param_groups:
            group["lr"] = lr


class LazyAdam(GuardedAdam):
    """Adam whose sparse gradients move the rows they touch, and no others.

    For a touched row, at step t of all steps:

        m = b1 m + (1 - b1) g      v = b2 v + (1 - b2) g^2      w -= lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps')

    with eps' = eps / sqrt(1 - b2^t): the rule of `torch.optim.SparseAdam`, then weight decay where there is any. A row
    without a gradient keeps weight and moments, undecayed, where Adam on a dense gradient would still move it. Dense
    gradients are left to Adam itself; the state has the same names for both.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the weights that have a gradient."""
        assert closure is None, "no closure: the gradients are there"
        sparse = [
            (parameter, parameter.grad, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        for parameter, _, _ in sparse:
            parameter.grad = None
        super().step()
        for parameter, gradient, group in sparse:
            parameter.grad = gradient
            self._move_rows(parameter, gradient.coalesce(), group)

    def _move_rows(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        rows, values = gradient.indices()[0], gradient.values()
        mean, square = (state[name].index_select(0, rows) for name in ("exp_avg", "exp_avg_sq"))
        new_mean = mean.lerp(values, 1 - beta1)
        new_square = (square * beta2).addcmul_(values, values, value=1 - beta2)
        step = state["step"] + 1
        rate = group["lr"] * (1 - beta2**step).sqrt() / (1 - beta1**step)
        change = -rate * new_mean / (new_square.sqrt() + group["eps"])
        if group["weight_decay"]:
            change -= group["lr"] * group["weight_decay"] * parameter.index_select(0, rows)
        if self.found_inf is not None:
            is_skipped = self.found_inf > 0
            new_mean, new_square = torch.where(is_skipped, mean, new_mean), torch.where(is_skipped, square, new_square)
            change, step = change.masked_fill_(is_skipped, 0.0), step - self.found_inf
        state["exp_avg"].index_copy_(0, rows, new_mean)
        state["exp_avg_sq"].index_copy_(0, rows, new_square)
        state["step"].copy_(step)
        parameter.index_add_(0, rows, change)


def make_optimizer(model: nn.Module, *, lr: float, weight_decay: float = 0.0) -> GuardedAdam:
    """Adam over every trainable weight, fused where the device can, lazy where a table's gradient is sparse.

    Args:
        lr: learning rate, > 0.
        weight_decay: each step multiplies the matrices and tables it moves by 1 - lr x weight_decay, >= 0. Vectors and single
            numbers (biases, norms, scales) do not decay.

    Source: Loshchilov and Hutter 2019, algorithm 2 (AdamW).
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    is_sparse = any(isinstance(module, nn.Embedding) and module.sparse for module in model.modules())
    kind = LazyAdam if is_sparse else GuardedAdam
    if weight_decay == 0:
        return kind(trainable, lr=lr, fused=True)
    matrices = [parameter for parameter in trainable if parameter.ndim > 1]
    others = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": weight_decay}, {"params": others}]
    return kind([group for group in groups if group["params"]], lr=lr, fused=True, decoupled_weight_decay=True)


def scheduled_rate(settings: TrainingConfig, *, done: float) -> float:
    """Learning rate of a step.

        one-cycle: lr d / warmup                                                          for d < warmup
                   lr (final + (1 - final) (1 + cos(pi (d - warmup) / (1 - warmup))) / 2)     after it
        constant:  lr

    Args:
        settings: the training section of a configuration.
        done: d, the share of all steps that ends with this step, in (0, 1].

    Source: Smith 2018, with the cosine of Loshchilov and Hutter 2017, equation 5.
    """
    schedule = settings.schedule
    if schedule.kind == "constant":
        return settings.lr
    if done < schedule.warmup:
        return settings.lr * done / schedule.warmup
    falling = (done - schedule.warmup) / (1 - schedule.warmup) if schedule.warmup < 1 else 0.0
    return settings.lr * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * falling)) / 2)
