"""Trainings of a few steps."""

import json

import torch

from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Machine, Optim
from crawltalk.run.stage import Progress
from crawltalk.train.loop import fit

SHAPE = Shape(vocab_size=61, layers=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp=64, context=16)

OPTIM = Optim(lr=0.02, adam_lr=0.003)

FP32 = Machine(workers=1, device="cpu", dtype="float32")


def fresh() -> Transformer:
    model = Transformer(SHAPE)
    model.initialize(3)
    return model


def batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Counting modulo 61, from places that depend on the step."""
    starts = torch.randint(0, 61, (8, 1), generator=torch.Generator().manual_seed(step))
    rows = (starts + torch.arange(17)) % 61
    return rows[:, :-1], rows[:, 1:]


def train(model, out, *, steps=12, machine=FP32, source=batches, optim=OPTIM, **settings):
    out.mkdir(exist_ok=True)
    return fit(
        model,
        source,
        steps=steps,
        optim=optim,
        out=out,
        save_every=4,
        progress=Progress(),
        machine=machine,
        **settings,
    )


def rows_of(out):
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows]
