"""Optimizers and the learning-rate schedule."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from crawltalk.recipe import Optim
from crawltalk.train.sharding import like, whole

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024, Muon)."""


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(the blocks' matrices, for Muon; embeddings, head and norms, for AdamW)."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and name.startswith("blocks.")]
    chosen = {id(p) for p in matrices}
    return matrices, [p for _, p in named if id(p) not in chosen]


def make_optimizers(model: nn.Module, config: Optim) -> tuple["Muon", torch.optim.AdamW]:
    """Muon for the matrices of the blocks, AdamW for the rest."""
    matrices, rest = split_parameters(model)
    assert config.lr is not None
    assert config.adam_lr is not None
    return (
        Muon(matrices, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay),
        torch.optim.AdamW(
            rest,
            lr=config.adam_lr,
            betas=(config.beta1, config.beta2),
            eps=1e-8,
            weight_decay=0.0,
            foreach=True,
        ),
    )


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024). Matrices of one shape are iterated together, in `dtype`.

    The update of an m x n matrix is scaled by sqrt(max(1, m / n)), so that one learning rate serves all
    shapes.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float, steps: int = 5
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps}
        )
        self.dtype = torch.float32
        """Of the iteration. bfloat16 is precise enough, and a hundred times slower on a processor that has no
        products of it.
        """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                by_shape.setdefault(weight.shape, []).append(weight)
            for weights in by_shape.values():
                self._step_shape(weights, group)

    def _step_shape(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        updates = []
        for weight in weights:
            state = self.state[weight]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
            assert weight.grad is not None
            state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
            # Nesterov's look ahead
            updates.append(whole(weight.grad.lerp(state["momentum"], group["momentum"])))
        rows, columns = weights[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        for weight, update in zip(
            weights, orthogonalize(torch.stack(updates).to(self.dtype), group["steps"]), strict=True
        ):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(like(update.to(weight.dtype), weight), alpha=-group["lr"] * scale)


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
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def learning_rate_factor(step: int, steps: int, config: Optim) -> float:
    """Share of the peak rate at `step` (0-based) of `steps`: up over `warmup`, flat, down to 0 over
    `cooldown`.
    """
    up = max(1, round(steps * config.warmup))
    down = max(1, round(steps * config.cooldown))
    return min(1.0, (step + 1) / up, (steps - step) / down)
