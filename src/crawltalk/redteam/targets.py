"""Targets: a model in our engine, with its weights open to attackers."""

import time
from collections.abc import Sequence
from pathlib import Path

from crawltalk.chat.messages import PLACES, text_of
from crawltalk.core.errors import BadInput
from crawltalk.engine import Engine, PromptEmbeddings, Sampling
from crawltalk.model.hf import load_model
from crawltalk.model.transformer import Transformer
from crawltalk.multimodal import load_engine
from crawltalk.redteam.frame import Prompt, Reply, WhiteBox

ROOM = 32
"""Tokens that are left free for a reply, where prompts are only read."""


class EngineTarget:
    """A model in the engine, answering greedily."""

    def __init__(
        self, name: str, engine: Engine, model: Transformer | None = None, max_tokens: int = 64
    ) -> None:
        """`model`: the same weights, for attacks that need gradients; without it they are not run."""
        self.name, self.engine, self.max_tokens = name, engine, max_tokens
        self.white_box = WhiteBox(engine, model) if model is not None else None

    @property
    def reads(self) -> list[str]:
        """What beside text it reads, as OpenAI's API names the parts."""
        return [
            str(kind.__struct_config__.tag)
            for kind, place in PLACES.items()
            if place in self.engine.renderer.places
        ]

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """All prompts side by side. One that does not fit into the context, or has a picture or a sound that the model
        does not read, is not asked.
        """
        replies: list[Reply | None] = [None] * len(prompts)
        ids: list[list[int]] = []
        embeddings: list[Sequence[PromptEmbeddings]] = []
        for index, prompt in enumerate(prompts):
            try:
                rendered = prompt_ids(self.engine, prompt, self.max_tokens)
                embeddings.append(self.engine.embeddings_of(prompt.messages, rendered))
                ids.append(rendered)
            except BadInput as error:
                replies[index] = Reply(error=str(error), reached=False)
        began = time.perf_counter()
        sampling = Sampling(temperature=0.0, max_tokens=self.max_tokens)
        written = iter(self.engine.generate(ids, sampling, embeddings=embeddings))
        seconds = (time.perf_counter() - began) / max(1, len(ids))
        return [_reply(self.engine, next(written), seconds) if reply is None else reply for reply in replies]


def _reply(engine: Engine, ids: Sequence[int], seconds: float) -> Reply:
    return Reply(text=engine.tokenizer.decode(ids), seconds=round(seconds, 6), tokens=len(ids))


def prompt_ids(engine: Engine, prompt: Prompt, max_tokens: int) -> list[int]:
    """A prompt as the model reads it. A last message of the assistant is the beginning of its reply. Raises BadInput
    for one that does not fit.
    """
    *earlier, last = prompt.messages
    if last.role != "assistant":
        return engine.chat_prompt(prompt.messages, reply=max_tokens)[0]
    return [*engine.chat_prompt(earlier, reply=max_tokens)[0], *engine.tokenizer.encode(text_of(last))]


def load_target(name: str, folder: Path, max_tokens: int) -> EngineTarget:
    """A chat model in a folder, with its weights open. Raises MissingInput or BadInput."""
    engine = load_engine(folder)
    if not engine.renderer.chats:
        raise BadInput(f"{folder} has no chat format, so nothing can be asked of it")
    return EngineTarget(name, engine, load_model(folder), max_tokens)
