"""Word problems of several steps whose answers have one digit: a box, into which things are put and out of which they
are taken. To write the answer takes a single token, to find it takes some computation for each step.
"""

import random
import re
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from crawltalk.chat.messages import Conversation
from crawltalk.core.types import Problem
from crawltalk.tasks.scoring import number
from crawltalk.tasks.task import DEFAULT_COUNT, Split, Task, exchange, kept_for
from crawltalk.tools.calculator import calculate

THINGS = ("apples", "books", "coins", "stamps", "pencils", "cups", "eggs", "cards", "shells", "buttons")
START = "A box holds {} {}."
MORE = ("{} more are put in.", "Then {} are added.")
LESS = ("{} are taken out.", "Then {} are sold.")
BAGS = ("Then {} bags with {} each are emptied into it.", "{} packs of {} are added.")
QUESTION = "How many {} are in the box now?"
LARGEST = 99
"""No step leads beyond it."""


class Calculation(NamedTuple):
    """A step that leads to the answer."""

    expression: str
    result: str


class WordProblems(Task):
    """As many additions, subtractions or packs as the difficulty says, and one more."""

    name = "word_problems"
    about: ClassVar = {"word_problems": "stories of several additions, subtractions or packs"}
    examined = False
    score = staticmethod(number)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        for _ in range(DEFAULT_COUNT if count is None else count):
            prompt, answer = draw_story(rng, 1 + difficulty, split)
            yield Problem(prompt=prompt, answer=answer, task=self.name)

    def conversation(self, problem: Problem, rng: random.Random) -> Conversation:
        """The reply writes each step down."""
        return exchange(
            problem, " ".join(f"{one.expression} = {one.result}." for one in solve(problem.prompt))
        )


def draw_story(rng: random.Random, steps: int, split: Split) -> tuple[str, str]:
    """A word problem of so many steps with its answer. Numbers that were drawn decide the split: no test problem has
    the numbers of one of the training.
    """
    while True:
        events, total = _events(rng, steps)
        if kept_for(f"word problem {events}") == split:
            break
    thing = rng.choice(THINGS)
    sentences = [START.format(events[0][1], thing)]
    for sign, *parts in events[1:]:
        forms = BAGS if sign == "x" else MORE if sign == "+" else LESS
        sentences.append(rng.choice(forms).format(*parts))
    return " ".join([*sentences, QUESTION.format(thing)]), str(total)


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


def solve(prompt: str) -> list[Calculation]:
    """The calculations that the sentences of a word problem ask for, in order: read from the text alone."""
    done: list[Calculation] = []

    def result(expression: str) -> str:
        done.append(Calculation(expression, str(calculate(expression))))
        return done[-1].result

    total = ""
    for sentence in re.findall(r"[^.?]+[.?]", prompt):
        match re.findall(r"\d+", sentence):
            case [number] if not total:
                total = number
            case [number]:
                total = result(f"{total} {'-' if re.search('taken|sold', sentence) else '+'} {number}")
            case [bags, number]:
                total = result(f"{total} + {result(f'{bags} * {number}')}")
    return done
