"""The Python API: `from crawltalk import Run; Run("runs/small").chat("What is dysprosium?")`."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from crawltalk.chat.messages import Message, MessageLike
from crawltalk.core.documents import read_documents
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Document, Placement
from crawltalk.models import model_of_run
from crawltalk.pipeline import stages
from crawltalk.run.folder import find_run
from crawltalk.run.manifest import Manifest

if TYPE_CHECKING:
    from crawltalk.engine import Engine
    from crawltalk.tokenizer import Tokenizer


class Run:
    """A run on disk: its models, documents and figures. Loads a model when it is first needed."""

    def __init__(self, path: str | Path) -> None:
        """Open a run. Raises MissingInput if there is none at `path`."""
        self.folder = find_run(path)
        self.recipe = self.folder.recipe()

    def chat(
        self,
        message: str,
        *,
        history: Sequence[MessageLike] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> str:
        """The assistant's reply to `message` after `history`. Raises MissingInput if the run has no assistant
        yet.
        """
        from crawltalk.engine import Sampling

        messages = [*(history or []), Message("user", message)]
        return self.assistant.reply(messages, Sampling(temperature=temperature, seed=seed))

    def generate(
        self, prompt: str, *, samples: int = 1, temperature: float = 0.8, max_tokens: int = 64, seed: int = 0
    ) -> list[str]:
        """Continuations of `prompt` by the base model."""
        from crawltalk.engine import Sampling

        tokens = [self.tokenizer.eot, *self.tokenizer.encode(prompt)]
        sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
        return [self.tokenizer.decode(ids) for ids in self.base.generate([tokens] * samples, sampling)]

    def documents(self) -> Iterator[Document]:
        """The documents that survived the data stage."""
        return read_documents(self.folder.finished("data"))

    def placements(self) -> Iterator[Placement]:
        """The role of each document in the training corpus."""
        return read_jsonl(self.folder.finished("tokens", "tokenizer") / "documents.jsonl", Placement)

    def manifests(self) -> dict[str, Manifest]:
        """Stage -> manifest, of the stages that are finished."""
        manifests = {stage.name: self.folder.manifest(stage.name) for stage in stages(self.recipe)}
        return {name: manifest for name, manifest in manifests.items() if manifest is not None}

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        from crawltalk.tokenizer import Tokenizer

        return Tokenizer.load(self.folder.finished("tokenizer"))

    @cached_property
    def base(self) -> "Engine":
        """An engine for the base model. Raises MissingInput if the run has none yet."""
        from crawltalk.engine import load_engine

        return load_engine(model_of_run(self.folder, "base"))

    @cached_property
    def assistant(self) -> "Engine":
        """An engine for the assistant. Raises MissingInput if the run has none yet."""
        from crawltalk.engine import load_engine

        return load_engine(model_of_run(self.folder, "assistant"))
