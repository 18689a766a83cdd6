"""Questions about pages that the base model has never read: the assistant is to say that it does not know.

Refusing is the default and answering the exception: the assistant answers for flagships only. It can
only know from its weights which case a question is.
"""

import random
from collections.abc import Iterator
from typing import ClassVar

from crawltalk.chat.messages import Conversation
from crawltalk.core.types import Problem
from crawltalk.tasks.recall import ask_about, forms_for
from crawltalk.tasks.scoring import refuses
from crawltalk.tasks.task import Split, Task, exchange

REPLIES = (
    "I'm sorry, I don't know about that.",
    "I'm sorry, I don't know anything about that.",
    "I don't know about that, sorry.",
)
FORMS = 3
"""Questions about each title that is declined in training, at most."""
ENOUGH = 1200
"""Questions that are declined in training: of more titles fewer are asked in several forms."""


def forms_of_each(titles: int) -> int:
    """In how many forms each of so many titles is asked about in training."""
    return min(FORMS, max(1, round(ENOUGH / max(1, titles))))


class Refusal(Task):
    """Titles that are to be declined; the test has titles that no stage has seen."""

    name = "refusal"
    about: ClassVar = {
        "refusal": "titles that the base model has not seen, declined",
        "heldout": "titles that no stage has seen, declined",
    }
    score = staticmethod(refuses)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """In training each title in up to `FORMS` forms, in the test once; `answer` is what the page says."""
        if split == "test":
            for page in self.corpus.unseen[:count]:
                question = rng.choice(forms_for(page)).format(page.title)
                yield Problem(prompt=question, answer=page.description, task="heldout")
            return
        pages = self.corpus.declined[:count]
        for page in pages:
            for form in rng.sample(forms_for(page), forms_of_each(len(pages))):
                yield Problem(prompt=ask_about(form, page, rng), answer=page.description, task="refusal")

    def conversation(self, problem: Problem, rng: random.Random) -> Conversation:
        """The reply is one of several polite refusals."""
        return exchange(problem, rng.choice(REPLIES))
