"""A decoder that reads images and sounds: a Transformer with encoders, whose vectors stand in the place of tokens."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from crawltalk.chat import messages
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.files import write_atomically
from crawltalk.model.config import read_config
from crawltalk.model.hf import load_model, save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.multimodal.encoders import AudioInput, ImageInput, encoder_of
from crawltalk.train.batches import Batch
from crawltalk.train.objectives import Figures
from crawltalk.train.objectives.cross_entropy import cross_entropy_of

CONFIG, WEIGHTS = "crawltalk_encoders", "encoders.safetensors"
"""The entry of config.json that says what the encoders read, and the file of their weights."""
PLACES = {"image": messages.PLACES[messages.ImagePart], "audio": messages.PLACES[messages.AudioPart]}
"""Control tokens in whose place the decoder reads vectors."""
INPUTS = {"image": ImageInput, "audio": AudioInput}

Inputs = Mapping[str, ImageInput | AudioInput]


class MultimodalModel(Transformer):
    """Tokens, images and sounds in, logits of the next token out."""

    micro_batch_tokens = 2048

    def __init__(self, shape: Shape, inputs: Inputs, places: Mapping[str, int]) -> None:
        """`inputs`: what is read beside text, by the names of `PLACES`. `places`: the ids of their tokens."""
        super().__init__(shape)
        self.inputs = dict(inputs)
        self.places = {name: places[name] for name in inputs}
        self.encoders = nn.ModuleDict({name: encoder_of(each, shape.width) for name, each in inputs.items()})

    def initialize(self, seed: int) -> None:
        """Draw the weights: the decoder's as ever, the encoders' normal with deviation 1/sqrt(fan-in)."""
        super().initialize(seed)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for name, weight in self.encoders.named_parameters():
                if weight.ndim > 1:
                    weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
                else:
                    weight.fill_(1.0 if name.endswith("norm.weight") else 0.0)

    def embed(self, tokens_BT: Tensor, media: Mapping[str, Tensor]) -> Tensor:
        """What the decoder reads, [B, T, D]: embeddings of tokens, and where a row has the places of an image or a
        sound, the vectors of its own, which is the row of `media[name]`.
        """
        x_BTD = self.embedding(tokens_BT)
        for name, place in self.places.items():
            if name in media:
                here_BT = tokens_BT == place
                vectors = self.encoders[name](media[name])
                x_BTD = x_BTD.masked_scatter(here_BT[..., None], vectors.to(x_BTD.dtype))
        return x_BTD

    def read(self, tokens_BT: Tensor, media: Mapping[str, Tensor]) -> Tensor:
        """Final states of rows with an image or a sound each, [B, T, D]."""
        return self.states(tokens_BT, embeddings_BTD=self.embed(tokens_BT, media))


def reading(model: MultimodalModel, batch: Batch) -> tuple[Tensor, Tensor, Figures]:
    """Cross entropy of the next token after images or sounds, which are the batch's extras."""
    return cross_entropy_of(model, model.read(batch.tokens, batch.extras), batch.targets)


def placing(model: MultimodalModel, batch: Batch) -> tuple[Tensor, Tensor, Figures]:
    """Cross entropy of what each position of an image shows, by its vector alone: the decoder's blocks have no part."""
    vectors_BTD = model.norm(model.embed(batch.tokens, batch.extras))
    return cross_entropy_of(model, vectors_BTD, batch.targets)


def save_multimodal(model: MultimodalModel, renderer: ChatRenderer, folder: str | Path) -> None:
    """Write decoder, encoders and tokenizer into a folder in Hugging Face's layout."""
    folder = Path(folder)
    renderer.save(folder)
    tokenizer = renderer.tokenizer
    ends = sorted(renderer.stop_ids)
    save_model(model, folder, eos=ends if len(ends) > 1 else tokenizer.eot, bos=tokenizer.eot)
    weights = {
        name: weight.detach().float().contiguous() for name, weight in model.encoders.state_dict().items()
    }
    write_atomically(folder / WEIGHTS, save(weights, metadata={"format": "pt"}))
    inputs = {name: dataclasses.asdict(each) for name, each in model.inputs.items()}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {CONFIG: inputs}
    write_atomically(folder / "config.json", json.dumps(config, indent=2).encode())


def read_inputs(folder: str | Path) -> dict[str, ImageInput | AudioInput]:
    """What the model of a folder reads beside text; nothing, if it has no encoders. Raises MissingInput, or BadInput
    for entries that are not ours.
    """
    entries = read_config(Path(folder)).get(CONFIG, {})
    try:
        return {name: INPUTS[name](**entry) for name, entry in entries.items()}
    except (AttributeError, KeyError, TypeError):
        raise BadInput(
            f"{folder}: {CONFIG} of config.json is of another version: {_short(entries)}"
        ) from None


def load_multimodal(folder: str | Path, renderer: ChatRenderer) -> MultimodalModel:
    """Read what `save_multimodal` has written, in fp32. Raises MissingInput, or BadInput for files that do not fit
    each other.
    """
    folder = Path(folder)
    inputs = read_inputs(folder)
    special = renderer.tokenizer.special_tokens
    if not inputs:
        raise BadInput(f"{folder} has no encoders: this model reads text only")
    if missing := [PLACES[name] for name in inputs if PLACES[name] not in special]:
        raise BadInput(f"{folder}: the tokenizer has no {missing[0]}; copy the whole folder of the model")
    if not (folder / WEIGHTS).exists():
        raise MissingInput(f"{folder / WEIGHTS} does not exist; copy the whole folder of the model")
    decoder = load_model(folder)
    model = MultimodalModel(decoder.shape, inputs, {name: special[PLACES[name]] for name in inputs})
    model.load_state_dict(decoder.state_dict(), strict=False)
    try:
        model.encoders.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise BadInput(f"{folder / WEIGHTS} does not fit config.json ({_short(error)})") from None
    return model.eval()


def _short(what: Any) -> str:
    return " ".join(str(what).split())[:120]
