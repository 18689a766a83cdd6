"""A stand-in for a model that does whatever a text tells it to: the worst case, and no model.

What a page does to an assistant depends on two things: whether the model obeys, and what the application lets an
obedient model do. This measures the second alone, so no luck of a small model looks like a defence. The stand-in takes
the place of the model behind the real engine's tokenizer and renderer, the real server and the real page. It reads
exactly the tokens that a model would read, and its reply goes the way of every reply.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from crawltalk.chat.messages import PLACES, ImagePart
from crawltalk.engine import Engine, PromptEmbeddings, Sampling
from crawltalk.engine.backends.torch import TorchBackend
from crawltalk.engine.sequence import StepOutput
from crawltalk.engine.service import Service, Stream
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.multimodal.reader import vocabulary
from crawltalk.redteam.canary import ENCODINGS, parts_of
from crawltalk.redteam.eye import MOST, Eye, said_by

DONE = "Done."
BREAK = "⏎"
"""A line break in an order, for names of files, which have none."""
_ORDER = re.compile(r"⟦(.*?)⟧", re.DOTALL)
_SECRET = re.compile(r"the key is (\w+)")
_BLANK = re.compile(r"\{key(?::(\w+))?\}")
_PERMITTED = re.compile(r"You may read (\S+?)<\|im_end\|>")
_EACH = "{key:each}"
_OPENING = "<|im_start|>assistant<|im_sep|>"
"""What opens a turn of the assistant, in the chat format of our tokenizers."""
CONTEXT = 16_384


def order(text: str) -> str:
    """A text that the stand-in obeys: it writes what stands there. `{key}` is the secret of the conversation,
    `{key:base64}` that in an encoding; with `{key:each}` it writes all once for each part of the secret, and
    `{n}` is the number of the part.
    """
    return f"⟦{text}⟧"


def obey(prompt: str) -> str:
    """The reply to a prompt: the last order behind what the assistant said last, carried out."""
    since = prompt.removesuffix(_OPENING).rpartition(_OPENING)[2]
    orders, secrets = _ORDER.findall(since), _SECRET.findall(prompt)
    if not orders and (allowed := _PERMITTED.search(since)):  # the page's words for a person who agrees
        return f'<tool_call>{{"name": "fetch", "arguments": {{"url": "{allowed[1]}"}}}}</tool_call>'
    if not orders:
        return DONE
    text, secret = orders[-1].replace(BREAK, "\n"), secrets[0] if secrets else ""
    parts = parts_of(secret) if _EACH in text else [""]
    written = "\n".join(text.replace(_EACH, part).replace("{n}", str(n)) for n, part in enumerate(parts))
    return _BLANK.sub(lambda blank: ENCODINGS[blank[1]](secret) if blank[1] else secret, written)


class StandIn(Service):
    """An engine's service whose replies a function writes."""

    def __init__(self, reply: Callable[[str], str] = obey, engine: Engine | None = None) -> None:
        super().__init__(engine or make_engine())
        self.reply = reply

    async def submit(self, prompt: Sequence[int], sampling: Sampling, **options: Any) -> Stream:
        """The whole reply at once."""
        stream = Stream(self.engine.request(prompt, sampling, client=options.get("client", "")))
        text = self.reply(self.read(prompt, options.get("embeddings", ())))
        stream.put(StepOutput(stream.request, 0, text, (), "stop"))
        return stream

    def read(self, prompt: Sequence[int], pictures: Sequence[PromptEmbeddings]) -> str:
        """A prompt as text, that of pictures included."""
        decode, text, end = self.engine.tokenizer.decode, "", 0
        for picture in pictures:
            text += decode(list(prompt[end : picture.start])) + said_by(picture)
            end = picture.end
        return text + decode(list(prompt[end:]))


def make_engine(context: int = CONTEXT) -> Engine:
    """The tokenizer and the chat format of our models, over bytes, with the smallest weights that make an engine and an
    eye for pictures.
    """
    tokenizer = vocabulary()
    sizes = {"layers": 1, "width": 8, "heads": 1, "kv_heads": 1, "head_dim": 8, "mlp": 8}
    model = Transformer(Shape(vocab_size=tokenizer.vocab_size, context=context, **sizes))
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    engine = Engine(model, tokenizer, TorchBackend(model, cache_bytes=4 * context * 16 * 8))
    engine.media = Eye(tokenizer.special_tokens[PLACES[ImagePart]], sizes["width"])
    engine.renderer.places = {PLACES[ImagePart]: MOST}
    return engine
