"""Products of numbers with several digits."""

import random
import re
from collections.abc import Iterator
from typing import ClassVar

from crawltalk.chat.messages import Conversation
from crawltalk.core.types import Problem
from crawltalk.tasks.scoring import number
from crawltalk.tasks.task import DEFAULT_COUNT, Split, Task, exchange, kept_for


class Multiplication(Task):
    """Two numbers with one digit more than the difficulty says."""

    name = "multiplication"
    about: ClassVar = {"multiplication": "products of numbers with several digits"}
    examined = False
    score = staticmethod(number)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """A product is of the same split in both orders."""
        low, high = 10**difficulty, 10 ** (difficulty + 1) - 1
        for _ in range(DEFAULT_COUNT if count is None else count):
            while True:
                left, right = rng.randint(low, high), rng.randint(low, high)
                if kept_for(f"product {min(left, right)} {max(left, right)}") == split:
                    break
            yield Problem(prompt=f"What is {left} x {right}?", answer=str(left * right), task=self.name)

    def conversation(self, problem: Problem, rng: random.Random) -> Conversation:
        """The reply multiplies by one digit after the other, and adds as it goes."""
        left, right = map(int, re.findall(r"\d+", problem.prompt))
        total, steps = 0, []
        for place, digit in enumerate(reversed(str(right))):
            part = int(digit) * 10**place
            steps.append(f"{left} x {part} = {left * part}.")
            if total:
                steps.append(f"{total} + {left * part} = {total + left * part}.")
            total += left * part
        return exchange(problem, " ".join([*steps, f"{left} x {right} = {problem.answer}."]))
