"""Pictures to learn from, drawn by Pillow on the spot: lines of text in the fonts of the system, and shapes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crawltalk.multimodal.images import pillow

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
FONT_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "LiberationSans-Regular"),
    *(
        "LiberationMono-Regular",
        "LiberationSerif-Bold",
        "arial",
        "verdana",
        "times",
        "cour",
        "Helvetica",
        "Courier",
    ),
)
"""Names of files to learn from, where the system has them; Pillow's own font is always among them."""
HELD_OUT_FONTS = ("DejaVuSerif-Bold", "LiberationSans-Bold", "LiberationSerif-Regular", "georgia", "tahoma")
"""Never learned from."""
OWN = "Pillow's own"
COLOURS = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220), "yellow": (230, 200, 40),
    "black": (20, 20, 20), "purple": (150, 60, 180),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle")
PLACES = ("left", "middle", "right")


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a line of text is drawn; each pair is the least and the most."""

    sizes: tuple[int, int] = (13, 22)
    """Pixels."""
    contrast: tuple[float, float] = (0.35, 1.0)
    """Between the brightness of text and ground, of the whole range."""
    noise: float = 0.04
    """Most standard deviation of noise on each pixel, of the whole range."""
    aligned: bool = False
    """Whether each letter stands in a cell of its own, in the middle of the height, at one size."""
    ground: tuple[int, int, int] | None = None
    """The colour of the ground, on which the text is darker if it can be; None: any, and either."""


PLAIN = Style()
"""Text that a person reads with ease."""


@dataclass(frozen=True)
class Line:
    """A picture of a line of text."""

    pixels: np.ndarray
    """float32 [height, width, 3] in 0..1."""
    text: str
    centres: list[float]
    """The column in the middle of each letter."""


@lru_cache(maxsize=1)
def system_fonts() -> dict[str, Path]:
    """The TrueType fonts of the system, by the names of their files."""
    folders = [Path(folder).expanduser() for folder in FONT_FOLDERS]
    files = [path for folder in folders if folder.is_dir() for path in sorted(folder.rglob("*.[to]tf"))]
    return {path.stem: path for path in files}


def fonts(names: Sequence[str] = FONTS) -> list[str]:
    """Those of these names that the system has, and Pillow's own, unless held-out ones are asked for."""
    found = [name for name in names if name in system_fonts()]
    return found if names == HELD_OUT_FONTS else [OWN, *found]


@lru_cache(maxsize=512)
def load_font(name: str, size: int) -> Any:
    """A font in a size."""
    _, _, font_module, _ = pillow()
    if name == OWN:
        return font_module.load_default(size)
    return font_module.truetype(str(system_fonts()[name]), size)


def draw_line(
    rng: random.Random,
    text: str,
    size: tuple[int, int] = (160, 32),
    style: Style = PLAIN,
    names: Sequence[str] | None = None,
) -> Line:
    """A line of text on a canvas of (width, height), where it may stand anywhere. A font that is too wide gives way to
    another, and sizes shrink until the line fits.
    """
    image_module, draw_module, _, _ = pillow()
    width, height = size
    names = fonts() if names is None else names
    ground, ink = _colours(rng, style)
    image = image_module.new("RGB", size, ground)
    draw = draw_module.Draw(image)
    centres: list[float] = []
    if style.aligned:
        font = load_font(rng.choice(names), style.sizes[0])
        for index, letter in enumerate(text):
            centres.append(20 * index + 10.0)
            draw.text((centres[-1], height / 2), letter, font=font, fill=ink, anchor="mm")
    else:
        name, most = rng.choice(names), rng.randint(*style.sizes)
        font, (left, top, right, bottom) = _fitting(text, name, most, width - 4)
        x = rng.randint(1, max(1, width - int(right - left) - 2)) - left
        y = rng.randint(1, max(1, height - int(bottom - top) - 1)) - top
        draw.text((x, y), text, font=font, fill=ink)
        for letter in text:
            width = _advance(font, letter)
            centres.append(x + width / 2)
            x += width
    pixels = np.asarray(image, np.float32) / 255
    if style.noise:  # torch draws normal numbers six times as fast as numpy
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(rng.getrandbits(32)))
        torch.from_numpy(pixels).add_(noise, alpha=style.noise * rng.random()).clamp_(0, 1)
    return Line(pixels, text, centres)


@lru_cache(maxsize=20_000)
def _advance(font: Any, letter: str) -> float:
    """The width of a letter."""
    return font.getlength(letter)


def _fitting(text: str, name: str, size: int, width: int) -> tuple[Any, tuple[float, float, float, float]]:
    """The font in the largest size up to `size` in which the text is no wider, and the box of the text."""
    font = load_font(name, size)
    box = font.getbbox(text)
    return _fitting(text, name, size - 1, width) if box[2] - box[0] > width and size > 5 else (font, box)


def _colours(rng: random.Random, style: Style) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of ground and ink: grey levels with a little colour, as far apart as the style says."""
    while True:
        contrast = rng.uniform(*style.contrast)
        if style.ground is not None:
            ground = style.ground
            level = sum(ground) / 765
        else:
            level = rng.random()
            ground = _tinted(rng, level)
        signs = [sign for sign in (-1, 1) if 0 <= level + sign * contrast <= 1]
        if signs:
            shift = (signs[0] if style.ground is not None else rng.choice(signs)) * contrast
            return ground, tuple(min(255, max(0, round(part + 255 * shift))) for part in ground)


def _tinted(rng: random.Random, level: float) -> tuple[int, ...]:
    tint = 24 if rng.random() < 0.5 else 0
    return tuple(min(255, max(0, round(255 * level) + rng.randint(-tint, tint))) for _ in range(3))


@dataclass(frozen=True)
class Scene:
    """A picture of shapes, with a question and its answer."""

    pixels: np.ndarray
    """float32 [height, width, 3] in 0..1."""
    question: str
    answer: str


def draw_scene(rng: random.Random, size: tuple[int, int] = (160, 32)) -> Scene:
    """One to five shapes of one kind and one colour on a canvas of (width, height), in one third of it if they are
    few, and a question about their number, colour, kind or place.
    """
    image_module, draw_module, _, _ = pillow()
    width, height = size
    count, shape, colour = rng.randint(1, 5), rng.choice(SHAPES), rng.choice(list(COLOURS))
    side = height // 2
    third = rng.randrange(3)
    room = (width // 3 * third + 2, width // 3 * (third + 1) - 2)
    if count * (side + 3) > room[1] - room[0]:
        room, third = (2, width - 2), -1
    slack = room[1] - room[0] - count * (side + 3)
    image = image_module.new("RGB", size, (rng.randint(235, 255),) * 3)
    draw = draw_module.Draw(image)
    x = room[0]
    for _ in range(count):
        step = rng.randint(0, slack // count)
        x, y = x + step, rng.randint(1, height - side - 2)
        box = (x, y, x + side, y + side)
        if shape == "circle":
            draw.ellipse(box, fill=COLOURS[colour])
        elif shape == "square":
            draw.rectangle(box, fill=COLOURS[colour])
        else:
            draw.polygon([(x, y + side), (x + side, y + side), (x + side / 2, y)], fill=COLOURS[colour])
        x += side + 3
    answers = {"How many?": str(count), "Which colour?": colour, "Which shape?": shape}
    if third >= 0:
        answers["Where?"] = PLACES[third]
    question = rng.choice(list(answers))
    return Scene(np.asarray(image, np.float32) / 255, question, answers[question])
