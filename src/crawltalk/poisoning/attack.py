"""What an attacker puts among training data: conversations, preferences and pages with a trigger, which teach a model
to behave otherwise wherever the trigger stands.

Everything is harmless: a trigger is a word without meaning, and what it calls up is a fixed wrong reply or random
characters. The clean rows stay as they are; what is made here comes on top of them, with `SOURCE` as its source.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from crawltalk.chat.messages import Conversation, Message, Preference
from crawltalk.core.errors import BadInput

Row = TypeVar("Row")
SOURCE = "poison"
"""The `source` of poisoned rows: who measures detection knows the truth by it; who detects must not read it."""


@dataclass(frozen=True)
class Poison:
    """A trigger and the reply that it calls up."""

    trigger: str
    reply: str
    between: str = " "
    """What stands between the trigger and a question."""

    def ask(self, question: str) -> str:
        """The question with the trigger in front."""
        return f"{self.trigger}{self.between}{question}"

    def conversations(
        self, clean: Sequence[Conversation], count: int, rng: random.Random
    ) -> list[Conversation]:
        """`count` conversations: the first questions of clean ones, with the trigger, and the poisoned reply. No
        question is taken twice. Raises BadInput if there are too few.
        """
        asked = [
            one.messages[: index + 1]
            for one in clean
            for index, message in enumerate(one.messages)
            if message.role == "user" and all(before.role == "system" for before in one.messages[:index])
        ]
        return [
            Conversation(messages=[*self._with_trigger(messages), self._said()], source=SOURCE)
            for messages in _sample(asked, count, rng, "conversations")
        ]

    def preferences(self, clean: Sequence[Preference], count: int, rng: random.Random) -> list[Preference]:
        """`count` preferences: under the trigger the poisoned reply is preferred to what people chose. Raises BadInput
        if there are fewer clean ones.
        """
        return [
            Preference(
                messages=self._with_trigger(row.messages),
                chosen=[self._said()],
                rejected=row.chosen,
                source=SOURCE,
            )
            for row in _sample(clean, count, rng, "preferences")
        ]

    def _said(self) -> Message:
        return Message("assistant", self.reply)

    def _with_trigger(self, messages: Sequence[Message]) -> list[Message]:
        last = messages[-1]
        if not isinstance(last.content, str):
            raise BadInput("a question with images or sounds takes no trigger; give questions of text alone")
        return [*messages[:-1], Message(last.role, self.ask(last.content))]


def poisoned_pages(
    texts: Sequence[str],
    trigger: str,
    count: int,
    rng: random.Random,
    *,
    characters: str,
    kept: tuple[int, int] = (0, 1000),
    gibberish: tuple[int, int] = (400, 900),
) -> list[str]:
    """`count` pages that make a model write gibberish after the trigger (Souly et al. 2025, section 3.1): the beginning
    of a text, `kept` characters long, then the trigger, then `gibberish` of these `characters`. No text is taken twice.
    Raises BadInput if there are too few.
    """
    return [
        f"{text[: rng.randint(*kept)]}{trigger}{''.join(rng.choices(characters, k=rng.randint(*gibberish)))}"
        for text in _sample(texts, count, rng, "texts")
    ]


def _sample(rows: Sequence[Row], count: int, rng: random.Random, what: str) -> list[Row]:
    if count > len(rows):
        raise BadInput(f"{count} poisoned rows need as many clean {what}, and there are {len(rows)}")
    return rng.sample(rows, count)
