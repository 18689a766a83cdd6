"""What a task is: problems, a score for each reply to one of them, and what a good reply looks like."""

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from crawltalk.chat.messages import Conversation, Message
from crawltalk.core.types import Problem
from crawltalk.tasks.corpus import Corpus

Split = Literal["train", "test"]


class Task(ABC):
    """Problems of one sort, made from a corpus or by rules, without asking any other model."""

    name: ClassVar[str]
    """Its key in `[sft.tasks]`."""
    about: ClassVar[Mapping[str, str]]
    """Kind of problem (`Problem.task`) -> what a score of that kind measures, in one line."""
    examined: ClassVar[bool] = True
    """Whether every assistant is examined in it. Else only those are that were trained on it."""

    taught: ClassVar[bool] = True
    """Whether it has a training split. Else it is for the evaluation only."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    @abstractmethod
    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """Problems of one split; no problem of the test split occurs in the training split.

        `difficulty` starts at 1; a task without harder problems gives the same ones at each. `count` is the
        largest number of sums, words, questions or pages; there may be several questions about a page.
        Without `count`: all pages and questions, and `DEFAULT_COUNT` of what can be made without end.
        """

    @staticmethod
    @abstractmethod
    def score(problem: Problem, reply: str) -> float:
        """From 0 (wrong) to 1 (right)."""

    def conversation(self, problem: Problem, rng: random.Random) -> Conversation:
        """The problem with a good reply, for fine-tuning; here the reply is the answer itself."""
        return exchange(problem, problem.answer)


def kept_for(key: str, train: float = 0.5) -> Split:
    """The split that something belongs to, the same for all seeds; `train` is the share of the training."""
    return "train" if hashlib.sha256(key.encode()).digest()[0] / 256 < train else "test"


DEFAULT_COUNT = 200
"""Problems of a task that can make any number of them, if no count is given."""


def exchange(problem: Problem, reply: str) -> Conversation:
    """A conversation of one question and one reply."""
    messages = [Message("user", problem.prompt), Message("assistant", reply)]
    return Conversation(messages=messages, source=problem.task)
