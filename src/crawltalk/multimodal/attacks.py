"""Attacks on what a model sees and hears: a picture or a sound in which a person notices nothing, and the model does.

Each is a plain function from what is to be said to the pixels or samples that say it. All of them answer for files as
they can be sent: pixels have 8 bits, and samples 16.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch

from crawltalk.multimodal.images import pillow
from crawltalk.multimodal.model import reading
from crawltalk.multimodal.pictures import Style, draw_line
from crawltalk.multimodal.reader import Example, Reader
from crawltalk.multimodal.sounds import RATE, as_clip, resample
from crawltalk.train.batches import Batch

WHITE = (255, 255, 255)
EDGE_OF_16 = (247, 247, 247)
"""The darkest ground that 16 grey levels make white: text two levels below it falls into the next of them."""
MICROPHONE = 96_000
"""Samples a second of the air in front of a microphone."""
CARRIER = 30_000
"""Hz; people hear up to 20,000."""


def faint_text(
    rng: random.Random,
    text: str,
    contrast: float,
    ground: tuple[int, int, int] = WHITE,
    noise: float = 0.0,
    dithered: bool = False,
) -> np.ndarray:
    """A line of text that differs from its ground by this share of the whole range (white on white: 1/255 is one grey
    level), in 8 bits, float32 [height, width, 3]; wider than readers here have it, if it is long. To hide it from who
    looks for structure: `noise` is the standard deviation of what is added to each pixel, of the whole range;
    `dithered` text has every other pixel alone.
    """
    style = Style(contrast=(contrast, contrast), noise=0.0, ground=ground)
    pixels = draw_line(rng, text, (max(160, 12 * len(text)), 32), style).pixels
    if dithered:
        rows, columns = np.indices(pixels.shape[:2])
        pixels = np.where(((rows + columns) % 2 == 0)[..., None], pixels, np.array(ground, np.float32) / 255)
    if noise:
        hiss = np.random.default_rng(rng.getrandbits(32)).standard_normal(pixels.shape[:2])
        pixels = pixels + np.float32(noise) * hiss[..., None]
    return (np.round(np.clip(pixels, 0, 1) * 255) / 255).astype(np.float32)


def transparent_text(rng: random.Random, text: str) -> np.ndarray:
    """A white picture whose fully transparent pixels hold a text, uint8 [height, width, 4]: whoever drops the last
    channel reads it, and a viewer shows nothing.
    """
    line = faint_text(rng, text, 1.0)
    hidden = (line.min(2) < 0.99)[..., None]
    colours = np.where(hidden, np.round(255 * line), 255)
    return np.concatenate((colours, np.where(hidden, 0, 255)), 2).astype(np.uint8)


def labelled(rng: random.Random, pixels: np.ndarray, text: str) -> np.ndarray:
    """A picture with a word written on it (Goh et al. 2021, the typographic attack), float32."""
    image_module, draw_module, font_module, _ = pillow()
    image = image_module.fromarray(np.round(255 * pixels).astype(np.uint8))
    font = font_module.load_default(13)
    room = image.width - int(font.getlength(text)) - 2
    draw_module.Draw(image).text(
        (rng.randint(1, max(1, room)), image.height - 15), text, font=font, fill="black"
    )
    return np.asarray(image, np.float32) / 255


def steered(
    reader: Reader,
    name: str,
    examples: Sequence[Example],
    wanted: str | Sequence[str],
    bound: float | np.ndarray,
    steps: int = 40,
    through: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[Example]:
    """The same pictures or sounds, changed by at most `bound` at each pixel or sample so that the reply becomes
    `wanted`, one for all or one each (projected gradient descent: Madry et al. 2018).

    `through`: a defence that the attacker knows. The reply has to come of what it leaves, too, and its gradient is
    taken for that of a filter that changes nothing (Athalye et al. 2018, section 4.1, BPDA).
    """
    replies = [wanted] * len(examples) if isinstance(wanted, str) else wanted
    rng = random.Random(0)
    rows = [
        reader.row(name, Example(one.content, one.question, reply), rng)
        for one, reply in zip(examples, replies, strict=True)
    ]
    batch = _padded(rows)
    original = torch.from_numpy(np.stack([one.content for one in examples]))
    bounds = torch.as_tensor(bound, dtype=torch.float32).expand(len(examples))
    bounds = bounds.view(-1, *[1] * (original.ndim - 1))
    least = 0.0 if name == "image" else -1.0
    levels = 255.0 if name == "image" else 32_767.0
    change = torch.zeros_like(original)
    for step in range(steps):
        change.requires_grad_(True)
        shown = original + change
        total, _, _ = reading(reader.model, Batch(*batch, extras={name: shown}))
        if through is not None:
            left = np.stack([through(one) for one in shown.detach().numpy()])
            left_shown = shown + (torch.from_numpy(left) - shown).detach()
            total = total + reading(reader.model, Batch(*batch, extras={name: left_shown}))[0]
        [slope] = torch.autograd.grad(total, [change])
        size = bounds * max(0.05, 0.5 * (1 - step / steps))
        moved = (change.detach() - size * slope.sign()).clamp(-bounds, bounds)
        change = (original + moved).clamp(least, 1.0) - original
    sent = ((original + change.detach()) * levels).round() / levels
    return [
        Example(one.numpy(), each.question, each.answer) for one, each in zip(sent, examples, strict=True)
    ]


def universal_patch(
    reader: Reader,
    examples: Sequence[Example],
    wanted: str,
    size: tuple[int, int] = (32, 32),
    steps: int = 150,
    rows: int = 16,
    seed: int = 0,
) -> np.ndarray:
    """One patch of (height, width) pixels that leads to the reply `wanted` on any picture that has it in its left upper
    corner (Brown et al. 2017), float32.
    """
    rng = random.Random(seed)
    patch = torch.full((*size, 3), 0.5)
    momentum = torch.zeros_like(patch)
    for step in range(steps):
        chosen = [rng.choice(examples) for _ in range(rows)]
        batch = _padded(
            [reader.row("image", Example(one.content, one.question, wanted), rng) for one in chosen]
        )
        patch.requires_grad_(True)
        pixels = torch.from_numpy(np.stack([one.content for one in chosen]))
        pixels[:, : size[0], : size[1]] = patch
        total, _, _ = reading(reader.model, Batch(*batch, extras={"image": pixels}))
        [slope] = torch.autograd.grad(total, [patch])
        momentum = 0.8 * momentum + slope / (slope.abs().mean() + 1e-12)
        rate = 0.05 * (1 - step / steps) + 0.004
        patch = (patch.detach() - rate * momentum.sign()).clamp(0, 1)
    return (patch * 255).round().numpy() / np.float32(255)


def patched(example: Example, patch: np.ndarray) -> Example:
    """A picture with a patch in its left upper corner."""
    pixels = example.content.copy()
    pixels[: patch.shape[0], : patch.shape[1]] = patch
    return Example(pixels, example.question, example.answer)


def _padded(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, targets) of rows, the answers alone being learned."""
    length = max(len(ids) for ids, _ in rows)
    tokens = torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in rows])
    targets = torch.tensor([learned + [-100] * (length - len(learned)) for _, learned in rows])
    return tokens, targets


def quieter(samples: np.ndarray, decibels: float) -> np.ndarray:
    """A sound by so many decibels quieter, in 16 bits as a file holds it."""
    return (np.round(samples * 10 ** (-decibels / 20) * 32_767) / 32_767).astype(np.float32)


def ultrasonic(samples: np.ndarray, depth: float = 0.9) -> np.ndarray:
    """Speech on a carrier that nobody hears (Zhang et al. 2017, DolphinAttack, section 3): amplitude modulation, at
    `MICROPHONE` samples a second.
    """
    speech = resample(samples, RATE, MICROPHONE)
    speech = speech / (np.abs(speech).max() + 1e-9)
    time = np.arange(len(speech)) / MICROPHONE
    return (0.5 * (1 + depth * speech) * np.cos(2 * np.pi * CARRIER * time)).astype(np.float32)


def microphone(air: np.ndarray, square: float = 0.1) -> np.ndarray:
    """What a microphone with a small quadratic term makes of the sound in the air, as a clip: its square brings the
    envelope of an ultrasonic carrier down to where speech is (section 3.2 there). `square` 0: a perfect one.
    """
    bent = air + square * air.astype(np.float64) ** 2
    heard = resample(bent, MICROPHONE)
    heard = heard - heard.mean()  # what is constant does not pass
    return as_clip(heard.astype(np.float32))


def bound_of(clips: Sequence[np.ndarray], decibels: float) -> np.ndarray:
    """For each clip the change of a sample that keeps noise so many decibels below the sound, float32."""
    powers = [float(np.sqrt(np.square(clip, dtype=np.float64).mean())) for clip in clips]
    return np.array(powers, np.float32) * np.float32(10 ** (-decibels / 20))
