"""Low-rank adapters: `lora` of every stage that fine-tunes."""

import dataclasses
from dataclasses import dataclass

from crawltalk.recipe.optim import Optim


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Small trained matrices beside the linear layers of attention and MLP, which stay as they are."""

    rank: int = 0
    """Of the adapters, such as 16; 0: all weights are trained instead."""
    alpha: float | None = None
    """What adapters add is scaled by alpha / rank. Twice the rank if absent."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023)."""
    lr: float | None = None
    """AdamW's peak learning rate for adapters, at any width; 0.001 (from preferences: 0.0001) if absent."""
    dropout: float = 0.0
    """Share of an adapter's inputs that are dropped while it is trained."""

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        alpha = 2 * self.rank if self.alpha is None else self.alpha
        return alpha / (self.rank**0.5 if self.rslora else self.rank)


def lora_optim(optim: Optim, lora: Lora, lr: float) -> Optim:
    """The same with the rate of adapters, if there are some: that of the section, else `lr`."""
    return dataclasses.replace(optim, adamw_lr=lr if lora.lr is None else lora.lr) if lora.rank else optim
