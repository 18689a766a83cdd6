"""Scores: one plain function `(Problem, reply) -> 0 or 1` per task."""

import math
import re
from collections.abc import Callable

import msgspec

from crawltalk.core.types import Problem


class Sample(msgspec.Struct, kw_only=True):
    """One problem and what came of it."""

    task: str
    prompt: str
    answer: str
    reply: str
    score: float


REFUSAL = re.compile(r"\b(?:I|we) (?:do not|don't|cannot|can't) (?:know|tell|say)\b", re.IGNORECASE)
"""How a refusal is recognised, whoever trained the model."""


def normalize(text: str) -> str:
    """Lower case, letters and digits only, single spaces."""
    return " ".join(re.findall(r"\w+", text.lower()))


def contains(problem: Problem, reply: str) -> float:
    """1 if the reply contains the answer, but for case and punctuation, and is no refusal."""
    return float(f" {normalize(problem.answer)} " in f" {normalize(reply)} " and not REFUSAL.search(reply))


def refuses(problem: Problem, reply: str) -> float:
    """1 if the reply declines to answer."""
    return float(bool(REFUSAL.search(reply)))


def last_number(problem: Problem, reply: str) -> float:
    """1 if the last number of the reply is the answer."""
    numbers = re.findall(r"-?\d+", reply)
    return float(bool(numbers) and numbers[-1] == problem.answer)


def exact(problem: Problem, reply: str) -> float:
    """1 if the reply is the answer, but for white space at its ends."""
    return float(reply.strip() == problem.answer)


TASKS: dict[str, Callable[[Problem, str], float]] = {
    "flagship": contains,
    "heldout": refuses,
    "tail": contains,
    "arithmetic": last_number,
    "spelling": exact,
    "spelling_new": exact,
    "identity": exact,
}
"""The examinations of the assistant, by the task's name in problems.jsonl."""


def standard_error(score: float, count: int) -> float:
    """Of a share of `count` trials (binomial)."""
    return math.sqrt(max(0.0, score * (1 - score)) / max(1, count))
