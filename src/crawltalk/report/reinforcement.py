"""The chapter on reinforcement: accuracy and length of the replies against steps, and replies at several steps."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from crawltalk.core.statistics import wilson
from crawltalk.report.chapter import Chapter
from crawltalk.report.html import lines_figure, percent, table, text
from crawltalk.report.inputs import ReportJob, rows_of
from crawltalk.report.words import words

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
BANDS = (
    " Bands are Wilson's intervals at 95 %, for other problems of the kind. An evaluation asks the same ones each "
    "time, so a change between two is usually surer than bands that overlap suggest."
)
_SHOWN = 1200
"""Characters of a reply."""


def reinforcement(job: ReportJob) -> Chapter | None:
    """Each training that sampled replies and had them rewarded."""
    names = [name for name in job.models if (job.inputs[name] / "rollouts.jsonl").exists()]
    if not names:
        return None
    logs = {name: rows_of(job.inputs[name] / "log.jsonl") for name in names}
    first, *others = names
    return Chapter(
        "The assistant practised: it wrote several replies to each problem, and what led to better ones was made more "
        "likely. " + " ".join(_sentence(name, logs[name], len(names) > 1) for name in names),
        figure=_curves(logs[first]),
        reading=_samples(job.inputs[first]),
        details=[
            *((f"{name}: the curves", _curves(logs[name]) + _samples(job.inputs[name])) for name in others),
            *((f"{name} in figures", _table(logs[name])) for name in names),
        ],
        commands=[f"crawltalk {name} {job.inputs[name].parent}" for name in names],
    )


def _sentence(name: str, rows: Sequence[dict[str, Any]], named: bool) -> str:
    """What changed from the first tenth of the steps to the last one."""
    steps = [row for row in rows if "reward" in row]
    tenth = max(1, len(steps) // 10)
    about = f"In {text(name)}, " if named else ""
    figure, what = ("reward", "the mean reward") if _scored(rows) else ("accuracy", "right replies")
    before, after = _mean(steps[:tenth], figure), _mean(steps[-tenth:], figure)
    shown = (percent(before), percent(after)) if figure == "accuracy" else (f"{before:.2f}", f"{after:.2f}")
    length = [_mean(part, "length") for part in (steps[:tenth], steps[-tenth:])]
    sentence = (
        f"{about}{what} went from {shown[0]} to {shown[1]} in {len(steps)} steps, and a reply from {length[0]:.0f} "
        f"tokens to {length[1]:.0f}."
    )
    return sentence[0].upper() + sentence[1:]


def _scored(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether a reward model scored the replies, so that none is right or wrong."""
    return any("reward.held_out" in row for row in rows)


def _curves(rows: Sequence[dict[str, Any]]) -> str:
    if _scored(rows):
        curve = _figure(
            rows,
            "reward",
            "score",
            "What the reward model gives to the replies that it learned from, and to those to held-out prompts.",
        )
    else:
        bands = _intervals(rows)
        curve = _figure(
            rows,
            "accuracy",
            "share of right replies",
            "Right replies among those that it learned from; by the name of a task, to problems that are never "
            "trained on." + (BANDS if bands else ""),
            bands,
        )
    return curve + _figure(rows, "length", "tokens", "The length of the same replies.")


def _intervals(rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Task -> the interval of its accuracy at each evaluation, if the log says of all how many problems were asked."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for task, asked in row.get("asked", {}).items():
            found.setdefault(task, []).append(wilson(row[f"accuracy.{task}"] * asked, asked))
    evaluations = {task: sum(f"accuracy.{task}" in row for row in rows) for task in found}
    return {task: bounds for task, bounds in found.items() if len(bounds) == evaluations[task]}


def _figure(
    rows: Sequence[dict[str, Any]],
    name: str,
    unit: str,
    caption: str,
    bands: Mapping[str, Sequence[tuple[float, float]]] = {},
) -> str:
    """A figure of each step, and those of the evaluations, one for each task: `accuracy`, `accuracy.arithmetic`."""
    keys = dict.fromkeys(key for row in rows for key in row if key.split(".")[0] == name)
    series: list[tuple[str, list[float], list[float]]] = []
    for key in keys:
        measured = [row for row in rows if row.get(key) is not None]
        label = key.partition(".")[2] or "sampled"
        series.append((label, [row["step"] for row in measured], [row[key] for row in measured]))
    return lines_figure(series, "step", unit, caption, bands=bands)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """The means over the first and the last tenth of the steps."""
    steps = [row for row in rows if "reward" in row]
    tenth = max(1, len(steps) // 10)
    wanted = [name for name in FIGURES if name not in ("accuracy", "pass_at_k") or not _scored(rows)]
    found = [name for name in wanted if any(row.get(name) is not None for row in steps)]
    parts = [(words(name), _mean(steps[:tenth], name), _mean(steps[-tenth:], name)) for name in found]
    return table(("figure", f"first {text(tenth)} steps", f"last {text(tenth)} steps"), parts)


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    values = [row[name] for row in rows if row.get(name) is not None]
    return round(sum(values) / len(values), 4) if values else float("nan")


def _samples(folder: Path) -> str:
    """The same problems, one of each task, at several steps."""
    rows = rows_of(folder / "samples.jsonl")
    at = sorted({row["step"] for row in rows})
    chosen = [at[round(index * (len(at) - 1) / max(1, STEPS - 1))] for index in range(STEPS)] if at else []
    first = {row["task"]: row["prompt"] for row in reversed(rows)}
    shown = "".join(
        f'<div class="label">step {text(row["step"])}, {text(row["prompt"])} ({_worth(row)})</div>'
        f"<pre>{escape(row['reply'][:_SHOWN])}</pre>"
        for task, prompt in sorted(first.items())
        for step in dict.fromkeys(chosen)
        for row in rows
        if (row["step"], row["task"], row["prompt"]) == (step, task, prompt)
    )
    return f"<h3>What it replies, at several steps</h3>{shown}" if shown else ""


def _worth(row: dict[str, Any]) -> str:
    """The right answer, or, where there is none, what a reward model gave."""
    return f"right: {text(row['answer'])}" if "answer" in row else f"reward: {text(row['reward'])}"
