"""Two runs side by side: what was set differently, and what came of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crawltalk.core.errors import MissingInput
from crawltalk.core.statistics import NORMAL
from crawltalk.pipeline import BENCHMARKS, stages
from crawltalk.report.assistant import KINDS
from crawltalk.report.benchmarks import benchmarks_of, is_old, scores_table
from crawltalk.report.html import lines_figure, page, table, text
from crawltalk.report.inputs import json_of, rows_of
from crawltalk.report.words import words
from crawltalk.run.folder import RunFolder
from crawltalk.run.manifest import Manifest

SPEED = ("tokens_per_second", "peak_fraction", "peak_gflops")
"""Figures of the machine and of how busy it was."""


def comparison(first: RunFolder, second: RunFolder) -> str:
    """One HTML file. Raises MissingInput if one of the runs has no scores yet."""
    names = _names(first.path, second.path)
    before, after = _manifests(first), _manifests(second)
    changed = _settings(before, after)
    made = _made(before, after)
    scores = [_scores(run) for run in (first, second)]
    rows = _differences(*scores)
    moved = [row for row in rows if row[-1]]
    sentence = f"{text(names[0])} and {text(names[1])} differ in {_counted(len(changed), 'setting')}. " + (
        f"Of {len(rows)} scores {len(moved)} differ by more than chance explains (95 %): "
        f"{', '.join(f'{text(row[0])} ({row[3]:+.2f})' for row in moved)}."
        if moved
        else f"None of {len(rows)} scores differs by more than chance explains (95 %)."
    )
    shared = [
        name for name in before if name in after and before[name].fingerprint == after[name].fingerprint
    ]
    cpu = [sum(manifest.cpu_seconds for manifest in manifests.values()) for manifests in (before, after)]
    return page(
        f"{names[0]} and {names[1]}",
        f'<main><header><h1>{text(names[0])} and {text(names[1])}</h1><p class="lead">{sentence}</p></header>'
        f"<section><h2>What was set differently</h2>{table(('setting', *names), changed)}"
        f'<p class="soft">Built from the same inputs by the same settings: {text(", ".join(shared) or "nothing")}.</p>'
        f"</section><section><h2>What the stages made of it</h2>{table(('stage', 'figure', *names), made)}"
        "</section><section><h2>What the models can do</h2>"
        + table(
            ("score", *names, "difference", "standard error of it", "beyond chance", "what it is"),
            [(*row[:5], "yes" if row[5] else "", scores[0][row[0]].get("about", "")) for row in rows],
        )
        + f"</section>{_benchmarks(first, second, names)}"
        f"<section><h2>The trainings</h2>{_curves(first, second, names)}</section>"
        f"<section><h2>Cost</h2>{_costs(before, after, names)}"
        f'<p class="soft">CPU seconds in all: {cpu[0]:,.0f} and {cpu[1]:,.0f}.</p></section></main>',
    )


def _names(*paths: Path) -> tuple[str, str]:
    """What tells the two apart: the last parts of their paths, or the whole ones."""
    first, second = (path.name for path in paths)
    return (first, second) if first != second else (str(paths[0]), str(paths[1]))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _manifests(run: RunFolder) -> dict[str, Manifest]:
    found = {stage.name: run.manifest(stage.name) for stage in stages(run.recipe())}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def _settings(before: Mapping[str, Manifest], after: Mapping[str, Manifest]) -> list[tuple[str, str, str]]:
    """(setting, its value in the first run, in the second one), of what is not the same."""
    flat = [
        {
            f"{name}: {key}": value
            for name, manifest in manifests.items()
            for key, value in manifest.config.items()
        }
        for manifests in (before, after)
    ]
    return [
        (key, _shown(flat[0].get(key, "-")), _shown(flat[1].get(key, "-")))
        for key in dict.fromkeys([*flat[0], *flat[1]])
        if flat[0].get(key) != flat[1].get(key)
    ]


def _shown(value: Any) -> str:
    """A setting as one would write it: a list as words between commas."""
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _made(before: Mapping[str, Manifest], after: Mapping[str, Manifest]) -> list[tuple[str, str, Any, Any]]:
    """(stage, figure, in the first run, in the second one), of what is not the same and no matter of speed."""
    return [
        (name, words(key), one.metrics.get(key, "-"), other.metrics.get(key, "-"))
        for name, one in before.items()
        if (other := after.get(name)) is not None and name not in ("evals", "report")
        for key in dict.fromkeys([*one.metrics, *other.metrics])
        if key not in SPEED and one.metrics.get(key) != other.metrics.get(key)
    ]


def _scores(run: RunFolder) -> dict[str, Any]:
    path = run.folder("evals") / "scores.json"
    if not path.exists():
        raise MissingInput(f"{run.path} has no scores yet; make them with: crawltalk evals {run.path}")
    return json_of(path)


def _differences(
    before: dict[str, Any], after: dict[str, Any]
) -> list[tuple[str, float, float, float, Any, bool]]:
    """(score, first, second, difference, its standard error or "-", whether chance does not explain it)."""
    rows = []
    for name, one in before.items():
        if name in after:
            other = after[name]
            difference = round(other["score"] - one["score"], 4)
            errors = (one.get("stderr"), other.get("stderr"))
            error = None if None in errors else math.hypot(*errors)
            rows.append(
                (
                    name,
                    one["score"],
                    other["score"],
                    difference,
                    "-" if error is None else round(error, 4),
                    error is not None and abs(difference) > NORMAL * error,
                )
            )
    return rows


def _benchmarks(first: RunFolder, second: RunFolder, names: tuple[str, str]) -> str:
    """The standard benchmarks of both, those of one task beside each other; rows without scores are left out."""
    found, rows = 0, []
    for run, name in zip((first, second), names, strict=True):
        made = {stage.name: run.manifest(stage.name) for stage in stages(run.recipe())}
        for row in benchmarks_of(run.path / BENCHMARKS):
            found += 1
            if not row.scores:
                continue
            about = f"{name}: {KINDS.get(row.model, row.model)}"
            rows.append((about + (", an earlier one" if is_old(row, made) else ""), row))
    tasks = list(dict.fromkeys(row.task for _, row in rows))
    rows.sort(key=lambda pair: tasks.index(pair[1].task))
    told = scores_table(rows) if rows else "<p>None of the benchmarks that their models took has a score.</p>"
    return f"<section><h2>Standard benchmarks</h2>{told}</section>" if found else ""


def _curves(first: RunFolder, second: RunFolder, names: tuple[str, str]) -> str:
    """The loss of each training that both runs have, in one panel."""
    charts = []
    for stage in stages(first.recipe()):
        logs = [
            [row for row in rows_of(run.folder(stage.name) / "log.jsonl") if "loss" in row]
            for run in (first, second)
        ]
        if stage.makes and all(logs):
            series = [
                (name, [row["step"] for row in log], [row["loss"] for row in log])
                for name, log in zip(names, logs, strict=True)
            ]
            charts.append(
                lines_figure(series, "step", words("loss").split(" of")[0], f"The loss of {stage.name}.")
            )
    return "".join(charts)


def _costs(before: Mapping[str, Manifest], after: Mapping[str, Manifest], names: tuple[str, str]) -> str:
    columns = ("stage", *(f"{what}, {name}" for what in ("CPU seconds", "peak memory, MB") for name in names))
    rows = []
    for stage in dict.fromkeys([*before, *after]):
        both = (before.get(stage), after.get(stage))
        cpu = [round(one.cpu_seconds, 1) if one else "-" for one in both]
        memory = [round(one.peak_memory_bytes / 1e6) if one else "-" for one in both]
        rows.append((stage, *cpu, *memory))
    return table(columns, rows)
