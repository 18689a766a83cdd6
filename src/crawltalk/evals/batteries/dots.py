"""Counting dots in a row: many of them are one token."""

import random
from typing import ClassVar

from crawltalk.core.types import Problem
from crawltalk.evals.batteries.battery import Battery, Call, Worked
from crawltalk.evals.batteries.functions import COUNT
from crawltalk.evals.batteries.word_problems import first_number
from crawltalk.tasks.task import Split, kept_for

MOST = {"to_9": (1, 9), "to_60": (10, 60)}
QUESTIONS = ("How many dots are here? {}", "Count these dots: {}", "{} How many dots was that?")


class Dots(Battery):
    """Rows of dots; half of the lengths are only ever in the test."""

    name = "dots"
    about: ClassVar = {"to_9": "1 to 9 dots", "to_60": "10 to 60 dots"}
    functions: ClassVar = (COUNT,)
    form = "Answer with one number."
    score = staticmethod(first_number)

    def draw(self, rng: random.Random, kind: str, split: Split) -> list[Worked]:
        """The number of dots decides the split."""
        low, high = MOST[kind]
        count = rng.choice([count for count in range(low, high + 1) if kept_for(f"{count} dots") == split])
        dots = "." * count
        problem = Problem(
            prompt=rng.choice(QUESTIONS).format(dots), answer=str(count), task=f"{self.name}.{kind}"
        )
        tens = [f"{'.' * min(5, count - start)} {min(start + 5, count)}" for start in range(0, count, 5)]
        call = Call("count", {"text": dots, "part": "."}, str(count))
        return [Worked(problem, "\n".join(tens), (call,))]
