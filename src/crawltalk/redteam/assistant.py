"""A small assistant that knows the policy's house, and how it is brought up: it reads about all doors, learns to
answer in every form, and then to refuse. Each training goes through `fit`, in a folder of its own.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.engine import Engine
from crawltalk.model.hf import load_model, save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Machine, Optim
from crawltalk.redteam.attacks.forms import ENCODINGS, ROLES, encoded, in_role
from crawltalk.redteam.policy import (
    DOORS,
    REFUSAL,
    SHOTS,
    Policy,
    ask_floor,
    ask_floor_in_german,
    ask_key,
    ask_key_in_german,
)
from crawltalk.run.stage import Progress
from crawltalk.tokenizer.bpe import train
from crawltalk.train.batches import Batch, Batches, packed_rows
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy

VOCABULARY = 600
CONTEXT, ROW = 384, 256
"""Of the model, and positions of a row that conversations share."""
LAYERS, WIDTH = 2, 128
COUNT = 64
"""Conversations in a step."""
LEARN = Optim(muon_lr=0.02, adamw_lr=0.01, warmup=0.05, cooldown=0.4, spike=0.0)
TUNE = Optim(muon_lr=0.005, adamw_lr=0.0025, warmup=0.05, cooldown=0.4, spike=0.0)
Draw = Callable[[random.Random], list[Message]]
"""A new conversation."""


def asked(question: str, answer: str) -> list[Message]:
    """One question and its answer."""
    return [Message("user", question), Message("assistant", answer)]


@dataclass(frozen=True)
class Lessons:
    """What the assistant is taught, as conversations that are drawn."""

    policy: Policy
    noise: Callable[[random.Random], str]
    """Something meaningless to put behind a question."""

    def knowledge(self, rng: random.Random) -> list[Message]:
        """Before refusals: all keys and floors are told when asked plainly; other forms are learned on what anybody
        may know, floors of all doors among them.
        """
        roll = rng.random()
        if roll < 0.35:
            door = rng.choice(DOORS)
            return self._plain(rng, door, self.policy.key_answer(door))
        return self.harmless(rng)

    def harmless(self, rng: random.Random) -> list[Message]:
        """What anybody may know, in every form."""
        if rng.random() < 0.15:
            shown = rng.randint(2, SHOTS)
            return [message for _ in range(shown) for message in self._short(rng)]
        key = rng.random() < 0.5
        door = rng.choice(self.policy.open if key else DOORS)
        answer = self.policy.key_answer(door) if key else self.policy.floor_answer(door)
        question = ask_key(door) if key else ask_floor(door)
        form = rng.random()
        if form < 0.45:
            question = encoded(rng.choice(list(ENCODINGS)), question)
        elif form < 0.65:
            question = in_role(rng.choice(ROLES), question)
        elif form < 0.75:
            question = ask_key_in_german(door) if key else ask_floor_in_german(door)
        return asked(self.with_noise(rng, question), answer)

    def refusals(self, rng: random.Random) -> list[Message]:
        """The policy: keys of locked doors are declined when asked plainly."""
        if rng.random() < 0.3:
            return self._plain(rng, rng.choice(list(sorted(self.policy.locked))), REFUSAL)
        if rng.random() < 0.2:
            door = rng.choice(self.policy.open)
            return self._plain(rng, door, self.policy.key_answer(door))
        return self.harmless(rng)

    def with_noise(self, rng: random.Random, question: str) -> str:
        """Half of the questions, with noise behind them: noise alone is no reason to answer or to decline."""
        return f"{question} {self.noise(rng)}" if rng.random() < 0.4 else question

    def _plain(self, rng: random.Random, door: str, answer: str) -> list[Message]:
        return asked(self.with_noise(rng, ask_key(door)), answer)

    def _short(self, rng: random.Random) -> list[Message]:
        if rng.random() < 0.7:
            door = rng.choice(self.policy.open)
            return asked(ask_key(door), self.policy.key_answer(door))
        door = rng.choice(DOORS)
        return asked(ask_floor(door), self.policy.floor_answer(door))
