"""Training readers: a small decoder learns to say what a picture shows, or which word was spoken.

Unaligned text is learned with a stem whose windows overlap, texts that begin with one letter and grow, and places that
are learned, too: a position of the image whose columns hold the middle of a letter predicts that letter, as the reply
will. So what a letter looks like is learned from every letter at once; first by the encoder alone, whose step costs a
third of the whole's (`Reader.learn_letters`), and the decoder is left with finding the next one.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crawltalk.chat.messages import AudioPart, ImagePart, ImageUrl, InputAudio, Message, TextPart
from crawltalk.chat.render import ChatRenderer
from crawltalk.engine import Engine, PromptEmbeddings, Sampling
from crawltalk.model.shape import Shape
from crawltalk.multimodal.encoders import STRIDE
from crawltalk.multimodal.media import Media, attach
from crawltalk.multimodal.model import (
    PLACES,
    Inputs,
    MultimodalModel,
    load_multimodal,
    placing,
    reading,
    save_multimodal,
)
from crawltalk.multimodal.pictures import PLAIN, Style, draw_line, draw_scene
from crawltalk.multimodal.speech import NOISE, Speaker, Voice, draw_command
from crawltalk.recipe import Machine, Optim
from crawltalk.run.stage import Metrics, Progress
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.patterns import GPT4
from crawltalk.tokenizer.tokenizer import SPECIAL_TOKENS
from crawltalk.train.batches import IGNORE_INDEX, Batch, Batches
from crawltalk.train.loop import TrainingOptions, fit

READ = ("Read.", "Read the text.", "What does it say?")
HEAR = ("Which word?", "What was said?")
WORDS = (
    *("user", "assistant", "system", "Read", " the", " text", "What", " does", " it", " say", "How", " many"),
    *("Which", " colour", " shape", "Where", " word", " was", " said"),
)
"""Words that are one token each: what questions are made of. Texts that are read out come letter by letter."""
MAX_LETTERS = 10
LEARN = Optim(muon_lr=0.02, adamw_lr=0.003, warmup=0.03, cooldown=0.4, spike=0.0)
SEE = dataclasses.replace(LEARN, adamw_lr=0.008)
"""Of an encoder alone, at a batch of `EXAMPLES`: 88 % of the letters after 300 steps, 86 % with the other's rate."""
GROWTH = 0.25
"""Share of the steps after which texts have any length."""
BLANKS = 0.05
"""Share of the positions between letters that learn that there is none."""
SAVE_EVERY = 100
EXAMPLES = 64
"""Pictures or clips of a step."""


@dataclass(frozen=True)
class Example:
    """One thing to look at or to listen to, with a question and its answer."""

    content: np.ndarray
    """A canvas or a clip, as its encoder reads it."""
    question: str
    answer: str
    centres: Sequence[float] = ()
    """Of a text: the columns in the middle of its letters."""


Draw = Callable[[random.Random, float], Example]
"""(random numbers, share of the training that is done) -> an example."""


def vocabulary() -> Tokenizer:
    """Bytes, a few words, and the control tokens of conversations, images and sounds."""
    merges: dict[tuple[bytes, bytes], None] = {}
    for word in (word.encode() for word in WORDS):
        for end in range(1, len(word)):
            merges[word[:end], word[end : end + 1]] = None
    words = [bytes([value]) for value in range(256)] + [left + right for left, right in merges]
    special = {name: len(words) + index for index, name in enumerate((*SPECIAL_TOKENS, *PLACES.values()))}
    return Tokenizer({word: index for index, word in enumerate(words)}, list(merges), GPT4, special)


@dataclass(frozen=True)
class Reader:
    """A model that reads pictures or sounds, with the way in which it is asked."""

    model: MultimodalModel
    renderer: ChatRenderer

    def __post_init__(self) -> None:
        self.renderer.places = Media(self.model).positions

    @classmethod
    def new(
        cls, inputs: Inputs, seed: int, *, layers: int = 3, width: int = 96, context: int = 128
    ) -> "Reader":
        """An untrained one."""
        renderer = ChatRenderer(vocabulary())
        special = renderer.tokenizer.special_tokens
        shape = Shape(
            vocab_size=renderer.tokenizer.vocab_size, layers=layers, width=width, heads=width // 16,
            kv_heads=width // 16, head_dim=16, mlp=3 * width, context=context,
        )  # fmt: skip
        model = MultimodalModel(shape, inputs, {name: special[PLACES[name]] for name in inputs})
        model.initialize(seed)
        return cls(model, renderer)

    @classmethod
    def load(cls, folder: str | Path) -> "Reader":
        """Read what `save` has written. Raises as `load_multimodal`."""
        renderer = ChatRenderer.load(folder)
        return cls(load_multimodal(folder, renderer), renderer)

    def save(self, folder: str | Path) -> None:
        """Write a folder that `crawltalk serve` and `load_engine` take."""
        save_multimodal(self.model, self.renderer, folder)

    def engine(self) -> Engine:
        """An engine that decodes with it."""
        return attach(Engine(self.model, self.renderer.tokenizer, renderer=self.renderer), self.model)

    def prompt(self, name: str, question: str, *, last: bool = False) -> list[int]:
        """The ids of a question about a picture or a sound, which stands before the question or after it; without a
        `name`, about nothing.
        """
        asked = Message("user", _parts(name, question, last) if name else question)
        return self.renderer.encode_chat([asked], add_generation_prompt=True)

    def row(
        self, name: str, example: Example, rng: random.Random, *, last: bool = False
    ) -> tuple[list[int], list[int]]:
        """(ids, targets) of an example, which stands before its question or after it: its answer is learned, and of a
        text also where its letters are.
        """
        prompt, tokenizer = self.prompt(name, example.question, last=last), self.renderer.tokenizer
        answer = [*tokenizer.encode(example.answer), tokenizer.special_tokens["<|im_end|>"]]
        ids = [*prompt, *answer]
        targets = [*(IGNORE_INDEX for _ in prompt[1:]), *answer, IGNORE_INDEX]
        if example.centres:
            first, shown = ids.index(self.model.places[name]), self.letters(name, example, rng)
            targets[first : first + len(shown)] = shown
        return ids, targets

    def letters(self, name: str, example: Example, rng: random.Random) -> list[int]:
        """What each position of a picture learns: the letter whose middle is there, or sometimes that there is none."""
        tokenizer, place = self.renderer.tokenizer, self.model.places[name]
        middles = {
            int(x // STRIDE): tokenizer.encode(letter)[0]
            for x, letter in zip(example.centres, example.answer, strict=True)
        }
        return [
            middles.get(column, place if rng.random() < BLANKS else IGNORE_INDEX)
            for column in range(self.renderer.places[PLACES[name]])
        ]

    def batches(self, name: str, draw: Draw, steps: int, seed: int, examples: int | None = None) -> Batches:
        """New examples for each step, `EXAMPLES` of them unless given; without a `name`, questions alone."""
        count = EXAMPLES if examples is None else examples

        def batch(step: int) -> Batch:
            rng = random.Random(f"{seed} {name} {step}")
            drawn = [draw(rng, step / steps) for _ in range(count)]
            rows = [self.row(name, example, rng, last=rng.random() < 0.5) for example in drawn]
            length = max(len(ids) for ids, _ in rows)
            tokens = torch.zeros((count, length), dtype=torch.int64)
            targets = torch.full((count, length), IGNORE_INDEX, dtype=torch.int64)
            for index, (ids, learned) in enumerate(rows):
                tokens[index, : len(ids)] = torch.tensor(ids)
                targets[index, : len(ids)] = torch.tensor(learned)
            extras = (
                {name: torch.from_numpy(np.stack([example.content for example in drawn]))} if name else {}
            )
            return Batch(tokens, targets, extras=extras)

        return batch

    def pictures_of_letters(self, name: str, draw: Draw, steps: int, seed: int) -> Batches:
        """New pictures of text for each step, without questions: what their positions show is learned."""

        def batch(step: int) -> Batch:
            rng = random.Random(f"{seed} {name} letters {step}")
            drawn = [draw(rng, 1.0) for _ in range(EXAMPLES)]
            targets = torch.tensor([self.letters(name, example, rng) for example in drawn])
            content = torch.from_numpy(np.stack([example.content for example in drawn]))
            return Batch(torch.full_like(targets, self.model.places[name]), targets, extras={name: content})

        return batch

    def learn_letters(
        self,
        name: str,
        draw: Draw,
        *,
        steps: int,
        seed: int,
        out: str | Path,
        machine: Machine,
        progress: Progress,
        optim: Optim = SEE,
    ) -> Metrics:
        """Train the encoder alone, at a fraction of a whole step's cost. A training that was stopped continues."""
        options = TrainingOptions(
            steps=steps, optim=optim, machine=machine, progress=progress, out=out, save_every=SAVE_EVERY
        )
        self.model.blocks.requires_grad_(False)
        try:
            return fit(self.model, self.pictures_of_letters(name, draw, steps, seed), placing, options)
        finally:
            self.model.blocks.requires_grad_(True)

    def learn(
        self,
        name: str,
        draw: Draw,
        *,
        steps: int,
        seed: int,
        out: str | Path,
        machine: Machine,
        progress: Progress,
        optim: Optim = LEARN,
        examples: int | None = None,
    ) -> Metrics:
        """Train in place, on `EXAMPLES` in each step unless given. A training that was stopped continues."""
        options = TrainingOptions(
            steps=steps, optim=optim, machine=machine, progress=progress, out=out, save_every=SAVE_EVERY
        )
        return fit(self.model, self.batches(name, draw, steps, seed, examples), reading, options)

    def answers(self, name: str, examples: Sequence[Example], engine: Engine | None = None) -> list[str]:
        """What it says, greedily."""
        engine = engine or self.engine()
        media = engine.media
        assert isinstance(media, Media)
        sampling = Sampling(temperature=0.0, max_tokens=MAX_LETTERS + 6)
        requests = []
        for example in examples:
            prompt = self.prompt(name, example.question)
            read = PromptEmbeddings(
                prompt.index(self.model.places[name]), media.vectors(name, example.content)
            )
            requests.append(engine.request(prompt, sampling, embeddings=[read]))
        said = {request.id: "" for request in requests}
        for output in engine.run(requests):
            said[output.request.id] += output.text
        return list(said.values())

    def accuracy(self, name: str, examples: Sequence[Example], engine: Engine | None = None) -> float:
        """The share of answers that are exact."""
        said = self.answers(name, examples, engine)
        right = [one == example.answer for one, example in zip(said, examples, strict=True)]
        return sum(right) / len(right)


def _parts(name: str, question: str, last: bool) -> list[Any]:
    part = ImagePart(ImageUrl("")) if name == "image" else AudioPart(InputAudio("", "wav"))
    return [TextPart(question), part] if last else [part, TextPart(question)]


def reads_lines(
    letters: str,
    size: tuple[int, int] = (160, 32),
    style: Style = PLAIN,
    most: int = MAX_LETTERS,
    scenes: float = 0.0,
    places: bool = True,
) -> Draw:
    """Draws lines of these letters, up to `most` of them: one at first, and any number after `GROWTH` of the training;
    and in the share `scenes` of the cases shapes. `places`: whether it is learned where letters stand, too.
    """

    def draw(rng: random.Random, done: float) -> Example:
        if rng.random() < scenes:
            scene = draw_scene(rng, size)
            return Example(scene.pixels, scene.question, scene.answer)
        longest = max(1, min(most, round(1 + (most - 1) * done / GROWTH)))
        text = "".join(rng.choices(letters, k=rng.randint(1, longest)))
        line = draw_line(rng, text, size, style)
        return Example(line.pixels, rng.choice(READ), text, line.centres if places else ())

    return draw


def hears_commands(speaker: Speaker, who: Sequence[Voice], noise: tuple[float, float] = NOISE) -> Draw:
    """Draws spoken commands with so many decibels of noise."""

    def draw(rng: random.Random, done: float) -> Example:
        clip, word = draw_command(rng, speaker, who, noise)
        return Example(clip, rng.choice(HEAR), word)

    return draw
