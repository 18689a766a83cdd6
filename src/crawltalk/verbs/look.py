"""Verbs that look at runs and recipes. None of them imports torch or changes anything."""

import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from crawltalk.pipeline import stages
from crawltalk.recipe import cost
from crawltalk.recipe.differences import differences, flatten
from crawltalk.recipe.keys import KEYS
from crawltalk.recipe.layers import load_recipe, preset_names
from crawltalk.recipe.toml import to_toml
from crawltalk.run.console import clock, console, number, print_table, size
from crawltalk.run.folder import find_run

Json = Annotated[bool, Parameter(negative=(), help="Print one JSON object instead.")]


def status(path: Path = Path("runs/small"), *, json: Json = False) -> None:
    """Where each stage of a run stands: state, seconds, CPU seconds, peak memory, metrics."""
    run = find_run(path)
    recipe = run.recipe()
    states = run.states(stages(recipe), recipe)
    rows: list[dict[str, Any]] = []
    for name, state in states.items():
        row: dict[str, Any] = {"stage": name, "state": state.state, "reasons": list(state.reasons)}
        if state.manifest is not None:
            keys = ("seconds", "cpu_seconds", "peak_memory_bytes", "attempts", "joules", "dollars", "metrics")
            row |= {key: getattr(state.manifest, key) for key in keys}
        rows.append(row)
    if json:
        print(dumps({"run": str(run.path), "stages": rows}, ensure_ascii=False))
        return
    table = []
    for row in rows:
        if "seconds" not in row:
            table.append((row["stage"], row["state"], "", "", "", ""))
            continue
        figures = "; ".join(row["reasons"]) or "  ".join(
            f"{k} {number(v)}" for k, v in list(row["metrics"].items())[:4]
        )
        memory = size(row["peak_memory_bytes"])
        table.append(
            (row["stage"], row["state"], clock(row["seconds"]), clock(row["cpu_seconds"]), memory, figures)
        )
    print_table(("stage", "state", "time", "CPU", "memory", "figures"), table)
    seconds = sum(row.get("seconds", 0) for row in rows)
    joules, dollars = (sum(row.get(name) or 0 for row in rows) for name in ("joules", "dollars"))
    known = (f", {joules / 1000:,.1f} kJ" if joules else "") + (
        f", {dollars:,.2f} dollars" if dollars else ""
    )
    console.print(
        f"all stages: {clock(seconds)}, CPU {clock(sum(row.get('cpu_seconds', 0) for row in rows))}{known}"
    )


def presets(name: str | None = None) -> None:
    """The built-in presets, or one of them with every value spelled out."""
    if name is not None:
        recipe = load_recipe(name)
        values = flatten(recipe)
        absent = ", ".join(key for key in KEYS if values.get(key, "") is None)
        sys.stdout.write(f"{to_toml(recipe)}\n# absent, so off or looked up when a stage starts: {absent}\n")
        return
    rows = []
    for preset in preset_names():
        recipe = load_recipe(preset)
        model, vocab_size = recipe.pretrain.model, recipe.tokenizer.vocab_size
        parameters = tokens = "by corpus"
        if model.depth is not None and vocab_size is not None:
            parameters = f"{cost.parameters(model, vocab_size) / 1e6:,.1f} M"
            tokens = f"{(recipe.pretrain.tokens or 0) / 1e6:,.0f} M"
        rows.append((preset, parameters, tokens, recipe.about))
    print_table(("preset", "parameters", "tokens", "about"), rows)
    console.print("all values of one: crawltalk presets small")


def diff(left: Path, right: Path, *, json: Json = False) -> None:
    """What differs between two runs: recipe fields and metrics."""
    runs = find_run(left), find_run(right)
    recipes = [run.recipe() for run in runs]
    fields = differences(flatten(recipes[0]), flatten(recipes[1]))
    metrics: list[tuple[str, Any, Any]] = []
    for stage in dict.fromkeys(stage.name for recipe in recipes for stage in stages(recipe)):
        both = [manifest.metrics if (manifest := run.manifest(stage)) else {} for run in runs]
        for name in dict.fromkeys([*both[0], *both[1]]):
            if both[0].get(name) != both[1].get(name):
                metrics.append((f"{stage}.{name}", both[0].get(name, "absent"), both[1].get(name, "absent")))
    if json:
        print(dumps({"recipe": fields, "metrics": [list(row) for row in metrics]}, ensure_ascii=False))
        return
    console.print("\n".join(fields) or "the recipes are the same", markup=False)
    if metrics:
        print_table(
            ("metric", str(left), str(right)), [(name, number(a), number(b)) for name, a, b in metrics]
        )
