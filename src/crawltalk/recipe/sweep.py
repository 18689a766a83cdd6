"""Scaling laws: `[sweep]`."""

from dataclasses import dataclass, field

from crawltalk.recipe.pretrain import Pretrain


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Small models on the run's tokens, to predict the loss of a larger one (Kaplan et al. 2020)."""

    depths: tuple[int, ...] = ()
    """Layers of the small models, two depths or more; each has as many tokens a parameter as the run's own
    model. Empty: no sweep.
    """
    pretrain: Pretrain | None = field(default=None, metadata={"derived": True})
    """What the small models are copies of: always the section `pretrain`, so no key of a recipe."""
