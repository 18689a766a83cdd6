"""What an evaluation writes: one row for each item, means with standard errors, and the comparison of two models on the
same items.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.statistics import mean_stderr


class Result(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One item that a model was asked, and how it did; one line of TASK.jsonl."""

    task: str
    id: str
    """Of the item; the same for every model."""
    prompt: str
    answer: str
    reply: str
    """What the model wrote, or the choice that it finds likeliest."""
    extracted: str | None = None
    """What the answer filter took from the reply, where there is one."""
    scores: dict[str, float]
    """Metric -> from 0 to 1."""
    logprobs: list[float] = []
    """Of each choice."""
    group: dict[str, str] = {}
    """What the item is averaged with: such as the way to answer, or how often its page was seen."""
    tokens: int = 0
    """Tokens that the model generated before its answer."""
    model: str = ""
    """Where a file has rows of several models."""


class Mean(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The mean of a metric over the items of a group."""

    task: str
    group: dict[str, str] = {}
    metric: str
    score: float
    stderr: float
    n: int
    tokens: float = 0.0
    """Generated before the answer, in the mean."""


class Comparison(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Two models on the same items of a group, the second one minus the first."""

    task: str
    group: dict[str, str] = {}
    metric: str
    difference: float
    stderr: float
    """Of the mean of the differences of items: smaller than that of two separate means (Miller 2024, section 4)."""
    better: int
    worse: int
    """Items on which the second model does better, and worse."""
    p: float
    """Of the sign test, two-sided: how often a fair coin is at least so uneven over these items."""
    n: int


def means(results: Iterable[Result]) -> list[Mean]:
    """Of each task, group and metric, in the order in which they occur."""
    found: dict[tuple[str, tuple[tuple[str, str], ...], str], list[Result]] = {}
    for result in results:
        for metric in result.scores:
            found.setdefault((result.task, tuple(result.group.items()), metric), []).append(result)
    rows = []
    for (task, group, metric), members in found.items():
        mean, stderr = mean_stderr([member.scores[metric] for member in members])
        rows.append(
            Mean(
                task=task,
                group=dict(group),
                metric=metric,
                score=round(mean, 4),
                stderr=round(stderr, 4),
                n=len(members),
                tokens=round(sum(member.tokens for member in members) / len(members), 1),
            )
        )
    return rows


def compare(first: Iterable[Result], second: Iterable[Result]) -> list[Comparison]:
    """The paired comparison of each task, group and metric, over the items that both models were asked."""
    known = {(result.task, tuple(result.group.items()), result.id): result for result in first}
    differences: dict[tuple[str, tuple[tuple[str, str], ...], str], list[float]] = {}
    for result in second:
        group = tuple(result.group.items())
        other = known.get((result.task, group, result.id))
        for metric in result.scores.keys() & other.scores.keys() if other else ():
            values = differences.setdefault((result.task, group, metric), [])
            values.append(result.scores[metric] - other.scores[metric] if other else 0.0)
    rows = []
    for (task, group, metric), values in differences.items():
        mean, stderr = mean_stderr(values)
        better, worse = sum(value > 0 for value in values), sum(value < 0 for value in values)
        rows.append(
            Comparison(
                task=task,
                group=dict(group),
                metric=metric,
                difference=round(mean, 4),
                stderr=round(stderr, 4),
                better=better,
                worse=worse,
                p=round(sign_test(better, worse), 4),
                n=len(values),
            )
        )
    return rows


def sign_test(better: int, worse: int) -> float:
    """Two-sided: the probability that a fair coin is at least so uneven over all items that differ."""
    trials = better + worse
    tail = sum(math.comb(trials, k) for k in range(min(better, worse) + 1)) / 2**trials
    return min(1.0, 2 * tail)


SCORES = "scores.json"


def write_results(folder: Path, task: str, results: Sequence[Result]) -> None:
    """Write TASK.jsonl, and the means of all tasks in the folder to scores.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / f"{task}.jsonl", results)
    rows = [row for row in read_means(folder) if row.task != task] + means(results)
    write_atomically(folder / SCORES, msgspec.json.format(msgspec.json.encode(rows)))


def read_means(folder: Path) -> list[Mean]:
    """The rows of scores.json; none if it is not there. Raises BadInput if it is no such file."""
    path = folder / SCORES
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Mean])
    except msgspec.DecodeError as error:
        raise BadInput(f"{path} was not written by crawltalk eval ({error}); choose another --out") from None


def read_results(folder: Path, task: str) -> list[Result]:
    """The rows of TASK.jsonl. Raises MissingInput if the task was not evaluated there."""
    path = folder / f"{task}.jsonl"
    if not path.exists():
        raise MissingInput(
            f"{path} is not there; make it with: crawltalk eval MODEL --tasks {task} --out {folder}"
        )
    return list(read_jsonl(path, Result))
