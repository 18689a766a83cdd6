"""Word problems of several steps whose answers have one digit: to write one takes a single token, to find it takes
some computation for each step.
"""

import random
import re
from typing import ClassVar

from crawltalk.core.types import Problem
from crawltalk.evals.batteries.battery import Battery, Call, Worked, answered, kept_for
from crawltalk.evals.batteries.functions import CALCULATOR
from crawltalk.tasks.scoring import number, numbers
from crawltalk.tasks.task import Split
from crawltalk.tools.calculator import calculate

THINGS = ("apples", "books", "coins", "stamps", "pencils", "cups", "eggs", "cards", "shells", "buttons")
START = "A box holds {} {}."
MORE = ("{} more are put in.", "Then {} are added.")
LESS = ("{} are taken out.", "Then {} are sold.")
BAGS = ("Then {} bags with {} each are emptied into it.", "{} packs of {} are added.")
QUESTION = "How many {} are in the box now?"
LARGEST = 99
"""No step leads beyond it."""


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
        """Numbers that were drawn decide the split: no test problem has the numbers of one of the training."""
        while True:
            events, total = _events(rng, int(kind[0]))
            if kept_for(f"word problem {events}") == split:
                break
        thing = rng.choice(THINGS)
        sentences = [START.format(events[0][1], thing)]
        for sign, *parts in events[1:]:
            forms = BAGS if sign == "x" else MORE if sign == "+" else LESS
            sentences.append(rng.choice(forms).format(*parts))
        prompt = " ".join([*sentences, QUESTION.format(thing)])
        calls = solve(prompt)
        problem = Problem(prompt=prompt, answer=str(total), task=f"{self.name}.{kind}")
        steps = " ".join(f"{call.arguments['expression']} = {call.result}." for call in calls)
        return [Worked(problem, steps, tuple(calls))]


def _events(rng: random.Random, steps: int) -> tuple[list[tuple[str, *tuple[int, ...]]], int]:
    """The start, then `steps` events as (sign, numbers); and what is left: 1 to 9."""
    while True:
        total = rng.randint(2, 30)
        events: list[tuple[str, *tuple[int, ...]]] = [("", total)]
        for _ in range(steps - 1):
            sign = rng.choice("+-x")
            bags, number = rng.randint(2, 6), rng.randint(2, 20)
            change = bags * number if sign == "x" else number if sign == "+" else -number
            total += change
            events.append((sign, bags, number) if sign == "x" else (sign, number))
            if not 0 <= total <= LARGEST:
                break
        left = rng.randint(1, 9)
        sign = "-" if total > left else "+"
        if 0 <= total <= LARGEST and total != left:
            return [*events, (sign, abs(total - left))], left


def solve(prompt: str) -> list[Call]:
    """The calculations that the sentences of a word problem ask for, in order: read from the text alone."""
    calls: list[Call] = []

    def result(expression: str) -> str:
        calls.append(Call(CALCULATOR.name, {"expression": expression}, str(calculate(expression))))
        return calls[-1].result

    total = ""
    for sentence in re.findall(r"[^.?]+[.?]", prompt):
        match re.findall(r"\d+", sentence):
            case [number] if not total:
                total = number
            case [number]:
                total = result(f"{total} {'-' if re.search('taken|sold', sentence) else '+'} {number}")
            case [bags, number]:
                total = result(f"{total} + {result(f'{bags} * {number}')}")
    return calls
