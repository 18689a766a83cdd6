"""Readers of images and sounds, which several experiments share: readers/seed-N/NAME beside their folders. A reader is
in the folder model of its own, which `crawltalk serve` takes.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from crawltalk.lab.experiment import Trial
from crawltalk.multimodal.encoders import AudioInput, ImageInput
from crawltalk.multimodal.model import WEIGHTS
from crawltalk.multimodal.pictures import LETTERS, PLAIN, Style, draw_line
from crawltalk.multimodal.reader import Draw, Example, Reader, hears_commands, reads_lines
from crawltalk.multimodal.sounds import FLOOR
from crawltalk.multimodal.speech import NOISE, QUIET, Speaker, best_speaker, espeak, voices

FOLDER = "readers"
"""Where they stand among the results of the experiments."""
LETTER_STEPS, IMAGE_STEPS, AUDIO_STEPS = 1000, 2000, 300
"""Of an image's encoder alone, of the whole reader, and of a listener."""
NORMALISING_STEPS = (300, 300)
"""Of the whole, and before of the encoder alone, after it reads the contrast of each patch."""
WITHOUT_PLACES = 2700
"""Steps of a reader that learns from answers alone: as much CPU time as the other's two trainings."""
PICTURES = 32
"""Of a step of the whole reader."""
LEARNED = LETTERS + 3 * "O0"
"""Letters that look alike are drawn more often."""
SCENES = 0.15
"""Share of the pictures that are shapes."""


def image_reader(trial: Trial, *, places: bool = True) -> Reader:
    """A reader of lines and shapes, of half a million weights. Without `places` it learns from answers alone, in more
    steps, which take the same time.
    """
    draw = reads_lines(LEARNED, scenes=SCENES, places=places)
    name, steps = ("image", IMAGE_STEPS) if places else ("image-without-places", WITHOUT_PLACES)
    return _trained(
        trial,
        name,
        lambda: Reader.new({"image": ImageInput()}, trial.seed, layers=3, width=96),
        draw,
        steps,
        LETTER_STEPS if places else 0,
        PICTURES,
    )


def normalising_reader(trial: Trial) -> Reader:
    """The same reader, trained on with the contrast of each patch normalised."""
    before = image_reader(trial)

    def start() -> Reader:
        reader = Reader.new({"image": ImageInput(contrast="patch")}, trial.seed, layers=3, width=96)
        reader.model.load_state_dict(before.model.state_dict())
        return reader

    draw = reads_lines(LEARNED, scenes=SCENES)
    return _trained(trial, "image-normalising", start, draw, *NORMALISING_STEPS, PICTURES)


def audio_reader(trial: Trial, *, noisy: bool = True, floor: float = FLOOR) -> Reader:
    """A listener to ten commands, of 150,000 weights, that has learned with noise around the speech or without.
    `floor`: as `AudioInput` has it.
    """
    speaker = best_speaker()
    draw = hears_commands(speaker, voices(speaker), NOISE if noisy else QUIET)
    name = f"audio-{'noisy' if noisy else 'quiet'}-{10 * math.log10(floor):.0f}dB-{name_of(speaker)}"
    inputs = {"audio": AudioInput(floor=floor)}
    return _trained(
        trial, name, lambda: Reader.new(inputs, trial.seed, layers=2, width=64), draw, AUDIO_STEPS
    )


def name_of(speaker: Speaker) -> str:
    """As figures name it."""
    return "espeak-ng" if speaker is espeak else "formants"


def lines(
    count: int, length: int, seed: str, style: Style = PLAIN, names: Sequence[str] | None = None
) -> list[Example]:
    """Pictures of so many letters that no training has seen."""
    rng = random.Random(f"lines {length} {seed}")
    drawn = [
        draw_line(rng, "".join(rng.choices(LETTERS, k=length)), style=style, names=names)
        for _ in range(count)
    ]
    return [Example(one.pixels, "Read.", one.text) for one in drawn]


def _trained(
    trial: Trial,
    name: str,
    start: Callable[[], Reader],
    draw: Draw,
    steps: int,
    letter_steps: int = 0,
    examples: int | None = None,
) -> Reader:
    folder = trial.out.parents[1] / FOLDER / f"seed-{trial.seed}" / name
    if not (folder / "model" / WEIGHTS).exists():
        reader = start()
        [what] = reader.model.inputs
        options: Any = {"seed": trial.seed, "machine": trial.machine, "progress": trial.progress}
        if letter_steps:
            reader.learn_letters(
                what, reads_lines(LEARNED), steps=letter_steps, out=folder / "letters", **options
            )
        reader.learn(what, draw, steps=steps, out=folder, examples=examples, **options)
        reader.save(folder / "model")
    return Reader.load(folder / "model")
