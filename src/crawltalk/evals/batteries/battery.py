"""What a battery is: problems made by rules, a share of them kept for the test by construction, each with the chain
of steps that leads to its answer.
"""

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from crawltalk.core.types import Problem
from crawltalk.tasks.scoring import Scorer
from crawltalk.tasks.task import Split
from crawltalk.tools.tool import Tool

ANSWER = "Answer:"
"""Stands before the answer in examples, and is written for the model where its thinking ends."""


class Call(NamedTuple):
    """A call that leads to the answer, with its result."""

    function: str
    arguments: dict[str, Any]
    result: str


class Worked(NamedTuple):
    """A problem with its solution."""

    problem: Problem
    steps: str
    """What a person would write down before the answer."""
    calls: tuple[Call, ...]
    """Calls of the battery's functions that lead to the answer."""
    pair: str = ""
    """Problems of one pair ask the same in two orders."""


class Battery(ABC):
    """Problems of one sort, by rules alone, for any model."""

    name: ClassVar[str]
    about: ClassVar[Mapping[str, str]]
    """Kind of problem -> what it asks, in one line."""
    functions: ClassVar[Sequence[Tool]]
    """What a model may call in the way `tools`."""
    form: ClassVar[str]
    """How the answer is to be written, in a sentence that ends the question."""
    opened: ClassVar[bool] = True
    """Whether `Answer:` comes first where nothing else does; without it the reply is the answer itself."""
    answer_tokens: ClassVar[int] = 8
    """Of an answer, at most."""
    budgets: ClassVar[Sequence[int]] = (64,)
    """Tokens of thinking after which it is asked for the answer."""
    score: ClassVar[Scorer]

    @abstractmethod
    def draw(self, rng: random.Random, kind: str, split: Split) -> list[Worked]:
        """A problem of a kind, or the two of a pair. No problem of the test occurs in the training."""

    def problems(self, seed: int, split: Split, count: int) -> Iterator[Worked]:
        """`count` problems of each kind, all different; fewer if there are no more. Equal for equal seeds."""
        for kind in self.about:
            rng, seen = random.Random(f"{seed} {kind} {split}"), set()
            for _ in range(20 * count):
                if len(seen) >= count:
                    break
                drawn = self.draw(rng, kind, split)
                if drawn[0].problem.prompt not in seen:
                    seen.update(worked.problem.prompt for worked in drawn)
                    yield from drawn


def answered(reply: str) -> str:
    """The reply from its last `Answer:` on; all of it if there is none."""
    return re.split(rf"{ANSWER}|[Aa]nswer is:?", reply)[-1].strip()
