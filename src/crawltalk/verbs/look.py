"""Verbs that look: status, show, presets, doctor, diff. None of them imports torch or changes anything."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core import budget
from crawltalk.core.config import differences, flatten, load_recipe, preset_names, to_toml
from crawltalk.core.console import clock, console, number, print_table, size
from crawltalk.core.errors import MissingInput
from crawltalk.core.run import RunFolder
from crawltalk.pipeline import STAGES


def status(path: Path, *, as_json: bool) -> None:
    """Where each stage of a run stands: state, seconds, CPU seconds, peak memory, metrics."""
    run = RunFolder(path)
    states = run.states(STAGES, run.recipe())
    rows: list[dict[str, Any]] = []
    for name, state in states.items():
        row: dict[str, Any] = {"stage": name, "state": state.state, "reasons": list(state.reasons)}
        if state.manifest is not None:
            keys = ("seconds", "cpu_seconds", "peak_memory_bytes", "attempts", "metrics")
            row |= {key: getattr(state.manifest, key) for key in keys}
        rows.append(row)
    if as_json:
        print(json.dumps({"run": str(path), "stages": rows}, ensure_ascii=False))
        return
    table = []
    for row in rows:
        if "seconds" not in row:
            table.append((row["stage"], row["state"], "", "", "", ""))
            continue
        what = "; ".join(row["reasons"]) or "  ".join(f"{k} {number(v)}" for k, v in list(row["metrics"].items())[:4])
        memory = size(row["peak_memory_bytes"])
        table.append((row["stage"], row["state"], clock(row["seconds"]), clock(row["cpu_seconds"]), memory, what))
    print_table(("stage", "state", "time", "CPU", "memory", "figures"), table)
    seconds = sum(row.get("seconds", 0) for row in rows)
    console.print(f"all stages: {clock(seconds)}, CPU {clock(sum(row.get('cpu_seconds', 0) for row in rows))}")


def presets(name: str | None) -> None:
    """The built-in presets, or one of them with every value spelled out."""
    if name is not None:
        sys.stdout.write(to_toml(load_recipe(name)))
        return
    rows = []
    for preset in preset_names():
        recipe = load_recipe(preset)
        count = budget.parameters(recipe.pretrain.model, recipe.tokenizer.vocab_size)
        rows.append((preset, f"{count / 1e6:,.1f} M", f"{(recipe.pretrain.tokens or 0) / 1e6:,.0f} M", recipe.about))
    print_table(("preset", "parameters", "tokens", "about"), rows)
    console.print("all values of one: crawltalk presets small")


def diff(left: Path, right: Path, *, as_json: bool) -> None:
    """What differs between two runs: recipe fields and metrics."""
    runs = RunFolder(left), RunFolder(right)
    recipes = [flatten(run.recipe()) for run in runs]
    fields = differences(recipes[0], recipes[1])
    metrics: list[tuple[str, Any, Any]] = []
    for stage in STAGES:
        both = [manifest.metrics if (manifest := run.manifest(stage.name)) else {} for run in runs]
        for name in dict.fromkeys([*both[0], *both[1]]):
            if both[0].get(name) != both[1].get(name):
                metrics.append((f"{stage.name}.{name}", both[0].get(name, "absent"), both[1].get(name, "absent")))
    if as_json:
        print(json.dumps({"recipe": fields, "metrics": [list(row) for row in metrics]}, ensure_ascii=False))
        return
    console.print("\n".join(fields) or "the recipes are the same", markup=False)
    if metrics:
        print_table(("metric", str(left), str(right)), [(name, number(a), number(b)) for name, a, b in metrics])


def show(path: Path, *, rows: int, find: str | None) -> None:
    """Any artifact, readable: Parquet, JSONL, JSON, TOML, token shards, safetensors, WARC, text, or a folder."""
    if not path.exists():
        raise MissingInput(f"{path} is not there; what a run holds: crawltalk show runs/small")
    if path.is_dir():
        _show_folder(path)
    elif path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
        console.print(f"{path}: {table.num_rows:,} rows; {', '.join(table.column_names)}", markup=False)
        _show_rows(table.to_pylist(), rows, find)
    elif path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").splitlines()
        console.print(f"{path}: {len(lines):,} rows", markup=False)
        _show_rows([json.loads(line) for line in lines], rows, find)
    elif path.suffix == ".json":
        console.print(msgspec.json.format(path.read_bytes()).decode()[:20_000], markup=False, soft_wrap=True)
    elif path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            print_table(
                ("tensor", "type", "shape"), [(n, s.get_dtype(), " x ".join(map(str, s.get_shape()))) for n, s in slices.items()]
            )
    elif path.suffix == ".bin":
        _show_tokens(path, rows)
    elif path.name.endswith((".warc.gz", ".warc")):
        _show_warc(path, rows)
    else:
        console.print(path.read_text(encoding="utf-8", errors="replace")[:20_000], markup=False, soft_wrap=True)


def _show_folder(path: Path) -> None:
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and ".work" not in file.parts]
    print_table(("file", "size"), [(str(file), size(file.stat().st_size)) for file in files])


def _show_rows(table: list[dict[str, Any]], rows: int, find: str | None) -> None:
    if find is not None:
        table = [row for row in table if find.lower() in json.dumps(row, ensure_ascii=False, default=str).lower()]
        console.print(f"{len(table):,} rows contain {find!r}", markup=False)
    for row in table[:rows]:
        console.rule(characters="-")
        for key, value in row.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            console.print(f"{key}: {text[:2000]}", markup=False, soft_wrap=True)


def _show_tokens(path: Path, rows: int) -> None:
    from crawltalk.core.shards import TokenShards
    from crawltalk.tokenizer import Tokenizer

    split = path.name.split("-")[0]
    shards = TokenShards(path.parent, split)
    console.print(f"{path}: {len(shards):,} tokens in the split {split!r}; the first {rows * 100}:", markup=False)
    tokenizer = Tokenizer.load(path.parent.parent / "tokenizer")
    console.print(tokenizer.decode(shards.window(0, min(rows * 100, len(shards))).tolist()), markup=False, soft_wrap=True)


def _show_warc(path: Path, rows: int) -> None:
    from fastwarc.warc import ArchiveIterator

    for index, record in enumerate(ArchiveIterator(str(path))):
        if index == rows:
            break
        console.rule(characters="-")
        for key, value in [*record.headers.items(), *(record.http_headers.items() if record.http_headers else ())]:
            console.print(f"{key}: {value}", markup=False, soft_wrap=True)
        console.print(record.reader.read(1500).decode("utf-8", errors="replace"), markup=False, soft_wrap=True)


def doctor() -> bool:
    """Check what the journey needs on this machine: Python, memory, disk, packages, the sample, the language model."""
    from crawltalk.verbs.doctor import checks

    results = checks()
    for good, name, text in results:
        console.print(f"{'[green]ok[/] ' if good else '[red]no[/] '} {name}: ", end="")
        console.print(text, markup=False, soft_wrap=True)
    return all(good for good, _, _ in results)
