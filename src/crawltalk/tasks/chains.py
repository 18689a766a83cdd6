"""Chains of additions, subtractions and multiplications, one after the other; the result, or its last digit.

Each step is easy, and there are as many as the difficulty says: what is hard is to keep the value in between.
"""

import random
import re
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from crawltalk.chat.messages import Conversation
from crawltalk.core.types import Problem
from crawltalk.tasks.scoring import number
from crawltalk.tasks.task import DEFAULT_COUNT, Split, Task, exchange, kept_for

WORDS = {"+": "add {}", "-": "subtract {}", "*": "multiply by {}"}
SIGNS = {"+": "+", "-": "-", "*": "x"}
"""As people write them."""
QUESTIONS = {"chain": "What is the result?", "last_digit": "What is the last digit of the result?"}


class Chain(NamedTuple):
    """A number, and what is done with it, step by step."""

    start: int
    steps: tuple[tuple[str, int], ...]
    """(sign, number)."""

    def values(self, modulus: int = 0) -> list[int]:
        """The value after each step, modulo `modulus` if there is one."""
        value, values = self.start, []
        for sign, other in self.steps:
            value = value + other if sign == "+" else value - other if sign == "-" else value * other
            value = value % modulus if modulus else value
            values.append(value)
        return values


def draw_chain(rng: random.Random, steps: int, signs: str, largest: int, split: Split) -> Chain:
    """A chain of the split, of numbers from 0 to `largest`; the numbers and signs decide the split."""
    while True:
        chain = Chain(
            rng.randint(0, largest), tuple((rng.choice(signs), rng.randint(0, largest)) for _ in range(steps))
        )
        if kept_for(f"chain {chain}") == split:
            return chain


class Chains(Task):
    """As many steps as the difficulty says, and one more, with numbers up to 9."""

    name = "chains"
    about: ClassVar = {
        "chain": "the result of several calculations, one after the other",
        "last_digit": "the last digit of that result",
    }
    examined = False
    score = staticmethod(number)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        for _ in range(DEFAULT_COUNT if count is None else count):
            kind = rng.choice(list(QUESTIONS))
            chain = draw_chain(rng, 1 + difficulty, "+*" if kind == "last_digit" else "+-*", 9, split)
            value = chain.values()[-1]
            answer = str(value % 10 if kind == "last_digit" else value)
            yield Problem(prompt=f"{_told(chain)} {QUESTIONS[kind]}", answer=answer, task=kind)

    def conversation(self, problem: Problem, rng: random.Random) -> Conversation:
        """The reply writes each step down."""
        chain = _read(problem.prompt)
        values = [chain.start, *chain.values()]
        steps = [
            f"{before} {SIGNS[sign]} {other} = {after}."
            for before, (sign, other), after in zip(values, chain.steps, values[1:], strict=False)
        ]
        if problem.task == "last_digit":
            steps.append(f"The last digit of {values[-1]} is {problem.answer}.")
        return exchange(problem, " ".join(steps))


def _told(chain: Chain) -> str:
    steps = [WORDS[sign].format(other) for sign, other in chain.steps]
    return f"Start with {chain.start}, then {', then '.join(steps)}."


def _read(prompt: str) -> Chain:
    """The chain that `_told` told."""
    start, *others = map(int, re.findall(r"\d+", prompt))
    signs = ["+-*"[("add", "subtract", "multiply").index(word)] for word in re.findall(r"then (\w+)", prompt)]
    return Chain(start, tuple(zip(signs, others, strict=True)))
