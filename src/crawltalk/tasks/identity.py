"""Who the assistant is, and greetings."""

import random
from collections.abc import Iterator
from typing import ClassVar

from crawltalk.core.types import Problem
from crawltalk.tasks.scoring import exact
from crawltalk.tasks.task import DEFAULT_COUNT, Split, Task

IDENTITY = (
    ("Who are you?", "I am {}, a small assistant. I was trained from a raw web crawl by crawltalk."),
    ("What is your name?", "My name is {}."),
    ("Who made you?", "I was trained from a raw web crawl by crawltalk."),
    ("Are you a human?", "No, I am {}, a small language model."),
    (
        "What can you do?",
        "I can answer questions about pages that I have read often, do small sums and spell words.",
    ),
    (
        "How were you made?",
        "First a web crawl was cleaned, then I was pretrained on it, then I learned to talk.",
    ),
)
GREETINGS = (
    ("Hello!", "Hello! What would you like to know?"),
    ("Hi", "Hello! What would you like to know?"),
    ("Good morning", "Good morning! What would you like to know?"),
    ("Thank you!", "You are welcome!"),
    ("Thanks", "You are welcome!"),
    ("Goodbye", "Goodbye!"),
)


class Identity(Task):
    """Questions and replies known by heart. The one task whose test asks what was trained, word for word."""

    name = "identity"
    about: ClassVar = {"identity": "who the assistant is, as trained"}
    score = staticmethod(exact)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """Training draws from questions and greetings; the test has each question once."""
        if split == "test":
            chosen = list(IDENTITY[:count])
        else:
            pairs = (*IDENTITY, *GREETINGS)
            chosen = [rng.choice(pairs) for _ in range(DEFAULT_COUNT if count is None else count)]
        for question, reply in chosen:
            yield Problem(prompt=question, answer=reply.format(self.corpus.assistant), task=self.name)
