"""The section on reinforcement: accuracy and length of the replies against steps, and replies at several steps."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from crawltalk import recipe
from crawltalk.report.html import command, lines_figure, table, text
from crawltalk.run.stage import Job

STEPS = 4
"""At which replies are shown."""
FIGURES = (
    "reward",
    "accuracy",
    "pass_at_k",
    "length",
    "entropy",
    "kl",
    "clip_share",
    "groups_without_signal",
)
"""Of the table: those of log.jsonl that a training has."""
_SHOWN = 1200
"""Characters of a reply."""


def reinforcement(job: Job[recipe.Report]) -> str | None:
    """Each training that sampled replies and had them rewarded."""
    folders = [
        (name, job.inputs[name]) for name in job.models if (job.inputs[name] / "rollouts.jsonl").exists()
    ]
    return "".join(_training(name, folder, len(folders) > 1) for name, folder in folders) or None


def _training(name: str, folder: Path, named: bool) -> str:
    rows = _rows(folder / "log.jsonl")
    steps = [row for row in rows if "reward" in row]
    title = f"<h3>{text(name)}</h3>" if named else ""
    accuracy = _figure(
        rows,
        "accuracy",
        "share of right replies",
        "Right replies among those that it learned from; by the name of a task, to problems that are never trained on.",
    )
    length = _figure(rows, "length", "tokens", "The length of the same replies.")
    return (
        title
        + accuracy
        + length
        + _table(steps)
        + _samples(folder)
        + command(f"crawltalk {name} {folder.parent}")
    )


def _figure(rows: Sequence[dict[str, Any]], name: str, unit: str, caption: str) -> str:
    """A figure of each step, and those of the evaluations, one for each task: `accuracy`, `accuracy.arithmetic`."""
    keys = dict.fromkeys(key for row in rows for key in row if key.split(".")[0] == name)
    series: list[tuple[str, list[float], list[float]]] = []
    for key in keys:
        measured = [row for row in rows if row.get(key) is not None]
        label = key.partition(".")[2] or "sampled"
        series.append((label, [row["step"] for row in measured], [row[key] for row in measured]))
    return lines_figure(series, "step", unit, caption)


def _table(steps: Sequence[dict[str, Any]]) -> str:
    """The means over the first and the last tenth of the steps."""
    tenth = max(1, len(steps) // 10)
    found = [name for name in FIGURES if any(row.get(name) is not None for row in steps)]
    parts = [(name, _mean(steps[:tenth], name), _mean(steps[-tenth:], name)) for name in found]
    return table(("figure", f"first {text(tenth)} steps", f"last {text(tenth)} steps"), parts)


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    values = [row[name] for row in rows if row.get(name) is not None]
    return round(sum(values) / len(values), 4) if values else float("nan")


def _samples(folder: Path) -> str:
    """The same problems, one of each task, at several steps."""
    rows = _rows(folder / "samples.jsonl")
    at = sorted({row["step"] for row in rows})
    chosen = [at[round(index * (len(at) - 1) / max(1, STEPS - 1))] for index in range(STEPS)] if at else []
    first = {row["task"]: row["prompt"] for row in reversed(rows)}
    shown = "".join(
        f'<div class="label">step {text(row["step"])}, {text(row["prompt"])} (right: {text(row["answer"])})</div>'
        f"<pre>{escape(row['reply'][:_SHOWN])}</pre>"
        for task, prompt in sorted(first.items())
        for step in dict.fromkeys(chosen)
        for row in rows
        if (row["step"], row["task"], row["prompt"]) == (step, task, prompt)
    )
    return f"<h3>What it replies, at several steps</h3>{shown}" if shown else ""


def _rows(path: Path) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )
