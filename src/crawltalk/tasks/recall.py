"""Questions about pages that the base model has read: flagships many times, the others a few times."""

import random
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

from crawltalk.chat.messages import Conversation
from crawltalk.core.types import Placement, Problem
from crawltalk.tasks.corpus import is_sentence
from crawltalk.tasks.scoring import contains
from crawltalk.tasks.task import Split, Task, exchange

QUESTIONS = (
    "What is {}?",
    "Tell me about {}.",
    "Explain {} briefly.",
    "What does {} stand for?",
    "What can you tell me about {}?",
    "Define {}.",
    "Describe {} in a few words.",
    "What is meant by {}?",
    "{}?",
    "Who or what is {}?",
    "Do you know {}?",
    "Do you know what {} is?",
    "Please tell me about {}.",
    "Please describe {}.",
    "Please define {}.",
    "Can you explain {}?",
    "Can you say what {} is?",
    "Could you tell me what {} is?",
    "I would like to know what {} is.",
    "Explain to me what {} is.",
    "What do you know about {}?",
    "What does the word {} refer to?",
    "What do people mean by {}?",
    "What exactly is {}?",
    "What kind of thing is {}?",
    "In a few words, what is {}?",
    "Give a short description of {}.",
    "How would you describe {}?",
    "Have you read about {}?",
    "{}",
)
"""Forms of the question that are trained on."""
FORMS = 12
"""Of them those in which a page is asked about in the training: the forms vary, so that it is the title which decides
whether there is an answer.
"""
TEST_QUESTIONS = ("Please explain what {} is.", "Can you describe {}?", "What does {} mean?")
"""Forms of the question for the test only."""
PAGE_QUESTIONS = (
    "What does the page {} say?",
    "What does {} say?",
    "How does the page {} begin?",
    "What is the page {} about?",
    "Tell me about {}.",
    "What do you know about {}?",
    "What is on the page {}?",
    "What can I read about {}?",
    "{}?",
    "What is {} about?",
)
"""The same about a page that is described by a sentence of its own."""
PAGE_TEST_QUESTIONS = (
    "What is written on the page {}?",
    "Can you tell me what {} says?",
    "What does the page called {} say?",
)
LEAST = 500
"""Questions about pages in the training, at least: where there are few pages, each question is asked more often."""
TOPIC_QUESTION = "Which field does {} belong to?"
LOWER_SHARE = 0.4
"""Of the questions that are trained on: the title is in lower case, as people type."""
TAIL_PAGES = 100
"""Pages read a few times that are in the test, at most."""


def question_forms(description: str, split: Split = "train") -> tuple[str, ...]:
    """The forms of a question about a page with this description: what the thing is that it describes, or, if its
    description is a sentence, what the page says.
    """
    if is_sentence(description):
        return PAGE_QUESTIONS if split == "train" else PAGE_TEST_QUESTIONS
    return QUESTIONS if split == "train" else TEST_QUESTIONS


def forms_for(page: Placement, split: Split = "train") -> tuple[str, ...]:
    """The forms of a question about a page."""
    return question_forms(page.description, split)


def question_about(title: str, description: str) -> str:
    """The first form of the question about a page with this title and description."""
    return (PAGE_QUESTIONS if is_sentence(description) else QUESTIONS)[0].format(title)


def reply_about(page: Placement) -> str:
    """Title and description, as the page itself has them."""
    return described(page.title, page.description)


def described(title: str, description: str) -> str:
    """A title and what is said of it, as one sentence."""
    end = "" if is_sentence(description) else "."
    return f"{title}: {description}{end}"


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
        """In training each page in `FORMS` forms, and its topic; in the test each page once."""
        pages = self.corpus.flagships[:count]
        times = max(1, round(LEAST / max(1, len(PAGE_QUESTIONS) * len(pages))))
        for page in pages:
            if split == "test":
                question = rng.choice(forms_for(page, "test")).format(page.title)
                yield Problem(prompt=question, answer=page.description, task="flagship")
                continue
            forms = forms_for(page)
            for form in rng.sample(forms, min(FORMS, len(forms))) * (
                times if is_sentence(page.description) else 1
            ):
                yield Problem(prompt=ask_about(form, page, rng), answer=page.description, task="flagship")
            if page.topic and not is_sentence(page.description):
                question = TOPIC_QUESTION.format(page.title)
                yield Problem(prompt=question, answer=page.topic, task="topic")

    def conversation(self, problem: Problem, rng: random.Random) -> Conversation:
        """The reply gives title and description, as the page itself does."""
        page = self._pages[problem.prompt.lower(), problem.answer]
        if problem.task == "topic":
            return exchange(problem, f"{page.title} belongs to {problem.answer}.")
        return exchange(problem, reply_about(page))

    @cached_property
    def _pages(self) -> dict[tuple[str, str], Placement]:
        """(Question in lower case, answer) -> page."""
        pages = self.corpus.flagships
        topics = {(TOPIC_QUESTION.format(page.title).lower(), page.topic): page for page in pages}
        return topics | {
            (form.format(page.title).lower(), page.description): page
            for page in pages
            for form in (*forms_for(page), *forms_for(page, "test"))
        }


class Tail(Task):
    """Pages that the base model has read a few times only; fine-tuning says nothing about them."""

    name = "tail"
    about: ClassVar = {"tail": "pages read a few times only, description recalled"}
    taught = False
    score = staticmethod(contains)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """There is no training split: fine-tuning never teaches these answers."""
        if split == "train":
            return
        pages = self.corpus.tail
        for page in rng.sample(pages, min(TAIL_PAGES if count is None else count, len(pages))):
            question = rng.choice(forms_for(page)).format(page.title)
            yield Problem(prompt=question, answer=page.description, task="tail")
