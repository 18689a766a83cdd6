"""How long the preset `small` will take on this machine, from a probe of a few seconds.

Training is most of a journey, so the probe is training: some steps of the one training loop, with the preset's model
and batches, on the threads and in the dtype that the stages will use. All other stages together are scaled by what
Python, regular expressions and gzip do here in a tenth of a second.
"""

import gzip
import json
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.sft import ROW
from crawltalk.pretraining.pretrain import shape_of
from crawltalk.recipe import Recipe
from crawltalk.recipe.layers import load_recipe
from crawltalk.recipe.machine import derive_machine
from crawltalk.run.stage import Progress
from crawltalk.tasks.recall import FORMS, Flagship
from crawltalk.tasks.refusal import Refusal, forms_of_each
from crawltalk.train.batches import IGNORE_INDEX, Batch
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy

PRESET = "small"
CONVERSATION_TOKENS = 34
"""Positions of a conversation of `small` on the average, padding included."""
LEARNED = 0.4
"""Share of these positions that count in the loss."""
SERIAL, PARALLEL = 12.0, 137.0
"""CPU seconds of all stages of `small` beside pretraining and fine-tuning, in a fresh clone: what one core does (crawl,
token shards, index, report), and what is shared among all (data, tokenizer, grpo, evals, and what these compile).
"""
REFERENCE = 0.029
"""Seconds of `_python_work` on the processor (EPYC, Zen 4) on which SERIAL and PARALLEL were measured."""


class Estimate(NamedTuple):
    """Seconds of the journey."""

    pretrain: float
    sft: float
    rest: float

    def describe(self) -> str:
        """In one line."""
        parts = zip(("pretraining", "fine-tuning", "all else"), self, strict=True)
        shares = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in parts)
        return f"{PRESET} takes about {sum(self) / 60:.0f} minutes here ({shares})"


def estimate() -> Estimate:
    """Of the preset `small` on this machine, as busy as it is now."""
    recipe = load_recipe(PRESET)
    workers = derive_machine(recipe.machine).workers or 1
    pretraining, tuning = step_seconds(recipe)
    steps = max(1, (recipe.pretrain.tokens or 0) // recipe.pretrain.batch_tokens)
    positions = recipe.sft.epochs * conversations(recipe) * CONVERSATION_TOKENS
    rest = (SERIAL + PARALLEL / workers) * _python_work() / REFERENCE
    return Estimate(steps * pretraining, positions / recipe.sft.batch_tokens * tuning, rest)


def conversations(recipe: Recipe) -> int:
    """How many the fine-tuning will have: each flagship is asked about in every form and for its topic, each declined
    title in some forms, and a tenth as many again have two exchanges.
    """
    tasks = recipe.sft.tasks
    flagships = tasks.get(Flagship.name, recipe.tokens.flagships)
    counts = sum(count for name, count in tasks.items() if name not in (Flagship.name, Refusal.name))
    asked = recipe.factuality
    titles = asked.rarely + asked.never if asked.samples else tasks.get(Refusal.name, 0)
    return round(1.1 * (counts + forms_of_each(titles) * titles + (FORMS + 1) * flagships))


def step_seconds(recipe: Recipe) -> tuple[float, float]:
    """Seconds of a step of pretraining and of fine-tuning, of random tokens."""
    vocabulary, model = recipe.tokenizer.vocab_size, recipe.pretrain.model
    assert vocabulary is not None
    context = model.context
    shapes = {
        "pretrain": (max(1, recipe.pretrain.batch_tokens // context), context),
        "sft": (max(1, recipe.sft.batch_tokens // ROW), ROW),
    }
    # the first step also makes buffers; the last one ends the time of the one before it
    plan = ("pretrain", "pretrain", "sft", "pretrain", "sft", "sft")
    began: dict[int, float] = {}

    def batches(step: int) -> Batch:
        rows, length = shapes[plan[step]]
        tokens = torch.randint(0, vocabulary, (rows, length + 1))
        targets, documents = tokens[:, 1:].clone(), None
        if plan[step] == "sft":
            targets[torch.rand(targets.shape) > LEARNED] = IGNORE_INDEX
            documents = (torch.arange(length) // CONVERSATION_TOKENS).expand(rows, -1)
        began[step] = time.perf_counter()
        return Batch(tokens[:, :-1], targets, documents)

    net = Transformer(shape_of(model, vocabulary))
    net.initialize(0)
    with tempfile.TemporaryDirectory(prefix="crawltalk-doctor-") as folder:
        options = TrainingOptions(
            steps=len(plan),
            optim=recipe.pretrain.optim,
            machine=derive_machine(recipe.machine),
            progress=Progress(),
            out=Path(folder),
            save_every=len(plan),
        )
        fit(net, batches, cross_entropy, options)
    times = {step: began[step + 1] - began[step] for step in range(1, len(plan) - 1)}
    pretraining, tuning = (
        statistics.mean(seconds for step, seconds in times.items() if plan[step] == kind) for kind in shapes
    )
    return pretraining, tuning


def _python_work() -> float:
    """Seconds of a fixed piece of work of the kind that the other stages do; the median of three."""
    text = " ".join(f"<p>Page {number} of {number % 97} says {number * 7919}.</p>" for number in range(4000))
    times = []
    for _ in range(3):
        began = time.perf_counter()
        words = re.findall(r"\w+|[^\w\s]", text)
        counts: dict[str, int] = {}
        for word in words:
            counts[word] = counts.get(word, 0) + 1
        json.loads(json.dumps(counts))
        gzip.decompress(gzip.compress(text.encode()))
        times.append(time.perf_counter() - began)
    return statistics.median(times)
