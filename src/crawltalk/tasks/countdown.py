"""Countdown: reach a number with others, each used once. Finding a way takes search, checking one does not."""

import random
import re
from collections.abc import Iterator
from typing import ClassVar

from crawltalk.core.errors import BadInput
from crawltalk.core.types import Problem
from crawltalk.tasks.task import DEFAULT_COUNT, Split, Task, kept_for
from crawltalk.tools.calculator import Number, calculate

LARGEST = 25
"""Of the numbers."""
MOST = 100
"""Of the target."""
PROMPT = "Use each of the numbers {} once, with +, -, * and /, to make {}. End with the expression."


def reaches(problem: Problem, reply: str) -> float:
    """1 if the last line of the reply is an expression of just these numbers with the right value. What it claims
    behind an `=` does not count, nor do words before a colon.
    """
    expression = (reply.strip().splitlines() or [""])[-1].rpartition(":")[2].partition("=")[0].strip(" .$`")
    given, target = _read(problem.prompt)
    if not re.fullmatch(r"[\d+\-*/×÷−() ]+", expression) or "**" in expression or "//" in expression:
        return 0.0
    if sorted(map(int, re.findall(r"\d+", expression))) != sorted(given):
        return 0.0
    try:
        value = calculate(expression)
    except BadInput:
        return 0.0
    return float(isinstance(value, Number) and value.exact and value.value == target)


class Countdown(Task):
    """As many numbers as the difficulty says, and two more; there is always a way."""

    name = "countdown"
    about: ClassVar = {"countdown": "a number made of others, each used once"}
    examined = False
    score = staticmethod(reaches)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """The numbers, in whatever order, and the target decide the split. `answer` is one way of several."""
        for _ in range(DEFAULT_COUNT if count is None else count):
            while True:
                numbers = [rng.randint(1, LARGEST) for _ in range(2 + difficulty)]
                expression, value = _expression(numbers, rng)
                if 1 <= value <= MOST and kept_for(f"countdown {sorted(numbers)} {value}") == split:
                    break
            given = rng.sample(numbers, len(numbers))
            prompt = PROMPT.format(", ".join(map(str, given)), value)
            yield Problem(prompt=prompt, answer=expression, task=self.name)


def _read(prompt: str) -> tuple[list[int], int]:
    """The numbers, and the target."""
    *numbers, target = map(int, re.findall(r"\d+", prompt))
    return numbers, target


def _expression(numbers: list[int], rng: random.Random) -> tuple[str, int]:
    """The numbers joined by signs that were drawn, two of what is left at a time, and the value. What is in between is
    a whole number of 0 or more.
    """
    parts = [(str(one), one) for one in numbers]
    while len(parts) > 1:
        (left, a), (right, b) = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        ways = {"+": a + b, "*": a * b}
        ways |= {"-": a - b} if a >= b else {}
        ways |= {"/": a // b} if b and a % b == 0 else {}
        sign = rng.choice(list(ways))
        parts.append((f"({left} {sign} {right})", ways[sign]))
    text, value = parts[0]
    return text[1:-1], value
