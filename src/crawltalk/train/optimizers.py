"""Optimizers and the learning-rate schedule."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from crawltalk.recipe import Optim
from crawltalk.train.sharding import full_tensor, shard_like
from crawltalk.train.threads import Threads

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024, Muon)."""


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that are not frozen, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def split_parameters(model: nn.Module, muon: bool = True) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(the blocks' matrices, for Muon if there is one; embeddings, head, norms, adapters, for AdamW), without what is
    frozen.
    """
    trained = trained_weights(model)
    matrices = [
        name
        for name, weight in trained.items()
        if muon
        and weight.ndim == 2
        and name.startswith("blocks.")
        and not name.endswith(("lora_A", "lora_B"))
    ]
    return [trained.pop(name) for name in matrices], list(trained.values())


def make_optimizers(
    model: nn.Module, config: Optim, dtype: torch.dtype = torch.float32, threads: Threads | None = None
) -> tuple["Muon", "AdamW"]:
    """Muon for the matrices of the blocks, iterated in `dtype`, and AdamW for the rest; either may have none.

    `threads` share Muon's matrices.
    """
    assert config.muon_lr is not None
    assert config.adamw_lr is not None
    matrices, rest = split_parameters(model, config.muon_lr > 0)
    muon = Muon(
        matrices,
        lr=config.muon_lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        dtype=dtype,
        threads=threads,
    )
    return muon, AdamW(rest, lr=config.adamw_lr, beta1=config.beta1, beta2=config.beta2)


class Optimizer:
    """Weights in groups, each with its settings, and what is kept of each weight, as torch.optim.Optimizer has them.

    It is none, as those load torch's compiler: more than a second in each process that trains.
    """

    def __init__(self, weights: Iterable[Tensor], **settings: Any) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(weights), **settings}]
        self.state: dict[Tensor, dict[str, Tensor]] = {}


class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter 2019), by torch's function."""

    def __init__(
        self,
        weights: Iterable[Tensor],
        lr: float,
        beta1: float,
        beta2: float,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(weights, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            settings = {name: value for name, value in group.items() if name != "params"}
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                if weight not in self.state:
                    averages = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                    self.state[weight] = {"step": torch.tensor(0.0), **averages}
            states = [self.state[weight] for weight in weights]
            adamw(
                weights,
                [weight.grad for weight in weights],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                foreach=True,
                amsgrad=False,
                maximize=False,
                **settings,
            )


class Muon(Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024) in `dtype`: on a GPU matrices of one shape together, on a CPU
    each alone, by one of the `threads` if there are some.

    The update of an m x n matrix is scaled by sqrt(max(1, m / n)), so that one learning rate serves all
    shapes. bfloat16 is precise enough for the iteration, but a hundred times slower on a processor without
    bfloat16 instructions.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        steps: int = 5,
        dtype: torch.dtype = torch.float32,
        threads: Threads | None = None,
    ) -> None:
        super().__init__(weights, lr=lr, momentum=momentum, weight_decay=weight_decay, steps=steps)
        self.dtype, self.threads = dtype, threads

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                by_shape.setdefault(weight.shape, []).append(weight)
            parts = list(by_shape.values())
            if any(part[0].device.type == "cpu" for part in parts):  # a thread for each, the largest first
                alone = ([weight] for part in parts for weight in part)
                parts = sorted(alone, key=lambda part: -part[0].numel())
            each = map if self.threads is None else self.threads.map
            for _ in each(lambda weights, group=group: self._step_shape(weights, group), parts):
                pass

    @torch.no_grad()  # a thread has a mode of its own
    def _step_shape(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        updates = []
        for weight in weights:
            state = self.state.setdefault(weight, {})
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
            assert weight.grad is not None
            state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
            # Nesterov's look ahead
            updates.append(full_tensor(weight.grad.lerp(state["momentum"], group["momentum"])))
        rows, columns = weights[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        for weight, update in zip(
            weights, orthogonalize(torch.stack(updates).to(self.dtype), group["steps"]), strict=True
        ):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(shard_like(update.to(weight.dtype), weight), alpha=-group["lr"] * scale)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearly semi-orthogonal matrices of [batch, m, n] by Newton-Schulz iteration: singular values end in 0.7
    .. 1.2.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def learning_rate_factor(step: int, steps: int, config: Optim) -> float:
    """Share of the peak rate at `step` (0-based) of `steps`: up over `warmup`, flat, down to 0 over
    `cooldown`.
    """
    up = max(1, round(steps * config.warmup))
    down = max(1, round(steps * config.cooldown))
    return min(1.0, (step + 1) / up, (steps - step) / down)
