"""What the base model was asked (the stage factuality), as problems of a chat: questions about pages that it knows, and
about pages that it does not know. No problem says which it is; only the weights can.
"""

import random
from collections.abc import Iterator, Sequence

from crawltalk.core.types import Problem
from crawltalk.posttraining.factuality import Question, forms_of
from crawltalk.tasks import Split
from crawltalk.tasks.recall import LOWER_SHARE

KIND = "factuality"
"""`Problem.task` of these problems, and their name among the tasks of a recipe."""


class KnownOrNot:
    """Questions about pages in the forms of a chat; half of them about pages that the assistant is to know."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.known = [row for row in questions if row.decision == "answer"]
        self.unknown = [row for row in questions if row.decision == "decline"]
        self.tested = [row for row in questions if row.split == "test"]

    def problems(self, rng: random.Random, split: Split, count: int) -> Iterator[Problem]:
        """The training asks about pages that fine-tuning teaches to answer or to decline; the test about the former in
        other forms, and about pages that are never taught.
        """
        groups = [rows for rows in (self.known, self.unknown if split == "train" else self.tested) if rows]
        for number in range(count if groups else 0):
            rows = rng.choice(groups) if split == "train" else groups[number % len(groups)]
            row = rng.choice(rows)
            title = row.title.lower() if split == "train" and rng.random() < LOWER_SHARE else row.title
            question = rng.choice(forms_of(row, split)).format(title)
            yield Problem(prompt=question, answer=row.answer, task=KIND)
