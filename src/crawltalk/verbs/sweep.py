"""The verb that asks how far a larger model would get, of small ones that are trained on the same tokens
(Kaplan et al. 2020).
"""

import dataclasses
import json as jsonlib
import math
import shutil
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from crawltalk.core.errors import UserError
from crawltalk.core.files import write_atomically
from crawltalk.recipe import Recipe, cost
from crawltalk.recipe.machine import derive_machine
from crawltalk.recipe.recipe import derive
from crawltalk.run.console import console, print_table
from crawltalk.run.folder import RunFolder
from crawltalk.run.stage import STATE, Job, Progress

STEPS = 200
"""Optimizer steps of a small model, at least: below that the schedule decides, not the size."""
RESULT = Path("lab") / "scaling.json"


def sweep(
    path: Path = Path("runs/small"),
    *,
    depths: Annotated[tuple[int, ...], Parameter(negative=())] = (),
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON object instead.")] = False,
) -> None:
    """Train small models on a run's tokens, fit the validation loss against compute, and predict that of the
    run's own model.

    The result goes to lab/scaling.json in the run, and into its report when that is built again.

    Parameters
    ----------
    depths
        Of the models; 1 up to one less than the run's own, if absent. All have as many tokens a parameter as the run's own.
    """
    run = RunFolder(path)
    run.finished("tokens", "tokenizer")
    recipe = run.recipe()
    chosen = sorted(set(depths)) or list(range(1, recipe.pretrain.model.depth))
    if len(chosen) < 2 or chosen[0] < 1:
        raise UserError(
            f"a line needs two models, of depth 1 or more, not {chosen}; give --depths 1 --depths 2"
        )
    folder = path / RESULT.parent / "scaling"
    rows = []
    with run.lock():
        for depth in chosen:
            rows.append(_train(run, _smaller(recipe, depth), folder / f"depth-{depth}"))
            console.print(f"depth {depth}: {rows[-1]['bits_per_byte']} bits per byte", markup=False)
    flops = cost.training_flops(
        recipe.pretrain.model, recipe.tokenizer.vocab_size, recipe.pretrain.tokens or 0
    )
    slope, level = fit_power(rows)
    manifest = run.manifest("pretrain")
    result = {
        "models": rows,
        "exponent": round(slope, 4),
        "flop": flops,
        "predicted": round(math.exp(level + slope * math.log(flops)), 4),
        "measured": manifest.metrics["val_bpb"] if manifest else None,
    }
    write_atomically(path / RESULT, jsonlib.dumps(result, indent=2).encode())
    # it is no longer the report of all that is there
    (path / "report" / "manifest.json").unlink(missing_ok=True)
    if json:
        print(jsonlib.dumps(result))
        return
    print_table(tuple(rows[0]), [[f"{value:,}" for value in row.values()] for row in rows])
    console.print(
        f"bits per byte ~ FLOP^{slope:.3f}; at the run's own {flops:.2e} FLOP: {result['predicted']} predicted, {result['measured']} "
        f"measured.\nnext: crawltalk report {path}",
        markup=False,
        soft_wrap=True,
    )


def fit_power(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Slope and level of the straight line through (log FLOP, log bits per byte), by least squares."""
    xs, ys = ([math.log(row[name]) for row in rows] for name in ("flop", "bits_per_byte"))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
    return slope, y - slope * x


def _smaller(recipe: Recipe, depth: int) -> Recipe:
    """The recipe of a model of another depth, with as many tokens a parameter and at least `STEPS` steps."""
    own, vocabulary = recipe.pretrain, recipe.tokenizer.vocab_size
    share = (own.tokens or 0) / cost.parameters(own.model, vocabulary)
    model = dataclasses.replace(own.model, depth=depth, width=None, heads=None, kv_heads=None, mlp=None)
    tokens = round(share * cost.parameters(model, vocabulary))
    batch = max(own.model.context, min(own.batch_tokens, tokens // STEPS))
    pretrain = dataclasses.replace(
        own,
        model=model,
        tokens=tokens,
        batch_tokens=batch,
        optim=dataclasses.replace(own.optim, lr=None, adam_lr=None),
        eval_every=10**9,
        save_every=STEPS,
        keep_every=0,
        start="",
        prompts=(),
    )
    return derive(dataclasses.replace(recipe, pretrain=pretrain))


def _train(run: RunFolder, recipe: Recipe, out: Path) -> dict[str, Any]:
    """One model, unless it is there from an earlier call; one that was interrupted goes on."""
    from crawltalk.pretraining.pretrain import pretrain

    tokens = run.manifest("tokens")
    assert tokens is not None
    wanted = jsonlib.dumps(
        [tokens.fingerprint, recipe.seed, dataclasses.asdict(recipe.pretrain)], sort_keys=True
    )
    mark, done = out / "recipe.json", out / "result.json"
    if not (mark.exists() and mark.read_text() == wanted):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        write_atomically(mark, wanted.encode())
    if done.exists():
        return jsonlib.loads(done.read_text())
    inputs = {name: run.folder(name) for name in ("tokens", "tokenizer")}
    metrics = pretrain(
        Job(recipe.pretrain, inputs, out, recipe.seed, derive_machine(recipe.machine), Progress())
    )
    model, vocabulary = recipe.pretrain.model, recipe.tokenizer.vocab_size
    row = {
        "depth": model.depth,
        "parameters": metrics["parameters"],
        "tokens": metrics["tokens"],
        "flop": cost.training_flops(model, vocabulary, int(metrics["tokens"])),
        "bits_per_byte": metrics["val_bpb"],
    }
    write_atomically(done, jsonlib.dumps(row).encode())
    shutil.rmtree(out / STATE, ignore_errors=True)
    return row
