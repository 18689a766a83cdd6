"""Images and sounds in conversations: their places in the prompt, and the vectors that an engine reads there."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crawltalk.chat.messages import AudioPart, ContentPart, ImagePart, MessageLike, TextPart, as_messages
from crawltalk.core.errors import BadInput
from crawltalk.engine import Engine, PromptEmbeddings
from crawltalk.engine import load_engine as load_text_engine
from crawltalk.multimodal.encoders import ImageInput
from crawltalk.multimodal.images import on_canvas, read_image
from crawltalk.multimodal.model import PLACES, MultimodalModel, load_multimodal, read_inputs
from crawltalk.multimodal.sounds import as_clip, read_wav, resample

_DATA = re.compile(r"data:image/[a-z0-9.+-]+;base64,", re.IGNORECASE)


class Media:
    """The encoders of a model, as its engine asks for them (`crawltalk.engine.engine.MediaReader`)."""

    def __init__(self, model: MultimodalModel) -> None:
        self._encoders, self._inputs = model.encoders, model.inputs
        self._places = {place: name for name, place in model.places.items()}
        self.positions = {PLACES[name]: config.positions for name, config in self._inputs.items()}
        """Positions that an image or a sound takes in a prompt, by its control token."""

    def embeddings(self, messages: Sequence[MessageLike], prompt: Sequence[int]) -> list[PromptEmbeddings]:
        """The vectors of the images and sounds of a conversation whose rendering is `prompt`, which may have lost the
        oldest messages. Raises BadInput for a file that cannot be read.
        """
        runs = list(self._runs(prompt))
        parts = [
            part
            for message in as_messages(messages)
            if not isinstance(message.content, str)
            for part in message.content
            if not isinstance(part, TextPart)
        ]
        kept = parts[len(parts) - len(runs) :]
        return [
            PromptEmbeddings(start, self.vectors(name, load(part, self._inputs[name])))
            for (name, start), part in zip(runs, kept, strict=True)
        ]

    def _runs(self, prompt: Sequence[int]) -> Iterator[tuple[str, int]]:
        """What is read in a prompt, and the first position of each."""
        position = 0
        while position < len(prompt):
            name = self._places.get(prompt[position])
            if name is None:
                position += 1
            else:
                yield name, position
                position += self._inputs[name].positions

    @torch.no_grad()
    def vectors(self, name: str, content: np.ndarray) -> np.ndarray:
        """What the decoder reads of a canvas or a clip, [positions, D] fp32."""
        return self._encoders[name](torch.from_numpy(content)[None])[0].float().numpy()


def load(part: ContentPart, config: Any) -> np.ndarray:
    """The canvas or clip of a part, as its encoder reads it. Raises BadInput, in one line."""
    if isinstance(part, ImagePart):
        assert isinstance(config, ImageInput)
        return on_canvas(read_image(bytes_of(part)), config.height, config.width)
    assert isinstance(part, AudioPart)
    return as_clip(resample(*read_wav(bytes_of(part))))


def bytes_of(part: ImagePart | AudioPart) -> bytes:
    """The file of a part. Raises BadInput, in one line, for one that does not stand in the part itself."""
    if isinstance(part, ImagePart):
        head = _DATA.match(part.image_url.url)
        if head is None:
            raise BadInput(
                "images are not fetched from the web here: send the file as data:image/png;base64,..."
            )
        return _decoded(part.image_url.url[head.end() :], "image")
    if part.input_audio.format != "wav":
        raise BadInput(
            f"a sound in {part.input_audio.format[:20]!r} is not read here: send a WAV file, format wav"
        )
    return _decoded(part.input_audio.data, "sound")


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadInput(f"the {what} is not in base64: encode the file's bytes") from None


def attach(engine: Engine, model: MultimodalModel) -> Engine:
    """Let an engine read the images and sounds that a model's encoders read."""
    engine.media = Media(model)
    engine.renderer.places = engine.media.positions
    return engine


def load_engine(folder: str | Path, **options: Any) -> Engine:
    """`crawltalk.engine.load_engine`, and with the encoders of the folder, if it has some."""
    engine = load_text_engine(folder, **options)
    return attach(engine, load_multimodal(folder, engine.renderer)) if read_inputs(folder) else engine
