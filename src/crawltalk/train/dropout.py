"""Dropout as a function of the step, so that a training that was killed resumes bit for bit: each row of a batch brings
a seed, and that of a micro-batch's first row is what the micro-batch draws from.
"""

import random
from dataclasses import replace

import torch
from torch import Tensor

from crawltalk.model.lora import dropout_seed
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Lora
from crawltalk.train.batches import Batch, Batches
from crawltalk.train.objectives import Figures, Objective

SEED = "dropout_seed"
"""The name of the seeds among a batch's extras."""


def with_dropout(batches: Batches, objective: Objective, lora: Lora, seed: int) -> tuple[Batches, Objective]:
    """Where adapters drop (`lora.dropout`), batches with a seed a row and an objective that uses it; else the same."""
    if not lora.rank or not lora.dropout:
        return batches, objective

    def seeded(step: int) -> Batch:
        batch, rng = batches(step), random.Random(f"dropout {seed} {step}")
        seeds = torch.tensor([rng.getrandbits(40) for _ in range(len(batch))])
        return replace(batch, extras=batch.extras | {SEED: seeds})

    def dropping(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor | int, Figures]:
        with dropout_seed(int(batch.extras[SEED][0])):
            return objective(model, batch)

    return seeded, dropping
