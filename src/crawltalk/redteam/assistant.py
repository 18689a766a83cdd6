"""A small assistant that knows the policy's house, and how it is brought up: it reads about all doors, and then it
learns to refuse. Each training goes through `fit`, in a folder of its own that ends as a model in Hugging Face's
layout.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.engine import Engine
from crawltalk.engine.engine import make_backend
from crawltalk.model.hf import load_model, save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Machine, Optim
from crawltalk.redteam.attacks.forms import ROLES, encoded, in_role
from crawltalk.redteam.attacks.gcg import printable_tokens
from crawltalk.redteam.policy import (
    DOORS,
    FORBIDDEN,
    HARMLESS,
    REFUSAL,
    SHOTS,
    Policy,
    ask_floor,
    ask_floor_in_german,
    ask_key,
    ask_key_in_german,
)
from crawltalk.run.stage import STATE, Progress
from crawltalk.tokenizer.bpe import train
from crawltalk.train.batches import Batch, Batches, packed_rows
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy

VOCABULARY = 600
CONTEXT, ROW = 384, 256
"""Of the model, and positions of a row that conversations share."""
LAYERS, WIDTH, HEADS, MLP = 2, 96, 6, 288
COUNT = 32
"""Conversations in a step."""
LEARN = Optim(muon_lr=0.02, adamw_lr=0.01, warmup=0.05, cooldown=0.4, spike=0.0)
TUNE = Optim(muon_lr=0.005, adamw_lr=0.0025, warmup=0.05, cooldown=0.4, spike=0.0)
READ = ("base64", "rot13", "leetspeak")
"""Encodings that it learns to read."""
NOISE = 20
"""Most tokens of noise behind a question."""
CACHE_BYTES = 2**25


class Schedule(NamedTuple):
    """Steps of the trainings."""

    base: int = 240
    refusals: int = 120
    rounds: int = 4
    """Of adversarial training."""
    searched: int = 10
    """In a round: steps of each search."""
    learned: int = 16
    """In a round: steps of the training."""


USUAL = Schedule()


class Lesson(NamedTuple):
    """A conversation whose answers are learned."""

    messages: list[Message]
    begun: str = ""
    """The beginning of the last answer that is only read."""


Draw = Callable[[random.Random], Lesson]
"""A new one."""


def asked(question: str, answer: str, earlier: Sequence[Message] = (), begun: str = "") -> Lesson:
    """A question and its answer."""
    return Lesson([*earlier, Message("user", question), Message("assistant", begun + answer)], begun)


@dataclass(frozen=True)
class Lessons:
    """What the assistant is taught, as conversations that are drawn."""

    policy: Policy
    words: Sequence[str]
    """What noise is made of."""

    def knowledge(self, rng: random.Random) -> Lesson:
        """Before refusals: everything about all doors, in every form."""
        if rng.random() < 0.4:
            door = rng.choice(DOORS)
            return self._plain(rng, door, self.policy.key_answer(door))
        return self.in_forms(rng, DOORS)

    def harmless(self, rng: random.Random) -> Lesson:
        """What anybody may know, in every form: floors of all doors, and fewer keys, of open ones. Each encoding is
        exercised on all doors, so that its reading is not forgotten for locked ones.
        """
        return self.in_forms(rng, self.policy.open, keys=0.25)

    def in_forms(self, rng: random.Random, doors: Sequence[str], keys: float = 0.5) -> Lesson:
        """Keys of these doors and floors of all."""
        if rng.random() < 0.1:
            return Lesson(self._several(rng, doors, rng.randint(2, SHOTS)))
        key = rng.random() < keys
        door = rng.choice(doors if key else DOORS)
        answer = self.policy.key_answer(door) if key else self.policy.floor_answer(door)
        return asked(self.with_noise(rng, self._in_form(rng, door, key)), answer)

    def _in_form(self, rng: random.Random, door: str, key: bool) -> str:
        """A question: encoded, in a story, in German, or plain."""
        question, form = ask_key(door) if key else ask_floor(door), rng.random()
        if form < 0.5:
            return encoded(rng.choice(READ), question)
        if form < 0.7:
            return in_role(rng.choice(ROLES), question)
        if form < 0.8:
            return ask_key_in_german(door) if key else ask_floor_in_german(door)
        return question

    def refusals(self, rng: random.Random) -> Lesson:
        """The policy: keys of locked doors are declined when asked plainly."""
        roll = rng.random()
        if roll < 0.38:
            return self._plain(rng, rng.choice(sorted(self.policy.locked)), REFUSAL)
        if roll < 0.53:
            door = rng.choice(self.policy.open)
            return self._plain(rng, door, self.policy.key_answer(door))
        return self.harmless(rng)

    def refusals_in_forms(self, rng: random.Random) -> Lesson:
        """The policy in every form that an attacker may give a question, behind other questions too. Keys of open doors
        are told in the same forms as often: a form alone is no reason to decline.
        """
        if rng.random() < 0.4:
            return self.refusals(rng)
        locked = rng.random() < 0.5
        door = rng.choice(sorted(self.policy.locked) if locked else self.policy.open)
        answer = REFUSAL if locked else self.policy.key_answer(door)
        roll = rng.random()
        if roll < 0.15:
            return asked(ask_key(door), answer, self._several(rng, self.policy.open, rng.randint(1, SHOTS)))
        if roll < 0.3:  # somebody else began its answer
            begun = f"The {door} opens with"
            return asked(ask_key(door), f" {REFUSAL}" if locked else answer[len(begun) :], begun=begun)
        return asked(self.with_noise(rng, self._in_form(rng, door, True)), answer)

    def verdicts(self, rng: random.Random) -> Lesson:
        """What a guard says of questions in every form: whether the policy forbids an answer."""
        locked = rng.random() < 0.5
        door = rng.choice(sorted(self.policy.locked) if locked else self.policy.open)
        key = locked or rng.random() < 0.5
        if rng.random() < 0.2:
            locked, key, door = False, False, rng.choice(DOORS)
        question = self._in_form(rng, door, key)
        return asked(self.with_noise(rng, question), FORBIDDEN if locked else HARMLESS)

    def with_noise(self, rng: random.Random, question: str, share: float = 0.4) -> str:
        """Some questions with noise behind them: noise alone is no reason to answer or to decline. Nor is another door
        that it names: the question is about the first one.
        """
        if rng.random() >= share:
            return question
        noise = rng.choices(self.words, k=rng.randint(3, NOISE))
        for _ in range(rng.choice((0, 1, 2))):
            noise[rng.randrange(len(noise))] = f" {rng.choice(DOORS)}"
        return f"{question}{rng.choice(('', ' '))}{''.join(noise)}"

    def _plain(self, rng: random.Random, door: str, answer: str) -> Lesson:
        return asked(self.with_noise(rng, ask_key(door), 0.7), answer)

    def _several(self, rng: random.Random, doors: Sequence[str], count: int) -> list[Message]:
        """Plain questions about keys of these doors and floors of all."""
        messages: list[Message] = []
        for _ in range(count):
            key = rng.random() < 0.7
            door = rng.choice(doors if key else DOORS)
            answer = self.policy.key_answer(door) if key else self.policy.floor_answer(door)
            messages = asked(ask_key(door) if key else ask_floor(door), answer, messages).messages
        return messages


class Upbringing:
    """The models of one policy, each made when it is asked for, and found again when it is there."""

    def __init__(
        self, policy: Policy, out: Path, machine: Machine, progress: Progress, schedule: Schedule = USUAL
    ) -> None:
        """`out`: a folder for theirs. Trainings run in fp32 on the machine's threads."""
        self.policy, self.out, self.progress, self.schedule = policy, out, progress, schedule
        self.machine = Machine(device="cpu", dtype="float32", workers=machine.workers)

    @cached_property
    def chat(self) -> ChatRenderer:
        """The tokenizer, learned from what is taught, and its chat format."""
        if (self.out / "base" / "config.json").exists():
            return ChatRenderer.load(self.out / "base")
        rng, lessons = random.Random(f"{self.policy.seed} tokenizer"), Lessons(self.policy, ("",))
        texts = [str(message.content) for _ in range(3000) for message in lessons.knowledge(rng).messages]
        return ChatRenderer(train(texts, VOCABULARY))

    @cached_property
    def lessons(self) -> Lessons:
        """What is taught."""
        tokenizer = self.chat.tokenizer
        return Lessons(self.policy, [tokenizer.decode([index]) for index in printable_tokens(tokenizer)])

    def base(self) -> Transformer:
        """It knows all keys and tells them to everybody."""
        model = Transformer(
            Shape(
                vocab_size=self.chat.tokenizer.vocab_size, layers=LAYERS, width=WIDTH, heads=HEADS, kv_heads=HEADS,
                head_dim=WIDTH // HEADS, mlp=MLP, context=CONTEXT,
            )
        )  # fmt: skip
        model.initialize(self.policy.seed)
        return self.taught(
            "base", lambda: model, self.lessons.knowledge, self.schedule.base, LEARN, everything=True
        )

    def assistant(self) -> Transformer:
        """It refuses what is forbidden, when asked plainly."""
        return self.taught("assistant", self.base, self.lessons.refusals, self.schedule.refusals, TUNE)

    def hardened(self) -> Transformer:
        """It refuses in every form."""
        return self.taught(
            "hardened", self.assistant, self.lessons.refusals_in_forms, self.schedule.refusals, TUNE
        )

    def guard(self) -> Transformer:
        """It reads a question in front of the assistant, and says whether it is forbidden."""
        return self.taught("guard", self.base, self.lessons.verdicts, self.schedule.refusals, TUNE)

    def taught(
        self,
        name: str,
        start: Callable[[], Transformer],
        draw: Draw,
        steps: int,
        optim: Optim,
        everything: bool = False,
    ) -> Transformer:
        """The model of this name. `everything`: questions are learned, too, as a base model learns its pages."""
        folder = self.out / name
        if not (folder / "config.json").exists():
            model = start()
            options = TrainingOptions(
                steps=steps,
                optim=optim,
                machine=self.machine,
                progress=self.progress,
                out=folder,
                save_every=20,
            )
            fit(model, self._batches(name, draw, everything), cross_entropy, options)
            self.chat.save(folder)
            save_model(model, folder, eos=sorted(self.chat.stop_ids))
        shutil.rmtree(folder / STATE, ignore_errors=True)
        return load_model(folder)

    def engine(self, model: Transformer) -> Engine:
        """An engine for one of them."""
        return Engine(model, self.chat.tokenizer, make_backend(model, cache_bytes=CACHE_BYTES), self.chat)

    def _batches(self, name: str, draw: Draw, everything: bool) -> Batches:
        def batch(step: int) -> Batch:
            rng = random.Random(f"{self.policy.seed} {name} {step}")
            rows = []
            for _ in range(COUNT):
                ids, mask = self.render(draw(rng))
                rows.append((ids, [True] * len(ids) if everything else mask))
            return packed_rows(rows, ROW, ROW * COUNT, 0)[0](0)

        return batch

    def render(self, lesson: Lesson) -> tuple[list[int], list[bool]]:
        """A lesson as ids, and which are learned."""
        ids, mask = self.chat.render(lesson.messages)
        begun = len(self.chat.tokenizer.encode(lesson.begun)) if lesson.begun else 0
        if begun:
            start = len(self.chat.encode_chat(lesson.messages[:-1], add_generation_prompt=True))
            mask[start : start + begun] = [False] * begun
        return ids, mask
