"""Spelling words and counting their letters: hard for a model, which reads tokens and not letters."""

import random
from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

from crawltalk.core.types import Problem
from crawltalk.tasks.scoring import exact
from crawltalk.tasks.task import DEFAULT_COUNT, Split, Task

QUESTIONS = (
    "How do you spell {}?",
    "Spell {}.",
    "Spell the word {}.",
    "How is {} spelled?",
    "Please spell the word {}.",
)
TEST_QUESTION = "Please spell {}."
COUNTS = ("How many letters are in {}?", "How many letters does {} have?")
COUNT_SHARE = 0.25
"""Of the questions that are trained on: those for the number of letters."""


class Spelling(Task):
    """Common words of the corpus; the test asks for words that were spelled in training and for others."""

    name = "spelling"
    about: ClassVar = {
        "spelling": "words spelled in training, a question form never trained on",
        "spelling_new": "words never spelled in training: a model sees tokens, not letters",
    }
    score = staticmethod(exact)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """The test has `count` words of either kind."""
        count = DEFAULT_COUNT if count is None else count
        words = self.corpus.words
        if split == "test":
            for kind, tested in (("spelling", words), ("spelling_new", self.corpus.new_words)):
                for word in islice(tested, count):
                    yield Problem(prompt=TEST_QUESTION.format(word), answer=_spell(word), task=kind)
            return
        for _ in range(count if words else 0):
            word = rng.choice(words)
            if rng.random() < COUNT_SHARE:
                prompt = rng.choice(COUNTS).format(word)
                answer = f"{_spell(word)}: {len(word)} letters."
            else:
                prompt, answer = rng.choice(QUESTIONS).format(word), _spell(word)
            yield Problem(prompt=prompt, answer=answer, task="spelling")


def _spell(word: str) -> str:
    return "-".join(word)
