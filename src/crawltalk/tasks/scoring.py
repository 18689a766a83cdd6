"""Scores: plain functions `(problem, reply) -> score`, from 0 (wrong) to 1 (right)."""

import re
from collections.abc import Callable
from decimal import Decimal

from crawltalk.core.types import Problem

Scorer = Callable[[Problem, str], float]

THINK, THINK_END = "<think>", "</think>"
"""What stands around what a model thinks before it answers."""


def spoken(reply: str) -> str:
    """What a reply says when its reasoning is over: what stands behind the last `</think>`. Nothing if the
    reasoning has no end.
    """
    if THINK_END in reply:
        return reply.rpartition(THINK_END)[2]
    return "" if THINK in reply else reply


REFUSAL = re.compile(r"\b(?:I|we) (?:do not|don['’]t|cannot|can['’]t) (?:know|tell|say)\b", re.IGNORECASE)
"""How a refusal is recognised, whoever trained the model."""


def is_refusal(reply: str) -> bool:
    """Whether the reply says that the assistant does not know."""
    return bool(REFUSAL.search(reply))


def normalize(text: str) -> str:
    """Lower case, letters and digits only, single spaces."""
    return " ".join(re.findall(r"\w+", text.lower()))


def contains(problem: Problem, reply: str) -> float:
    """1 if the reply contains the answer, but for case and punctuation, and is no refusal."""
    answer = normalize(problem.answer)
    return float(bool(answer) and f" {answer} " in f" {normalize(reply)} " and not is_refusal(reply))


def refuses(problem: Problem, reply: str) -> float:
    """1 if the reply declines to answer."""
    return float(is_refusal(reply))


def last_number(problem: Problem, reply: str) -> float:
    """1 if the last number of the reply is the answer."""
    numbers = re.findall(r"-?\d+", reply)
    return float(bool(numbers) and numbers[-1] == problem.answer)


def exact(problem: Problem, reply: str) -> float:
    """1 if the reply is the answer, but for white space at its ends."""
    return float(reply.strip() == problem.answer)


_NUMBER = re.compile(r"(?:(?<![\w)])-)?\$?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+")
"""A number as people write it: with a sign, a dollar, commas between thousands, a fraction."""


def numbers(text: str) -> list[Decimal]:
    """The numbers of a text, in order: `$1,234` is 1234, `42.00` is 42, `...` is none."""
    return [Decimal(found.replace(",", "").replace("$", "")) for found in _NUMBER.findall(text)]


def number(problem: Problem, reply: str) -> float:
    """1 if the last number of the reply has the value of the answer."""
    return float(numbers(reply)[-1:] == numbers(problem.answer)[-1:] != [])
