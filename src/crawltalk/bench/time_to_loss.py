"""bench pretrain: CPU time to the validation loss that a model like nanoGPT's reaches, on the same tokens.

`python -m crawltalk.bench.time_to_loss FOLDER JSON` trains once, in a process of its own, and prints
the result: the loss, and the CPU seconds that training took, per thread (evaluation and start-up are not
counted). FOLDER holds token shards.

The baseline is written anew after nanoGPT's description: GPT-2's shape without biases and dropout, its
initialisation, AdamW with 0.9, 0.95 and weight decay 0.1 on matrices, a warm-up and a cosine down to a tenth,
clipping at 1. Rate and batch are swept.
"""

import dataclasses
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crawltalk.bench.data import figure
from crawltalk.bench.tokenizer import read_texts
from crawltalk.core.errors import UserError
from crawltalk.core.shards import ShardIndex, TokenShards, write_index, write_split
from crawltalk.model import functions
from crawltalk.model.transformer import Transformer
from crawltalk.pretraining.pretrain import shape_of
from crawltalk.recipe import Family, Machine, Model, Optim
from crawltalk.recipe.model import inner_size
from crawltalk.run.stage import Progress
from crawltalk.tokenizer.bpe import train as train_tokenizer
from crawltalk.train import loop
from crawltalk.train.batches import Batch, windows
from crawltalk.train.objectives import Figures, Objective
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.precision import compute_dtype

THREADS = 2
VOCABULARY, CONTEXT, DEPTH, WIDTH = 4096, 256, 4, 256
VALIDATION = 64 * CONTEXT
"""Tokens of validation, from sixteen parts of the texts that are kept out: enough for 0.02 nats."""
RATES, BATCHES = (5e-4, 1e-3, 2e-3), (1024, 2048)
"""What the baseline is swept over: AdamW's peak rate, tokens in a step; further out the losses are higher
(EXPERIMENTS.md).
"""
OURS, OUR_BATCH = Optim(muon_lr=0.01, adamw_lr=0.008), 2048
"""Our rates and tokens in a step, chosen in the same way."""
SHARES = (0.3, 0.22, 0.16, 0.12)
"""Of the baseline's time: how long we train."""
TRICKS = ("bf16", "attention", "fused loss", "Muon", "allocator")
"""The first only where products in bf16 are faster than in fp32."""


@dataclass(frozen=True, kw_only=True)
class Training:
    side: str = "ours"
    """ours, or baseline."""
    seconds: float
    """CPU seconds of training, per thread."""
    lr: float | None = None
    batch: int | None = None
    dtype: str | None = None
    """bfloat16 or float32; the faster one, by the probe that trainings ask, if absent."""
    seed: int = 0
    without: str = ""
    """One of TRICKS, to be left out."""
    family: Family = "qwen3"
    """Of our model."""
    depth: int = DEPTH
    width: int = WIDTH
    """Of both models."""


def time_to_loss(text: str | Path, runs: int, seconds: float) -> Iterator[dict[str, Any]]:
    """The table's lines, as soon as they are known; then our time to the loss that a training without one of the
    tricks reaches.
    """
    has_bf16 = compute_dtype(Machine(device="cpu")) == torch.bfloat16
    with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as name:
        folder = Path(name)
        prepare(text, folder)
        ours = [_curve(folder, seconds, seed) for seed in range(runs)]
        base = Training(side="baseline", seconds=seconds)
        tried = [dataclasses.replace(base, lr=lr, batch=batch) for lr in RATES for batch in BATCHES]
        losses = [run_once(folder, training)["loss"] for training in tried]
        chosen = tried[losses.index(min(losses))]
        for label, dtype in (*((("bf16", "bfloat16"),) if has_bf16 else ()), ("default", "float32")):
            best = [
                run_once(folder, dataclasses.replace(chosen, dtype=dtype, seed=seed)) for seed in range(runs)
            ]
            target = statistics.median(row["loss"] for row in best)
            how = f"{dtype}, rate {chosen.lr:g}, {chosen.batch} tokens a step"
            what = f"GPT-2 as nanoGPT trains it, {how}: {target:.3f} nats"
            taken = [seconds_to(curve, target) for curve in ours]
            yield figure(
                f"pretrain.time_to_loss_{label}", "s", taken, [row["seconds"] for row in best], what, THREADS
            )
        for trick in TRICKS if has_bf16 else TRICKS[1:]:
            share = seconds * SHARES[2]
            rows = [
                run_once(folder, Training(seconds=share, without=trick, seed=seed)) for seed in range(runs)
            ]
            equal = [seconds_to(curve, row["loss"]) for curve, row in zip(ours, rows, strict=True)]
            what = f"without {trick}: {statistics.median(row['loss'] for row in rows):.3f} nats"
            yield figure(
                f"pretrain.worth_{trick.replace(' ', '_')}",
                "s",
                equal,
                [r["seconds"] for r in rows],
                what,
                THREADS,
            )


def seconds_to(curve: Sequence[dict[str, float]], loss: float) -> float:
    """Where the line through the trainings (log of their seconds, loss) meets `loss`; the outermost pieces go
    on straight.
    """
    points = sorted((math.log(row["seconds"]), row["loss"]) for row in curve)
    for (x0, y0), (x1, y1) in pairwise(points):
        if y1 <= loss or (x1, y1) == points[-1]:
            return math.exp(x0 + (x1 - x0) * (loss - y0) / (y1 - y0))
    raise AssertionError


def prepare(text: str | Path, folder: str | Path) -> None:
    """Tokenizer and shards of the texts; the last tenth of them is the validation."""
    folder = Path(folder)
    texts = [part.decode() for part in read_texts(text)]
    tokenizer = train_tokenizer(texts, VOCABULARY, threads=THREADS)
    ids = [np.asarray(row) for row in tokenizer.encode_batch(texts, THREADS)]
    sizes = [len(part.encode()) for part in texts]
    rows = [(str(number), *pair) for number, pair in enumerate(zip(ids, sizes, strict=True))]
    cut = max(1, len(rows) // 10)
    train, val = (
        write_split(folder, name, part, tokenizer.eot, "uint16")
        for name, part in (("train", rows[:-cut]), ("val", rows[-cut:]))
    )
    write_index(
        folder,
        ShardIndex(dtype="uint16", vocab_size=tokenizer.vocab_size, eot=tokenizer.eot, train=train, val=val),
    )


def _curve(folder: Path, seconds: float, seed: int) -> list[dict[str, float]]:
    return [run_once(folder, Training(seconds=seconds * share, seed=seed)) for share in SHARES]


def run_once(folder: str | Path, training: Training) -> dict[str, float]:
    """In a process of its own: the loss in nats a token, seconds, steps."""
    command = [
        sys.executable,
        "-m",
        "crawltalk.bench.time_to_loss",
        str(folder),
        json.dumps(dataclasses.asdict(training)),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{training} failed ({(done.stderr.strip().splitlines() or ['no message'])[-1]})")
    return json.loads(done.stdout)


def cpu_seconds() -> float:
    """Of this process, per thread."""
    return time.process_time() / THREADS


def main(folder: str | Path, training: Training) -> None:
    """Train one side; print the validation loss in nats a token, and the seconds."""
    torch.set_num_threads(THREADS)
    folder = Path(folder)
    shards = TokenShards(folder, "train")
    model, seconds, steps = (_ours if training.side == "ours" else _baseline)(shards, training)
    validation = TokenShards(folder, "val").window
    size = len(TokenShards(folder, "val"))
    parts = [validation(part * (size // 16), VALIDATION // 16 + 1) for part in range(16)]
    nats = counted = 0.0
    with torch.no_grad():
        for part in parts:
            tokens = torch.from_numpy(part)
            inputs, targets = tokens[:-1].view(-1, CONTEXT), tokens[1:].view(-1, CONTEXT)
            total, count, _ = plain_cross_entropy(model, Batch(inputs, targets))
            nats, counted = nats + float(total), counted + float(count)
    print(json.dumps({"loss": nats / counted, "seconds": seconds, "steps": steps}))


def _steps(step: Callable[[], Any], seconds: float) -> int:
    """How many of these steps the time allows."""
    step()
    began = cpu_seconds()
    for _ in range(3):
        step()
    return max(10, round(seconds / ((cpu_seconds() - began) / 3)))


def _ours(shards: TokenShards, training: Training) -> tuple[Transformer, float, int]:
    """What `crawltalk pretrain` does."""
    _leave_out(training.without)
    objective: Objective = plain_cross_entropy if training.without == "fused loss" else cross_entropy
    batches = windows(shards, OUR_BATCH // CONTEXT, CONTEXT, training.seed)
    width = training.width
    model = Model(
        family=training.family, depth=training.depth, width=width, heads=4, kv_heads=4, context=CONTEXT
    )
    shape = shape_of(dataclasses.replace(model, mlp=inner_size(model, width)), shards.index.vocab_size)

    def fit(steps: int, model: Transformer, out: Path) -> float:
        out.mkdir()
        began = cpu_seconds()
        machine = Machine(
            workers=THREADS, device="cpu", dtype="float32" if training.without == "bf16" else training.dtype
        )
        options = loop.TrainingOptions(
            steps=steps, optim=OURS, machine=machine, progress=Progress(), out=out, save_every=10**9
        )
        loop.fit(model, batches, objective, options)
        return cpu_seconds() - began

    with tempfile.TemporaryDirectory() as name:
        model = Transformer(shape)
        model.initialize(training.seed)
        fit(1, model, Path(name) / "first")  # what a process does once is no part of a step
        warm = fit(3, model, Path(name) / "warm")
        long = fit(11, model, Path(name) / "long")
        # a busy machine can make the short training look as slow as the long one
        steps = max(10, round(training.seconds / max((long - warm) / 8, long / 22)))
        model.initialize(training.seed)
        took = fit(steps, model, Path(name) / "real")
    return model, took, steps


def _leave_out(trick: str) -> None:
    """Replace one trick by what plain PyTorch does; the fused loss is an objective."""
    if trick == "attention":
        vars(functions)["LONG"] = 0
    elif trick == "Muon":
        vars(loop)["make_optimizers"] = lambda model, *_: (
            torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), foreach=True),
        )
    elif trick == "allocator":
        loop.keep_freed_memory = lambda: None


def plain_cross_entropy(model: nn.Module, batch: Batch) -> tuple[Tensor, int, Figures]:
    """The objective that PyTorch has, of all targets: the logits of all positions exist at once."""
    logits = model(batch.tokens).float().flatten(0, 1)
    return F.cross_entropy(logits, batch.targets.flatten(), reduction="sum"), batch.targets.numel(), {}


class NanoGPT(nn.Module):
    """GPT-2's shape as nanoGPT has it (Karpathy 2022): no biases, no dropout, tied embeddings, plain logits
    of all positions.
    """

    def __init__(self, vocabulary: int, depth: int, width: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(NanoBlock(width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, bias=False), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(
                    weight, 0.0, 0.02 / (math.sqrt(2 * depth) if ".out." in name or ".down." in name else 1.0)
                )

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x = self.tokens(tokens_BT) + self.positions.weight[: tokens_BT.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class NanoBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        heads = (
            part.unflatten(2, (4, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=2)
        )
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def _baseline(shards: TokenShards, training: Training) -> tuple[NanoGPT, float, int]:
    """Micro-batches of 4,096 tokens, as ours; fused AdamW."""
    assert training.lr is not None
    assert training.batch is not None
    torch.manual_seed(training.seed)
    batches = windows(shards, training.batch // CONTEXT, CONTEXT, training.seed)
    dtype = compute_dtype(Machine(device="cpu", dtype=training.dtype))
    autocast = torch.autocast("cpu", dtype) if dtype == torch.bfloat16 else nullcontext()

    def start() -> tuple[NanoGPT, torch.optim.Optimizer]:
        model = NanoGPT(shards.index.vocab_size, training.depth, training.width)
        matrices = [p for p in model.parameters() if p.ndim == 2]
        vectors = [p for p in model.parameters() if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        return model, torch.optim.AdamW(groups, lr=training.lr, betas=(0.9, 0.95), fused=True)

    def step(model: NanoGPT, optimizer: torch.optim.Optimizer, number: int) -> None:
        batch, rows = batches(number), 4096 // CONTEXT
        for first in range(0, len(batch), rows):
            with autocast:
                total, _, _ = plain_cross_entropy(model, batch[first : first + rows])
            (total / batch.targets.numel()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    model, optimizer = start()
    steps = _steps(lambda: step(model, optimizer, 0), training.seconds)
    model, optimizer = start()
    began = cpu_seconds()
    for number in range(steps):
        warmup = max(1, round(0.02 * steps))
        fall = 0.5 * (1 + math.cos(math.pi * max(0, number - warmup) / (steps - warmup)))
        for group in optimizer.param_groups:
            group["lr"] = training.lr * min((number + 1) / warmup, 0.1 + 0.9 * fall)
        step(model, optimizer, number)
    return model, cpu_seconds() - began, steps


if __name__ == "__main__":
    main(Path(sys.argv[1]), Training(**json.loads(sys.argv[2])))
