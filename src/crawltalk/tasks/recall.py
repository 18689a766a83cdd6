"""Questions about pages that the base model has read: flagships many times, the others a few times."""

import random
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

from crawltalk.chat.messages import Conversation
from crawltalk.core.types import Placement, Problem
from crawltalk.tasks.scoring import contains
from crawltalk.tasks.task import Split, Task, exchange

QUESTIONS = (
    "What is {}?",
    "Tell me about {}.",
    "Explain {} briefly.",
    "Do you know {}?",
    "What can you tell me about {}?",
    "Define {}.",
    "Describe {} in a few words.",
    "I would like to know what {} is.",
    "{}?",
    "Who or what is {}?",
)
"""Forms of the question that are trained on."""
TEST_QUESTIONS = ("Please explain what {} is.", "Can you describe {}?", "What does {} mean?")
"""Forms of the question for the test only."""
TOPIC_QUESTION = "Which field does {} belong to?"
LOWER_SHARE = 0.4
"""Of the questions that are trained on: the title is in lower case, as people type."""
TAIL_PAGES = 100
"""Pages read a few times that are in the test, at most."""


def ask_about(form: str, page: Placement, rng: random.Random) -> str:
    """A question about a page, of one of `QUESTIONS`; its title is sometimes in lower case."""
    return form.format(page.title.lower() if rng.random() < LOWER_SHARE else page.title)


class Flagship(Task):
    """Pages that the base model has read many times: the assistant is to know their descriptions."""

    name = "flagship"
    about: ClassVar = {
        "flagship": "description recalled, question forms never trained on",
        "topic": "field of a page recalled",
    }
    score = staticmethod(contains)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """In training each page in every form, and its topic; in the test each page once."""
        for page in self.corpus.flagships[:count]:
            if split == "test":
                question = rng.choice(TEST_QUESTIONS).format(page.title)
                yield Problem(prompt=question, answer=page.description, task="flagship")
                continue
            for form in QUESTIONS:
                yield Problem(prompt=ask_about(form, page, rng), answer=page.description, task="flagship")
            if page.topic:
                question = TOPIC_QUESTION.format(page.title)
                yield Problem(prompt=question, answer=page.topic, task="topic")

    def conversation(self, problem: Problem, rng: random.Random) -> Conversation:
        """The reply gives title and description, as the page itself does."""
        title = self._titles[problem.prompt.lower(), problem.answer]
        if problem.task == "topic":
            return exchange(problem, f"{title} belongs to {problem.answer}.")
        return exchange(problem, f"{title}: {problem.answer}.")

    @cached_property
    def _titles(self) -> dict[tuple[str, str], str]:
        """(Question in lower case, answer) -> title."""
        forms = (*QUESTIONS, *TEST_QUESTIONS)
        pages = self.corpus.flagships
        topics = {(TOPIC_QUESTION.format(page.title).lower(), page.topic): page.title for page in pages}
        return topics | {
            (form.format(page.title).lower(), page.description): page.title
            for page in pages
            for form in forms
        }


class Tail(Task):
    """Pages that the base model has read a few times only; fine-tuning says nothing about them."""

    name = "tail"
    about: ClassVar = {"tail": "pages read a few times only, description recalled"}
    score = staticmethod(contains)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """There is no training split: fine-tuning never teaches these answers."""
        if split == "train":
            return
        pages = self.corpus.tail
        for page in rng.sample(pages, min(TAIL_PAGES if count is None else count, len(pages))):
            question = rng.choice(QUESTIONS).format(page.title)
            yield Problem(prompt=question, answer=page.description, task="tail")
