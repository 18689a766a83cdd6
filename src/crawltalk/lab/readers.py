"""Readers of images and sounds, which several experiments share: readers/seed-N/NAME beside their folders. A reader is
in the folder model of its own, which `crawltalk serve` takes.
"""

import random
from collections.abc import Sequence
from typing import Literal

from crawltalk.lab.experiment import Trial
from crawltalk.multimodal.encoders import AudioInput, ImageInput
from crawltalk.multimodal.model import WEIGHTS, Inputs
from crawltalk.multimodal.pictures import LETTERS, PLAIN, Style, draw_line
from crawltalk.multimodal.reader import Draw, Example, Reader, hears_commands, reads_lines
from crawltalk.multimodal.speech import NOISE, QUIET, Speaker, best_speaker, espeak, voices

IMAGE_STEPS, AUDIO_STEPS = 2400, 300
SCENES = 0.15
"""Share of the pictures that are shapes."""


def image_reader(
    trial: Trial, contrast: Literal["image", "patch"] = "image", *, places: bool = True
) -> Reader:
    """A reader of lines and shapes, of half a million weights."""
    name = f"image-{contrast}" if places else f"image-{contrast}-without-places"
    draw = reads_lines(LETTERS, scenes=SCENES, places=places)
    return _trained(
        trial, name, {"image": ImageInput(contrast=contrast)}, draw, IMAGE_STEPS, layers=3, width=96
    )


def audio_reader(trial: Trial, *, noisy: bool = True) -> Reader:
    """A listener to ten commands, of 150,000 weights, that has learned with noise around the speech or without."""
    speaker = best_speaker()
    draw = hears_commands(speaker, voices(speaker), NOISE if noisy else QUIET)
    name = f"audio-{'noisy' if noisy else 'quiet'}-{name_of(speaker)}"
    return _trained(trial, name, {"audio": AudioInput()}, draw, AUDIO_STEPS, layers=2, width=64)


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
    trial: Trial, name: str, inputs: Inputs, draw: Draw, steps: int, *, layers: int, width: int
) -> Reader:
    folder = trial.out.parents[1] / "readers" / f"seed-{trial.seed}" / name
    [what] = inputs
    if not (folder / "model" / WEIGHTS).exists():
        reader = Reader.new(inputs, trial.seed, layers=layers, width=width)
        reader.learn(
            what,
            draw,
            steps=steps,
            seed=trial.seed,
            out=folder,
            machine=trial.machine,
            progress=trial.progress,
        )
        reader.save(folder / "model")
    return Reader.load(folder / "model")
