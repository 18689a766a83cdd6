"""The sweep stage: small models on the run's tokens, and the line through their losses that predicts the loss
of a larger one (Kaplan et al. 2020).
"""

import dataclasses
import json
import math
import shutil
from typing import Any

from crawltalk import recipe
from crawltalk.core.files import write_atomically
from crawltalk.core.shards import TokenShards
from crawltalk.pretraining.pretrain import pretrain
from crawltalk.recipe import cost
from crawltalk.recipe.recipe import derive_pretrain
from crawltalk.recipe.size import fit_to_corpus
from crawltalk.run.stage import STATE, Job, Metrics

STEPS = 200
"""Optimizer steps of a small model, at least: with fewer the schedule decides the loss, not the size."""


def sweep(job: Job[recipe.Sweep]) -> Metrics:
    """Train the small models, fit their validation losses against compute; writes scaling.json."""
    assert job.config.pretrain is not None
    shards = TokenShards(job.inputs["tokens"], "train")
    vocab_size = shards.index.vocab_size
    target = fit_to_corpus(job.config.pretrain, vocab_size, len(shards))
    (job.out / STATE).mkdir(exist_ok=True)
    rows = [_train(job, smaller(target, depth, vocab_size), vocab_size) for depth in job.config.depths]
    flop = cost.training_flops(target.model, vocab_size, target.tokens or 0)
    slope, level = fit_power(rows)
    result = {
        "models": rows,
        "exponent": round(slope, 4),
        "flop": flop,
        "predicted": round(math.exp(level + slope * math.log(flop)), 4),
    }
    write_atomically(job.out / "scaling.json", json.dumps(result, indent=2).encode())
    return {"models": len(rows), "exponent": result["exponent"], "predicted": result["predicted"]}


def smaller(target: recipe.Pretrain, depth: int, vocab_size: int) -> recipe.Pretrain:
    """The training of a model of another depth, with as many tokens a parameter and at least `STEPS` steps."""
    share = (target.tokens or 0) / cost.parameters(target.model, vocab_size)
    model = dataclasses.replace(target.model, depth=depth, width=None, heads=None, kv_heads=None, mlp=None)
    tokens = round(share * cost.parameters(model, vocab_size))
    copy = dataclasses.replace(
        target,
        model=model,
        tokens=tokens,
        flop=None,
        batch_tokens=max(target.model.context, min(target.batch_tokens, tokens // STEPS)),
        optim=dataclasses.replace(target.optim, muon_lr=None, adamw_lr=None),
        eval_every=10**9,
        save_every=STEPS,
        keep_every=0,
        resume_from="",
        prompts=(),
    )
    return derive_pretrain(copy, vocab_size)


def _train(job: Job[recipe.Sweep], config: recipe.Pretrain, vocab_size: int) -> dict[str, Any]:
    """The figures of one model; an interrupted training continues, a finished one is not repeated."""
    depth = config.model.depth
    out, done = job.out / STATE / f"depth-{depth}", job.out / STATE / f"depth-{depth}.json"
    if done.exists():
        return json.loads(done.read_bytes())
    out.mkdir(exist_ok=True)
    metrics = pretrain(Job(config, job.inputs, out, job.seed, job.machine, job.progress))
    row = {
        "depth": depth,
        "parameters": metrics["parameters"],
        "tokens": metrics["tokens"],
        "flop": cost.training_flops(config.model, vocab_size, int(metrics["tokens"])),
        "bits_per_byte": metrics["val_bpb"],
    }
    write_atomically(done, json.dumps(row).encode())
    shutil.rmtree(out)
    job.progress.note(f"depth {depth}: {row['bits_per_byte']} bits per byte")
    return row


def fit_power(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Slope and level of the straight line through (log FLOP, log bits per byte), by least squares."""
    xs, ys = ([math.log(row[name]) for row in rows] for name in ("flop", "bits_per_byte"))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
    return slope, y - slope * x
