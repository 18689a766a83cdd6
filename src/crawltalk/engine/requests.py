"""What is asked of the engine, and what it says."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, NamedTuple

from crawltalk.chat.tool_calls import overlap
from crawltalk.engine.constraints import Constraint
from crawltalk.engine.sampling import Sampling

Finish = Literal["stop", "length", "cancelled"]


class Token(NamedTuple):
    """A token that was said or, of a prompt, read."""

    id: int
    text: bytes
    logprob: float | None
    """Natural logarithm of the model's probability, before any setting of the sampling; None where nobody
    asked.
    """
    top: tuple[tuple[int, float], ...]
    """(id, log-probability) of the likeliest tokens in its place, likeliest first."""


class Event(NamedTuple):
    """News of one sample of a request."""

    sample: int
    text: str
    """New whole characters; may be empty."""
    tokens: tuple[Token, ...]
    finish: Finish | None
    """In the last event of a sample: it said a stop token or string, it reached a limit, or nobody listens.
    """


@dataclass(eq=False)
class Request:
    """One prompt, and how it is to go on."""

    prompt: list[int]
    sampling: Sampling
    stop_ids: frozenset[int]
    samples: int = 1
    first_sample: int = 0
    """The number of the first sample: it decides what is drawn."""
    client: str = ""
    """Who asks: turns are shared fairly between clients."""
    constraint: Constraint | None = None
    echo: bool = False
    """Whether the log-probabilities of the prompt's tokens are wanted."""
    cancelled: bool = False
    cached_tokens: int = 0
    """Of the prompt, found in the cache."""
    prompt_tokens: tuple[Token, ...] = ()
    """With `echo`."""
    number: int = field(default_factory=count().__next__)


class Text:
    """The text of tokens as they come, in whole characters, up to the first stop string."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def add(self, word: bytes, *, final: bool = False) -> str:
        """What can be said after one more token: text that may begin a stop string is held back until it does
        not.
        """
        text = self._decoder.decode(word, final)
        if not self._stop:
            return text
        self._held += text
        found = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if found:
            said, self._held, self.stopped = self._held[: min(found)], "", True
            return said
        keep = 0 if final else max(overlap(self._held, stop) for stop in self._stop)
        said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return said


@dataclass(eq=False)
class Sample:
    """One reply to a request, in the making."""

    request: Request
    number: int
    tokens: list[int]
    """Of the prompt, then of the reply."""
    text: Text
    constraint: Constraint | None
    slot: int = -1
    """Its row in the block tables while it runs."""
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    """Tokens whose keys and values are in `blocks`."""
    content: int = 0
    """Of the last whole block that the pool remembers (`BlockPool.remember`)."""

    @classmethod
    def of(cls, request: Request, number: int) -> "Sample":
        """One that has not begun."""
        constraint = request.constraint.copy() if request.constraint is not None else None
        return cls(
            request,
            request.first_sample + number,
            list(request.prompt),
            Text(request.sampling.stop),
            constraint,
        )

    @property
    def is_first(self) -> bool:
        """Of the samples of its request."""
        return self.number == self.request.first_sample

    @property
    def hears(self) -> bool:
        """Whether it notes what the model thinks of the prompt's tokens."""
        return self.request.echo and self.is_first

    @property
    def reply(self) -> list[int]:
        """The tokens said."""
        return self.tokens[len(self.request.prompt) :]

    @property
    def said(self) -> int:
        """How many."""
        return len(self.tokens) - len(self.request.prompt)
