"""The engine's input and output: a `Request` becomes sequences, whose tokens come out as `StepOutput`s."""

import codecs
import hashlib
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Literal, NamedTuple

import numpy as np

from crawltalk.chat.tool_calls import overlap
from crawltalk.engine.blocks import BlockContent
from crawltalk.engine.constraints import Constraint
from crawltalk.engine.sampling import Sampling
from crawltalk.model.cache import BLOCK_SIZE

FinishReason = Literal["stop", "length", "cancelled"]


class Token(NamedTuple):
    """A token that was generated, or one of a prompt."""

    id: int
    text: bytes
    logprob: float | None
    """Natural logarithm of the model's probability, before any setting of the sampling; None unless it was
    requested.
    """
    top: tuple[tuple[int, float], ...]
    """(id, log-probability) of the likeliest tokens at its position, likeliest first."""


@dataclass(frozen=True, eq=False)
class PromptEmbeddings:
    """Vectors that the model reads instead of a prompt's tokens, such as those of an image. The prompt has
    placeholders at their positions, which count as tokens wherever ids are needed (log-probabilities,
    penalties).
    """

    start: int
    """Position of the first one."""
    vectors: np.ndarray
    """[positions, D] fp32."""

    @property
    def end(self) -> int:
        """The position after the last one."""
        return self.start + len(self.vectors)

    @cached_property
    def key(self) -> bytes:
        """SHA-256 of the vectors."""
        return hashlib.sha256(self.vectors.tobytes()).digest()


@dataclass(eq=False)
class Request:
    """One prompt, and how to continue it."""

    prompt: list[int]
    sampling: Sampling
    stop_ids: frozenset[int]
    samples: int = 1
    """Sequences that continue the prompt."""
    row: int = 0
    """Sequence i draws by (seed, row + i)."""
    client: str = ""
    """Clients take turns in being admitted."""
    constraint: Constraint | None = None
    prompt_logprobs: bool = False
    """Whether the log-probabilities of the prompt's tokens are computed."""
    logprobs_from: int = 0
    """With `prompt_logprobs`: those of the tokens from this one on. What is before it may come from the cache."""
    embeddings: tuple[PromptEmbeddings, ...] = ()
    cancelled: bool = False
    cached_tokens: int = 0
    """Tokens of the prompt that were in the cache."""
    prompt_tokens: tuple[Token, ...] = ()
    """With `prompt_logprobs`: those from `logprobs_from` on."""
    id: int = field(default_factory=count().__next__)


class StepOutput(NamedTuple):
    """What a step, or several, added to one sequence of a request."""

    request: Request
    index: int
    """Of the sequence in its request."""
    text: str
    """New whole characters; may be empty."""
    tokens: tuple[Token, ...]
    finish_reason: FinishReason | None
    """Of the last output of a sequence: a stop token or string came, it reached a limit, or its request was
    cancelled.
    """
    stop_token: Token | None = None
    """The stop token that ended the sequence; it is no part of the reply."""


class Detokenizer:
    """The text of tokens as they come, in whole characters, up to the first stop string."""

    def __init__(self, stop: SequenceOf[str]) -> None:
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def add(self, token: bytes, *, final: bool = False) -> str:
        """The text that is certain after one more token: what may begin a stop string is held back until it
        does not.
        """
        text = self._decoder.decode(token, final)
        if not self._stop:
            return text
        self._held += text
        ends = [index for stop in self._stop if (index := self._held.find(stop)) >= 0]
        if ends:
            text, self._held, self.stopped = self._held[: min(ends)], "", True
            return text
        keep = 0 if final else max(overlap(self._held, stop) for stop in self._stop)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text


@dataclass(eq=False)
class Sequence:
    """One continuation of a request's prompt."""

    request: Request
    index: int
    """In its request."""
    tokens: list[int]
    """Of the prompt, then the generated ones."""
    detokenizer: Detokenizer
    constraint: Constraint | None
    slot: int = -1
    """Its row of the block tables while it runs."""
    blocks: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    """Tokens whose keys and values are in `blocks`."""
    prefix: int = 0
    """Number of the prefix that ends with its last full block (`BlockPool.cache_block`)."""

    @classmethod
    def of(cls, request: Request, index: int) -> "Sequence":
        """Sequence `index` of a request, not yet computed."""
        constraint = request.constraint.copy() if request.constraint is not None else None
        return cls(request, index, list(request.prompt), Detokenizer(request.sampling.stop), constraint)

    @property
    def prompt_logprobs(self) -> bool:
        """Whether it computes those of its prompt: the first sequence of a request does."""
        return self.request.prompt_logprobs and self.index == 0

    @property
    def generated(self) -> list[int]:
        """The tokens after the prompt."""
        return self.tokens[len(self.request.prompt) :]

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def num_full_blocks(self) -> int:
        """Blocks that its tokens fill, but for the last token: that one is always computed."""
        return (len(self.tokens) - 1) // BLOCK_SIZE

    def block_content(self, index: int) -> BlockContent:
        """What its block `index`, which is full, holds."""
        start, end = index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE
        extra_keys = tuple(
            (one.start - start, one.key)
            for one in self.request.embeddings
            if one.start < end and start < one.end
        )
        return BlockContent(tuple(self.tokens[start:end]), extra_keys)

    @property
    def is_plain(self) -> bool:
        """Whether it only decodes, and each token follows from its logits alone, without a look at the text."""
        sampling = self.request.sampling
        return (
            self.decodes
            and self.constraint is None
            and not sampling.has_penalties
            and not sampling.stop
            and not sampling.logprobs
            and not (self.prompt_logprobs and not self.num_generated)
        )

    @property
    def has_prompt(self) -> bool:
        """Whether its prompt is computed."""
        return self.num_computed_tokens >= len(self.request.prompt)

    @property
    def decodes(self) -> bool:
        """Whether only its last token is yet to be computed; else it prefills."""
        return self.num_computed_tokens == len(self.tokens) - 1
