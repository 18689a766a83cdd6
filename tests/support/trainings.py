"""Trainings of a few steps."""

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Machine, Optim
from crawltalk.run.stage import Progress
from crawltalk.train.batches import Batch
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.ranks import ALONE

SHAPE = Shape(vocab_size=61, layers=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp=64, context=16)

OPTIM = Optim(muon_lr=0.02, adamw_lr=0.003)

FP32 = Machine(workers=1, device="cpu", dtype="float32")


def fresh() -> Transformer:
    model = Transformer(SHAPE)
    model.initialize(3)
    return model


class Adapter(nn.Module):
    """A frozen linear layer and a trained product of two small matrices beside it (Hu et al. 2021)."""

    def __init__(self, linear: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        generator = torch.Generator().manual_seed(1)
        self.down = nn.Parameter(torch.randn(rank, linear.in_features, generator=generator) * 0.1)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + x @ self.down.T @ self.up.T


def last_block_only() -> Transformer:
    model = fresh().requires_grad_(False)
    model.blocks[-1].requires_grad_(True)
    return model


def adapters_only() -> Transformer:
    model = fresh().requires_grad_(False)
    for block in model.blocks:
        block.mlp.down = Adapter(block.mlp.down)
    return model


def batches(step: int) -> Batch:
    """Counting modulo 61, from numbers that depend on the step."""
    starts = torch.randint(0, 61, (8, 1), generator=torch.Generator().manual_seed(step))
    rows = (starts + torch.arange(17)) % 61
    return Batch(rows[:, :-1], rows[:, 1:])


def pairs(step: int) -> Batch:
    """Rows that count up, and beside each one that counts down."""
    batch = batches(step)
    down = (batch.tokens[:, :1] - torch.arange(17)) % 61
    return Batch(batch.tokens, batch.targets, extras={"rejected": down})


def preference(model: Transformer, batch: Batch):
    """DPO without a reference model (Rafailov et al. 2023): an objective of ten lines."""

    def log_p(tokens_BT, targets_BT):
        every = torch.log_softmax(model(tokens_BT).float(), dim=-1)
        return every.gather(2, targets_BT[..., None]).sum((1, 2))

    rejected = batch.extras["rejected"]
    margin = log_p(batch.tokens, batch.targets) - log_p(rejected[:, :-1], rejected[:, 1:])
    return -logsigmoid(0.1 * margin).sum(), len(batch), {"accuracy": (margin > 0).sum()}


def train(
    model,
    out,
    *,
    steps=12,
    machine=FP32,
    source=batches,
    objective=cross_entropy,
    optim=OPTIM,
    evaluate=None,
    save_model=None,
    ranks=ALONE,
    **settings,
):
    Path(out).mkdir(parents=True, exist_ok=True)
    options = TrainingOptions(
        **{"steps": steps, "optim": optim, "machine": machine, "save_every": 4} | settings,
        out=out,
        progress=Progress(),
    )
    return fit(model, source, objective, options, evaluate=evaluate, save_model=save_model, ranks=ranks)


def rows_of(out):
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows]
