"""Word problems of several steps whose answers have one digit (`tasks/word_problems.py`): to write one takes a single
token, to find it takes some computation for each step.
"""

import random
import re
from typing import ClassVar

from crawltalk.core.types import Problem
from crawltalk.evals.batteries.battery import Battery, Call, Worked, answered
from crawltalk.evals.batteries.functions import CALCULATOR
from crawltalk.tasks.scoring import number, numbers
from crawltalk.tasks.task import Split
from crawltalk.tasks.word_problems import draw_story, solve


def first_number(problem: Problem, reply: str) -> float:
    """1 if the number with which the answer begins is right; in a reply without `Answer:`, the last number."""
    said = answered(reply)
    if said == reply.strip():
        return number(problem, reply)
    begins = re.match(r"[^\w.]*(?=\d)", said)
    return float(begins is not None and numbers(said)[:1] == numbers(problem.answer))


class WordProblems(Battery):
    """A box, into which things are put and out of which they are taken."""

    name = "word_problems"
    about: ClassVar = {f"{steps}_steps": f"{steps} additions, subtractions or packs" for steps in (2, 3, 4)}
    functions: ClassVar = (CALCULATOR,)
    form = "Answer with one number."
    answer_tokens = 4
    budgets: ClassVar = (0, 8, 16, 32, 64, 96)
    score = staticmethod(first_number)

    def draw(self, rng: random.Random, kind: str, split: Split) -> list[Worked]:
        """No test problem has the numbers of one of the training."""
        prompt, answer = draw_story(rng, int(kind[0]), split)
        steps = solve(prompt)
        problem = Problem(prompt=prompt, answer=answer, task=f"{self.name}.{kind}")
        calls = tuple(Call(CALCULATOR.name, {"expression": one.expression}, one.result) for one in steps)
        return [Worked(problem, " ".join(f"{one.expression} = {one.result}." for one in steps), calls)]
