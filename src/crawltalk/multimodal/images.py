"""Images as a model sees them: decoded within limits, composed on white as a viewer shows them, and fitted onto the
canvas that an encoder reads.

Whoever sends a file may be hostile. So only a few formats are read, sizes are checked before any pixel is, and
whatever the decoder says of a damaged file becomes one line.
"""

import io
import warnings
from typing import Any

import numpy as np

from crawltalk.core.errors import BadInput, MissingInput

MAX_BYTES = 8_000_000
"""Of a file."""
MAX_PIXELS = 16_000_000
"""Of an image: 64 MB while it is composed."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
"""Of an animation the first frame is read."""


def pillow() -> Any:
    """The modules of Pillow that decode and draw. Raises MissingInput without it."""
    try:
        from PIL import Image, ImageDraw, ImageFont, ImageOps
    except ImportError:
        raise MissingInput(
            "images need Pillow; install it with: pip install 'crawltalk[multimodal]'"
        ) from None
    return Image, ImageDraw, ImageFont, ImageOps


def read_image(data: bytes) -> np.ndarray:
    """The pixels of an image file as a viewer shows them on white, uint8 [height, width, 3]. Raises BadInput, in one
    line, for a file that is too large, damaged, or no image.
    """
    image_module, _, _, ops = pillow()
    if len(data) > MAX_BYTES:
        raise BadInput(f"the image has more than {MAX_BYTES:,} bytes: send a smaller one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image_module.DecompressionBombWarning)  # our own limit is lower
            image = image_module.open(io.BytesIO(data), formats=FORMATS)
    except image_module.DecompressionBombError:
        raise BadInput(_too_many()) from None
    except Exception:  # a decoder may fail in any way on bytes of strangers
        raise BadInput(f"this is no image that can be read; send {', '.join(FORMATS)}") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadInput(f"{_too_many()}; it has {width:,} x {height:,}")
    try:
        return _on_white(ops.exif_transpose(image))
    except Exception as error:  # pixels are decoded here, which may fail in any way, too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"the image is damaged ({reason[:100]}); save it again") from None


def _too_many() -> str:
    return f"the image has more than {MAX_PIXELS:,} pixels: send a smaller one"


def _on_white(image: Any) -> np.ndarray:
    """What a viewer shows. `convert("RGB")` alone would show the colours of transparent pixels, and cuts 16-bit grey
    at 255.
    """
    image_module, *_ = pillow()
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        grey = (np.clip(levels, 0, 65535) / 257).round().astype(np.uint8)
        hidden = image.info.get("transparency")
        if isinstance(hidden, int):
            grey[levels == hidden] = 255
        return np.repeat(grey[:, :, None], 3, 2)
    shown = image.convert("RGBA")
    white = image_module.new("RGBA", shown.size, "white")
    return np.asarray(image_module.alpha_composite(white, shown).convert("RGB"))


def on_canvas(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image as the model reads it, float32 [height, width, 3] in 0..1: shrunk until it fits, never enlarged, in the
    middle of the median colour of its border.
    """
    image_module, *_ = pillow()
    border = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    scale = min(1.0, height / pixels.shape[0], width / pixels.shape[1])
    if scale < 1:
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        image = image_module.fromarray(pixels).resize(size, image_module.Resampling.BOX, reducing_gap=2.0)
        pixels = np.asarray(image)
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = np.median(border, 0).astype(np.uint8)
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas.astype(np.float32) / 255
