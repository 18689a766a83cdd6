"""Defences of readers: what is taken from a picture or a sound before it is read, and detectors that flag it."""

import io
from collections.abc import Sequence

import numpy as np

from crawltalk.multimodal.images import pillow
from crawltalk.multimodal.reader import Example, Reader

VISIBLE = 0.05
"""Deviation of a patch, of the whole range, from which on a person sees what is in it."""
PATCH = 8


def grey_levels(pixels: np.ndarray, levels: int = 16) -> np.ndarray:
    """A picture with so many levels of each colour (Xu et al. 2018, feature squeezing), float32."""
    return (np.round(pixels * (levels - 1)) / (levels - 1)).astype(np.float32)


def jpeg(pixels: np.ndarray, quality: int = 50) -> np.ndarray:
    """A picture as JPEG leaves it, float32."""
    image_module, *_ = pillow()
    out = io.BytesIO()
    image_module.fromarray(np.round(255 * pixels).astype(np.uint8)).save(out, "JPEG", quality=quality)
    return np.asarray(image_module.open(out), np.float32) / 255


def faint_structure(pixels: np.ndarray) -> float:
    """How much a picture holds that nobody sees and that is no noise: the largest correlation of neighbouring pixels in
    a patch whose deviation is below `VISIBLE`, weighted by how many pixels differ at all; 0 to 1. Noise has none, and
    nor has an even ground. At half the size two thirds of it count, since there are fewer pixels to be sure of: text of
    every other pixel has its structure there.
    """
    height, width = (size // 2 * 2 for size in pixels.shape[:2])
    half = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, -1).mean((1, 3))
    return max(_structure(pixels.mean(2)), 2 / 3 * _structure(half.mean(2)))


def _structure(grey: np.ndarray) -> float:
    height, width = (size // PATCH * PATCH for size in grey.shape)
    patches = grey[:height, :width].reshape(height // PATCH, PATCH, width // PATCH, PATCH).swapaxes(1, 2)
    centred = patches - np.median(patches, (2, 3), keepdims=True)
    power = np.square(centred).mean((2, 3))
    beside = (centred[..., 1:] * centred[..., :-1]).mean((2, 3))
    below = (centred[..., 1:, :] * centred[..., :-1, :]).mean((2, 3))
    faint = (power > 1e-7) & (power < VISIBLE**2)
    score = np.where(faint, (beside + below) / (2 * power + 1e-12), 0.0)
    return float(np.sort(score.ravel())[-4:].mean())


def disagreements(reader: Reader, examples: Sequence[Example], quality: int = 50) -> list[bool]:
    """Of each picture, whether the reply changes when it goes through JPEG (Das et al. 2017): flagged as an attack."""
    passed = [Example(jpeg(one.content, quality), one.question, one.answer) for one in examples]
    engine = reader.engine()
    pairs = zip(
        reader.answers("image", examples, engine), reader.answers("image", passed, engine), strict=True
    )
    return [plain != squeezed for plain, squeezed in pairs]


def fewer_bits(samples: np.ndarray, bits: int = 8) -> np.ndarray:
    """A sound with so many bits a sample, float32."""
    steps = 2 ** (bits - 1)
    return (np.round(samples * steps) / steps).astype(np.float32)


def too_quiet(samples: np.ndarray, decibels: float = -45.0) -> bool:
    """Whether a clip is below this loudness, in decibels of full scale (its loudest tenth)."""
    loudest = np.sort(np.square(samples, dtype=np.float64))[-len(samples) // 10 :]
    return bool(loudest.mean() < 10 ** (decibels / 10))
