"""A small model that reads images and sounds, and parts of messages that hold some."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from crawltalk.multimodal.encoders import AudioInput, ImageInput
from crawltalk.multimodal.reader import Reader
from crawltalk.multimodal.sounds import RATE, write_wav

SMALL = ImageInput(height=16, width=32)
TONE = np.sin(np.arange(RATE) / 3) * 0.3


def random_reader() -> Reader:
    """One that reads both, of random weights: a fresh one writes nothing into its residual stream."""
    reader = Reader.new({"image": SMALL, "audio": AudioInput()}, 0, layers=1, width=32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in reader.model.blocks.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return reader


def png(image: Image.Image, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def image_part(image: Image.Image) -> dict:
    data = base64.b64encode(png(image)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def audio_part(samples: np.ndarray) -> dict:
    data = base64.b64encode(write_wav(samples)).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def text_part(words: str) -> dict:
    return {"type": "text", "text": words}


def said(*parts: dict) -> list[dict]:
    """A conversation of one message."""
    return [{"role": "user", "content": list(parts)}]
