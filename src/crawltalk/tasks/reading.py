"""Questions whose answer stands in a passage that is put in front of them.

A model of a few million parameters does not learn to copy a text that it has never read. But it can say which of the
sentences of a passage (`choices`) is the likeliest reply.
"""

import random
import re
from collections.abc import Iterator
from typing import ClassVar

from crawltalk.chat.messages import Conversation
from crawltalk.core.types import Problem
from crawltalk.retrieval.passages import sentences
from crawltalk.tasks.corpus import is_sentence
from crawltalk.tasks.recall import ask_about, described, forms_for
from crawltalk.tasks.scoring import contains
from crawltalk.tasks.task import DEFAULT_COUNT, Split, Task, exchange

PASSAGE = 160
"""Characters of a passage, at most: a few of them fit into the context of a small model."""


def passage_of(text: str, limit: int = PASSAGE) -> str:
    """The beginning of a page, up to the last whole word within `limit` characters; a longer word is cut."""
    words = re.match(rf"(?s).{{0,{limit}}}(?!\S)", text)
    return (words[0].rstrip() if words else "") or text[:limit]


def with_passage(passage: str, question: str) -> str:
    """A prompt in which the passage stands before the question."""
    return f"{passage}\n\n{question}"


def choices(passage: str) -> tuple[str, ...]:
    """The replies that quote a passage: each of its lines and sentences after its title, as `described` writes them.
    The last one is left out if it is cut off, and not the only one.
    """
    title, *said = [passage[start:end] for start, end in sentences(passage)]
    if len(said) > 1 and not is_sentence(said[-1]):
        said.pop()
    quotes = [described(title, sentence) for sentence in said]
    return tuple(dict.fromkeys(quotes)) or (described(title, title),)


class Reading(Task):
    """Pages that no stage has read, with a passage of them or of another page."""

    name = "reading"
    about: ClassVar = {"reading": "answer read out of a passage about something that was never read"}
    score = staticmethod(contains)

    def problems(
        self, rng: random.Random, difficulty: int = 1, split: Split = "train", count: int | None = None
    ) -> Iterator[Problem]:
        """A passage and a question about its page; in the test pages that no stage has read."""
        texts = self.corpus.texts
        pages = [page for page in self.corpus.readings if page.id in texts]
        if split == "test":
            pages = [page for page in self.corpus.unseen if page.id in texts]
        pages = pages[: DEFAULT_COUNT if count is None else count]
        for page in pages:
            form = rng.choice(forms_for(page, split))
            question = ask_about(form, page, rng) if split == "train" else form.format(page.title)
            prompt = with_passage(passage_of(texts[page.id]), question)
            yield Problem(prompt=prompt, answer=page.description, task=self.name)

    def conversation(self, problem: Problem, rng: random.Random) -> Conversation:
        """The reply gives title and description."""
        title = problem.prompt.split("\n", 1)[0]
        return exchange(problem, described(title, problem.answer))
