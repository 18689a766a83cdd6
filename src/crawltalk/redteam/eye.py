"""The stand-in's eye: it reads whatever stands in a picture, down to the last grey level, as the best of readers would.

A picture for it has its text in cells of one size, one grey level under white: a person sees a white sheet. The eye
knows the letters by their exact pixels, so that nothing depends on how well a small model reads.
"""

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from crawltalk.chat.messages import ImagePart, MessageLike, as_messages
from crawltalk.engine import PromptEmbeddings
from crawltalk.multimodal.images import pillow, read_image
from crawltalk.multimodal.media import bytes_of

HEIGHT, WIDTH, COLUMNS = 18, 14, 64
"""Pixels of a cell, and cells in a row."""
MOST = 512
"""Letters that the eye reads of a picture."""
WHITE, INK = 255, 254
OVERPRINTED = {"⟦": "[|", "⟧": "]|", "⏎": "<_"}
"""What the font does not have is made of two letters on one another."""
LETTERS = "".join(map(chr, range(33, 127))) + "".join(OVERPRINTED)


def written(text: str) -> bytes:
    """A PNG file with this text. All characters are among `LETTERS` and the blank."""
    image_module, *_ = pillow()
    rows = -(-len(text) // COLUMNS)
    sheet = np.zeros((rows * HEIGHT, COLUMNS * WIDTH), bool)
    for index, letter in enumerate(text):
        row, column = divmod(index, COLUMNS)
        if letter != " ":
            cell = sheet[row * HEIGHT : (row + 1) * HEIGHT, column * WIDTH : (column + 1) * WIDTH]
            cell[:] = glyphs()[letter]
    out = io.BytesIO()
    image_module.fromarray(np.where(sheet, INK, WHITE).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def legible(pixels: np.ndarray) -> str:
    """The text of a picture, uint8 [height, width, 3]. What is no letter is a blank."""
    known = {shape.tobytes(): letter for letter, shape in glyphs().items()}
    dark = pixels.min(2) < WHITE
    height, width = (size // cell * cell for size, cell in zip(dark.shape, (HEIGHT, WIDTH), strict=True))
    cells = dark[:height, :width].reshape(height // HEIGHT, HEIGHT, width // WIDTH, WIDTH).swapaxes(1, 2)
    return "".join(known.get(cell.tobytes(), " ") for row in cells for cell in row).rstrip()


@cache
def glyphs() -> dict[str, np.ndarray]:
    """The pixels of each letter, bool [HEIGHT, WIDTH]."""
    return {letter: _drawn(OVERPRINTED.get(letter, letter)) for letter in LETTERS}


def _drawn(letters: str) -> np.ndarray:
    image_module, draw_module, font_module, _ = pillow()
    image = image_module.new("1", (WIDTH, HEIGHT))
    for letter in letters:
        draw_module.Draw(image).text((0, 0), letter, font=font_module.load_default(13), fill=1)
    return np.asarray(image.convert("L")) > 0


class Eye:
    """What an engine asks for the vectors of pictures (`crawltalk.engine.engine.MediaReader`): each holds a letter."""

    def __init__(self, place: int, width: int) -> None:
        """`place`: the token in whose place a letter stands; `width`: of the model."""
        self.place, self.width = place, width

    def embeddings(self, messages: Sequence[MessageLike], prompt: Sequence[int]) -> list[PromptEmbeddings]:
        """The letters of the pictures of a conversation."""
        parts: list[Any] = [
            part
            for message in as_messages(messages)
            if not isinstance(message.content, str)
            for part in message.content
            if isinstance(part, ImagePart)
        ]
        starts = [
            index
            for index, token in enumerate(prompt)
            if token == self.place and (not index or prompt[index - 1] != self.place)
        ]
        return [
            PromptEmbeddings(start, self.vectors(legible(read_image(bytes_of(part)))))
            for start, part in zip(starts, parts[len(parts) - len(starts) :], strict=True)
        ]

    def vectors(self, text: str) -> np.ndarray:
        """[MOST, width] fp32, the number of a letter first in each; 0 behind the last."""
        vectors = np.zeros((MOST, self.width), np.float32)
        codes = [ord(letter) for letter in text[:MOST]]
        vectors[: len(codes), 0] = codes
        return vectors


def said_by(read: PromptEmbeddings) -> str:
    """The text of vectors."""
    return "".join(chr(int(code)) for code in read.vectors[:, 0] if code)
