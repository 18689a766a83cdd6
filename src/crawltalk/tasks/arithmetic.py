"""Sums, differences and products of small numbers: answered at once, or counted out first."""

import random
import re
from collections.abc import Iterator
from typing import ClassVar

from crawltalk.chat.messages import Conversation
from crawltalk.core.types import Problem
from crawltalk.tasks.corpus import TRAIN_SHARE
from crawltalk.tasks.scoring import THINK, THINK_END, last_number
from crawltalk.tasks.task import DEFAULT_COUNT, Split, Task, exchange

QUESTIONS = ("What is {} {} {}?", "Calculate {} {} {}.", "{} {} {} =", "How much is {} {} {}?")
SUM = re.compile(r"(\d+) ([-+x]) (\d+)")
WORKED = 0.7
"""Of the replies that are trained on: those that count before they answer."""


class Arithmetic(Task):
    """Two numbers up to 20 (9 for products), ten times as large with each step of difficulty."""

    name = "arithmetic"
    about: ClassVar = {"arithmetic": "sums never trained on"}
    score = staticmethod(last_number)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """The sums of the test are all different; those of the training may repeat."""
        sums = [_draw(rng, difficulty, split) for _ in range(DEFAULT_COUNT if count is None else count)]
        for left, sign, right in dict.fromkeys(sums) if split == "test" else sums:
            question = rng.choice(QUESTIONS).format(left, sign, right)
            yield Problem(prompt=question, answer=_result(left, sign, right), task=self.name)

    def conversation(self, problem: Problem, rng: random.Random) -> Conversation:
        """The reply repeats the sum and gives the result, or counts and then gives it."""
        stated = SUM.search(problem.prompt)
        if not stated:
            return exchange(problem, problem.answer)
        if rng.random() >= WORKED:
            return exchange(problem, f"{stated[0]} = {problem.answer}")
        left, sign, right = stated.groups()
        return exchange(problem, f"{THINK}{counted(int(left), sign, int(right))}{THINK_END}{problem.answer}")


def counted(left: int, sign: str, right: int) -> str:
    """A sum counted out: each line says what was reached and what is left to count. From 20 on tens are counted, from
    200 on hundreds, and a product is the larger number, counted as often as the smaller one says. So each step is a
    fact of few tokens that many sums share, and no line is the result of another sum.
    """
    if sign == "x" and left < right:
        left, right = right, left
    value, one = {"+": (left, 1), "-": (left, -1), "x": (0, left)}[sign]
    lines = [f"{left} {sign} {right}"]
    while right:
        step = 10 ** (len(str(right // 2)) - 1)
        value, right = value + one * step, right - step
        lines.append(f"{value} {right}")
    return "\n".join(lines)


def _draw(rng: random.Random, difficulty: int, split: Split) -> tuple[int, str, int]:
    """A sum of the split; which sums belong to the test is fixed for all seeds."""
    while True:
        sign = rng.choice("+-x")
        largest = (9 if sign == "x" else 20) * 10 ** (difficulty - 1)
        left, right = rng.randint(0, largest), rng.randint(0, largest)
        if sign == "-" and right > left:
            left, right = right, left
        tested = random.Random(f"{left}{sign}{right}").random() >= TRAIN_SHARE
        if tested == (split == "test"):
            return left, sign, right


def _result(left: int, sign: str, right: int) -> str:
    return str(left + right if sign == "+" else left - right if sign == "-" else left * right)
