"""What may leave this machine once a text of others is in the conversation: information flow control.

A page, a document or a result that the model has read may have told it what to send, in any encoding, in parts, or by
the choice between addresses. So nothing is looked for in what leaves (Denning 1976, A Lattice Model of Secure
Information Flow; for assistants Debenedetti et al. 2025, Defeating Prompt Injections by Design). The rule is: after
the first text of others a call may only go to an address that the person wrote. Such an address was there before the
text was read, and is asked for in the person's own spelling; and what it said stays its answer, so that not even the
number of calls says anything.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from crawltalk.chat.messages import Message, TextPart
from crawltalk.core.errors import BadInput
from crawltalk.core.printable import printable
from crawltalk.tools.tool import Tool

_ADDRESS = re.compile(
    r"""https?://[^\s<>"“”`|]+|(?<![\w@./-])(?:[\w-]+\.)+[a-z]{2,}(?::\d+)?(?:/[^\s<>"“”`|]*)?"""
)
_AROUND = ".,;:!?'*_)]}’…"
"""What follows an address in a sentence, and belongs to the sentence."""
_PORTS = {"http": 80, "https": 443}


class Flow:
    """The origins of one answer's texts."""

    def __init__(self, messages: Iterable[Message] = (), tools: Iterable[Tool] = ()) -> None:
        """`messages`: the conversation before the answer. What the person and the system prompt say is trusted, what a
        tool said is not, unless it is one of `tools` that say nothing of others.
        """
        self.sources: list[str] = []
        """What was read of others: names of tools and documents, addresses of pages."""
        self._own: dict[tuple[str, str, int | None, str, str], str] = {}
        inside = {tool.name for tool in tools if not tool.outside}
        names: dict[str | None, str] = {}
        for message in messages:
            names |= {call.id: call.function.name for call in message.tool_calls}
            if message.role in ("system", "user"):
                for text in self._texts(message):
                    for address in addresses_in(text):
                        self._own.setdefault(_key(address), address)
            elif message.role == "tool" and (name := names.get(message.tool_call_id, "a tool")) not in inside:
                self.read(name)

    def _texts(self, message: Message) -> Iterator[str]:
        """What the person wrote. A picture or a sound may say anything."""
        parts = [TextPart(message.content)] if isinstance(message.content, str) else message.content
        for part in parts:
            if isinstance(part, TextPart):
                yield part.text
            else:
                self.read("a picture or a sound")

    @property
    def tainted(self) -> bool:
        """Whether a text of others was read: whatever the model writes from then on may be theirs."""
        return bool(self.sources)

    def read(self, source: str) -> None:
        """A text of others goes to the model."""
        if source not in self.sources:
            self.sources.append(source)

    def released(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that a call may be made with. Raises BadInput for what may not leave."""
        released = dict(arguments)
        if self.tainted:
            for name in tool.sends:
                if name in released:
                    released[name] = self._released(str(released[name]))
        return released

    def _released(self, address: str) -> str:
        own = self._own.get(_key(address.strip()))
        if own is None:
            raise NotReleased(address.strip())
        return own


class NotReleased(BadInput):
    """A call may not go to this address before the person has written it."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"{printable(address)!r} may carry what was said here: after reading texts of others, only an address that "
            "the person wrote is asked for; tell the person which page you need"
        )


def addresses_in(text: str) -> Sequence[str]:
    """The web addresses that stand in a text, in order; https where the scheme is left out."""
    found = []
    for match in _ADDRESS.finditer(text):
        address = match[0] if "://" in match[0] else f"https://{match[0]}"
        found += [address.rstrip(_AROUND), address]
    return list(dict.fromkeys(found))


def _key(address: str) -> tuple[str, str, int | None, str, str]:
    """What is the same for all spellings of an address that a person would call the same. A fragment stays here."""
    try:
        parts = urlsplit(address)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return "", address, None, "", ""
    user = f"{parts.username}@" if parts.username is not None else ""
    return parts.scheme, user + host, port or _PORTS.get(parts.scheme), parts.path.rstrip("/"), parts.query
