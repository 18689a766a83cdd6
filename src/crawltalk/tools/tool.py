"""What a tool is, and what it says.

What a tool says may have been written by anybody: a page, a file, a program that a model made up. So it is no `str`.
It is `Untrusted`, which no function takes for an instruction, which refuses to become part of a text, and which goes
to a model only as a message of the role `tool`: there the renderer writes it between control tokens that no text can
spell.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from crawltalk.chat.messages import Message
from crawltalk.chat.tool_calls import Tool as Definition


@dataclass(frozen=True, repr=False)
class Untrusted:
    """A text that somebody outside wrote. `shown` is for people's eyes, escaped like any text that a user typed."""

    shown: str

    def __str__(self) -> str:
        raise TypeError("an untrusted text does not become part of another text: use as_message(), or .shown")

    def __format__(self, spec: str) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"Untrusted({len(self.shown)} characters)"

    def __len__(self) -> int:
        return len(self.shown)


@dataclass(frozen=True, kw_only=True)
class ToolResult:
    """What a tool says to one call."""

    text: Untrusted
    source: str
    """What said it: the tool's name, or the address of a page."""
    truncated: bool = False
    """Whether there was more than `text` holds."""
    error: bool = False
    """Whether the call failed; `text` then says why, in one line."""
    outside: bool = False
    """Whether others may have written `text`."""
    withheld: str | None = None
    """The address that the call was not made to, until the person writes it."""

    @classmethod
    def of(cls, text: str, source: str, *, most: int | None = None) -> "ToolResult":
        """A result, cut after `most` characters."""
        cut = most is not None and len(text) > most
        return cls(text=Untrusted(text[:most] if cut else text), source=source, truncated=cut)

    @classmethod
    def failure(cls, reason: str, source: str) -> "ToolResult":
        """An error, in one line."""
        return cls(text=Untrusted(f"error: {' '.join(reason.split())}"), source=source, error=True)

    def cut(self, most: int) -> "ToolResult":
        """The same with at most `most` characters."""
        if len(self.text) <= most:
            return self
        return replace(self, text=Untrusted(self.text.shown[:most]), truncated=True)

    def as_message(self, call_id: str | None = None) -> Message:
        """The one form in which a model reads it."""
        note = "\n[cut here: there is more]" if self.truncated else ""
        return Message("tool", self.text.shown + note, tool_call_id=call_id)


class Tool(ABC):
    """Something that an assistant can call. Calls may come from several threads at once."""

    name: ClassVar[str]
    description: ClassVar[str]
    """For the model, in few words: it is part of every prompt that offers the tool."""
    parameters: ClassVar[dict[str, Any]]
    """A JSON schema of the arguments, an object."""
    seconds: float = 20.0
    """The longest call; what takes longer is left alone, and the model is told."""
    outside: ClassVar[bool] = True
    """Whether others may have written what it says (`tools.flow`)."""
    sends: ClassVar[tuple[str, ...]] = ()
    """Arguments that leave this machine: addresses, which the call goes to."""

    @property
    def definition(self) -> Definition:
        """What the model is told of the tool."""
        return Definition(name=self.name, description=self.description, parameters=self.parameters)

    @property
    def notice(self) -> str:
        """What a person should know of the tool before it is used, in one line."""
        return ""

    @abstractmethod
    def call(self, arguments: dict[str, Any]) -> ToolResult:
        """The result. `arguments` are a JSON object that obeys `required` and the types in `parameters`. Raises
        UserError for arguments that it cannot use, which becomes a result, too.
        """

    def close(self) -> None:  # noqa: B027 - most keep nothing
        """End what the tool keeps running."""


def texts(*names: str) -> dict[str, Any]:
    """The schema of arguments that are all texts, and all needed."""
    properties = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": properties, "required": list(names)}
