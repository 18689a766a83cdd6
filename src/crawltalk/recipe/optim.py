"""Optimizers and the schedule of their rates: `optim` of every stage that trains."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Muon for the matrices of the blocks, AdamW for the rest."""

    muon_lr: float | None = None
    """Muon's peak learning rate; 0.02 (fine-tuning: 0.005) x sqrt(256 / width) if absent. 0: AdamW trains all."""
    adamw_lr: float | None = None
    """AdamW's peak learning rate; 0.003 x sqrt(256 / width) if absent."""
    weight_decay: float = 0.0
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.95
    warmup: float = 0.02
    """Share of the steps, at the start, over which the learning rate rises from 0."""
    cooldown: float = 0.5
    """Share of the steps, at the end, over which the learning rate falls linearly to 0."""
    clip: float = 1.0
    """Maximum norm of the gradient."""
    spike: float = 1.0
    """The run stops when five losses in a row are this many nats above the mean of the twenty before them.
    0: never.
    """


def derive_optim(optim: Optim, width: int, muon_lr: float, adamw_lr: float = 0.003) -> Optim:
    """Rates for a model of this width; `muon_lr` and `adamw_lr` are those at a width of 256."""
    scale = (256 / width) ** 0.5
    return dataclasses.replace(
        optim,
        muon_lr=muon_lr * scale if optim.muon_lr is None else optim.muon_lr,
        adamw_lr=adamw_lr * scale if optim.adamw_lr is None else optim.adamw_lr,
    )
