"""A student: a Transformer of some 0.1 million parameters with a language of single characters, and the trainings that
the claims about reinforcement put it through. Each goes through `fit` in a folder of its own, so a trial that was
interrupted finds what is done and continues.
"""

import copy
import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from crawltalk.chat.messages import Conversation
from crawltalk.core.errors import UserError
from crawltalk.engine import Engine, Sampling
from crawltalk.lab.experiment import Trial
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.reinforce import Problems, reinforce
from crawltalk.posttraining.rollouts import EngineRollouts
from crawltalk.recipe import Optim
from crawltalk.recipe.grpo import Reinforce
from crawltalk.rewards.verdict import Judge
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.patterns import GPT4
from crawltalk.tokenizer.tokenizer import END_OF_TEXT
from crawltalk.train.batches import Batch, Batches, packed_rows
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy

ROW = 128
"""Positions of a row that examples share, and the context."""
SAVE_EVERY = 20
LEARN = Optim(muon_lr=0.02, adamw_lr=0.01, warmup=0.05, cooldown=0.2, spike=0.0)
"""Of supervised trainings, unless an experiment says otherwise."""


class Example(NamedTuple):
    """What a supervised training learns from."""

    prompt: str
    """Read only."""
    reply: str
    """Learned, with the end of the text."""


class Reply(NamedTuple):
    """What a student said."""

    text: str
    tokens: int
    """With the one that ended it, if one did."""


def characters(alphabet: str) -> Tokenizer:
    """A tokenizer whose tokens are these ASCII characters and the end of a text."""
    vocab = {character.encode(): index for index, character in enumerate(alphabet)}
    return Tokenizer(vocab, None, GPT4, {END_OF_TEXT: len(vocab)})


class Course(NamedTuple):
    """How a reinforcement went."""

    rows: list[dict[str, Any]]
    """Of its log."""
    stopped: str
    """Why it ended early; empty if it did not."""

    def curve(self, figure: str) -> list[float]:
        """A figure of each step."""
        return [round(row[figure], 4) for row in self.rows if figure in row]


class Student:
    """A model, its engine, and the trial that it belongs to."""

    def __init__(
        self,
        trial: Trial,
        alphabet: str | Tokenizer,
        *,
        context: int = ROW,
        layers: int = 2,
        width: int = 64,
        mlp: int = 192,
        head_dim: int = 16,
        dtype: str = "float32",
    ) -> None:
        """`alphabet`: its characters, or a tokenizer of its own; `dtype`: of the products of trainings. Sampling
        computes in fp32.
        """
        self.tokenizer = characters(alphabet) if isinstance(alphabet, str) else alphabet
        shape = Shape(
            vocab_size=self.tokenizer.vocab_size, layers=layers, width=width, heads=width // head_dim,
            kv_heads=width // head_dim, head_dim=head_dim, mlp=mlp, context=context,
        )  # fmt: skip
        self.trial = dataclasses.replace(trial, machine=dataclasses.replace(trial.machine, dtype=dtype))
        self.model = Transformer(shape)
        self.model.initialize(trial.seed)
        self.engine = Engine(self.model, self.tokenizer)

    def copy(self) -> "Student":
        """Another one that has learned the same."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.engine = Engine(other.model, self.tokenizer)
        return other

    def learn(
        self,
        name: str,
        draw: Callable[[random.Random], Example | Conversation],
        steps: int,
        count: int = 64,
        optim: Optim = LEARN,
        learned: Callable[[str], Sequence[bool]] | None = None,
    ) -> None:
        """Learn from `count` new examples a step. `learned` says of each character of a reply whether it counts."""

        def drawn(step: int) -> list[Example | Conversation]:
            rng = random.Random(f"{self.trial.seed} {name} {step}")
            return [draw(rng) for _ in range(count)]

        self._fit(name, self._batches(drawn, count, learned), steps, optim)

    def study(self, name: str, examples: Sequence[Example], optim: Optim, count: int = 32) -> None:
        """Learn from each of these examples once, in their order, `count` a step."""
        batches = self._batches(lambda step: examples[step * count : (step + 1) * count], count)
        self._fit(name, batches, -(-len(examples) // count), optim)

    def reinforce(
        self,
        name: str,
        problems: Problems,
        judge: Judge,
        config: Reinforce,
        optim: Optim,
        evaluate: Callable[["Student"], dict[str, Any]] | None = None,
        every: int = 0,
    ) -> Course:
        """Learn from rewards; the log has what `evaluate` says every so many steps. Where nothing is rewarded, or all
        is, it ends early.
        """
        rollouts = EngineRollouts(self.engine, lambda problem: self.encode(problem.prompt), config.max_tokens)

        def measure(_: int, model: Transformer) -> dict[str, Any]:
            assert evaluate is not None
            self.engine.update_weights(model)
            return evaluate(self)

        stopped = ""
        try:
            reinforce(
                self.model, rollouts, problems, judge, config,
                self._options(name, config.steps, optim, every if evaluate else 0), self.trial.seed,
                evaluate=measure if evaluate else None,
            )  # fmt: skip
        except UserError as error:
            stopped = str(error)
        self.engine.update_weights(self.model)
        log = self.trial.out / name / "log.jsonl"
        return Course([json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()], stopped)

    def answer(
        self, prompts: Sequence[str], temperature: float = 0.0, max_tokens: int = 64, seed: int = 0
    ) -> list[Reply]:
        """A reply to each prompt; those of equal prompts differ."""
        ids = [self.encode(prompt) for prompt in prompts]
        sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
        replies = self.engine.generate(ids, sampling)
        return [
            Reply(self.tokenizer.decode(reply), len(reply) + (len(reply) < max_tokens)) for reply in replies
        ]

    def follows(self, prompt: str) -> dict[str, float]:
        """The probability of each character to be the next one."""
        chances = self.engine.logits(self.encode(prompt))[-1].softmax(0).tolist()
        return {self.tokenizer.decode([index]): chance for index, chance in enumerate(chances)}

    def encode(self, prompt: str) -> list[int]:
        """A prompt as the model reads it."""
        return [self.tokenizer.eot, *self.tokenizer.encode(prompt)]

    def _fit(self, name: str, batches: Batches, steps: int, optim: Optim) -> None:
        fit(self.model, batches, cross_entropy, self._options(name, steps, optim))
        self.engine.update_weights(self.model)

    def _batches(
        self,
        examples_of: Callable[[int], Sequence[Example | Conversation]],
        count: int,
        learned: Callable[[str], Sequence[bool]] | None = None,
    ) -> Batches:
        """The examples of each step, packed into rows."""

        def row(example: Example | Conversation) -> tuple[list[int], list[bool]]:
            if isinstance(example, Conversation):
                return self.engine.renderer.render(example.messages)
            prompt, reply = self.encode(example.prompt), self.tokenizer.encode(example.reply)
            mask = [True] * len(reply) if learned is None else list(learned(example.reply))
            return [*prompt, *reply, self.tokenizer.eot], [*[False] * len(prompt), *mask, learned is None]

        def batch(step: int) -> Batch:
            length = self.model.shape.context
            everything, _ = packed_rows(list(map(row, examples_of(step))), length, length * count, 0)
            return everything(0)

        return batch

    def _options(self, name: str, steps: int, optim: Optim, evaluate_every: int = 0) -> TrainingOptions:
        return TrainingOptions(
            steps=steps,
            optim=optim,
            machine=self.trial.machine,
            progress=self.trial.progress,
            out=self.trial.out / name,
            save_every=SAVE_EVERY,
            evaluate_every=evaluate_every,
        )
