"""Scaling laws: `[sweep]`."""

from dataclasses import dataclass, field

from crawltalk.recipe.pretrain import Pretrain


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Small models on the run's tokens, to predict the loss of a larger one (Kaplan et al. 2020)."""

    depths: tuple[int, ...] = ()
    """Layers of the small models, two depths or more. Each is trained on as many tokens per parameter as the
    run's own model. Empty: no sweep.
    """
    pretrain: Pretrain | None = field(default=None, metadata={"derived": True})
    """Settings of the small models: always those of `pretrain`, so this is not a key of a recipe."""
