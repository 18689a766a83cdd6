"""The one loop: the assistant replies, its calls are made, it reads the results and goes on, until it answers.

An `Episode` holds one such answer. It needs no engine: whoever has one completes its `messages`, with its tools
`offered` and a call for certain if it `must_call`:

    episode = Episode(messages, tools)
    while not episode.finished:
        parts = complete(episode)   # texts and calls, as `chat.tool_calls.CallReader` gives them
        for call in episode.add_reply(parts):
            episode.make(call)

`converse` is that for an iterator of parts, `aconverse` for an asynchronous one. Rollouts keep many episodes and
complete all that are not finished in one batch.

Whatever a model asks for becomes a result that it can read: a tool that is not there, a call that is no JSON, arguments
that do not fit, a tool that fails, or one that takes too long.
"""

import asyncio
import json
import math
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from crawltalk.chat.messages import FunctionCall, Message, MessageLike, ToolCall, as_messages
from crawltalk.chat.tool_calls import Tool as Definition
from crawltalk.core.errors import UserError
from crawltalk.tokenizer.tokenizer import CALL_END, CALL_START
from crawltalk.tools.flow import Flow, NotReleased
from crawltalk.tools.tool import Tool, ToolResult

Part = str | ToolCall
Event = str | ToolCall | ToolResult
Complete = Callable[["Episode"], Iterator[Part]]
AsyncComplete = Callable[["Episode"], AsyncIterator[Part]]
_SPELLED = re.compile(rf"{CALL_START}(.*?)(?:{CALL_END}|\Z)", re.DOTALL)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one answer."""

    rounds: int = 6
    """Replies with calls. After them the assistant is offered no tools, so that it answers."""
    calls: int = 8
    """Calls of one reply that are made."""
    result: int = 4000
    """Characters of one result."""
    total: int = 40_000
    """Characters of all results; a result beyond them is left out."""
    arguments: int = 20_000
    """Characters of the arguments of a call."""

    @classmethod
    def of_context(cls, context: int) -> "Limits":
        """For a model that reads `context` tokens: a result of as many characters takes a quarter of them
        or a third.
        """
        return cls(result=min(8000, context), total=min(64_000, 3 * context))


class Episode:
    """One answer of an assistant that has tools."""

    def __init__(
        self,
        messages: Iterable[MessageLike],
        tools: Sequence[Tool],
        limits: Limits | None = None,
        *,
        call_first: bool = False,
        flow: Flow | None = None,
    ) -> None:
        """`call_first`: the first reply is a call, which a small model may need to be made to. `flow` None: what the
        messages say, and nothing else was read.
        """
        self.messages = as_messages(messages)
        """The conversation so far; what comes is added."""
        self.tools = {tool.name: tool for tool in tools}
        self.limits = limits or Limits()
        self.flow = flow if flow is not None else Flow(self.messages, tools)
        self.results: list[ToolResult] = []
        self.rounds = 0
        self.finished = False
        self._call_first = call_first
        self._sent: dict[tuple[str, str], ToolResult] = {}
        """Of calls that leave this machine: what they said."""

    @property
    def offered(self) -> list[Definition]:
        """The tools of the next reply."""
        return [tool.definition for tool in self.tools.values()] if self.rounds < self.limits.rounds else []

    @property
    def must_call(self) -> bool:
        """Whether the next reply has to be a call."""
        return self._call_first and self.rounds == 0 and bool(self.offered)

    def add_reply(self, parts: Iterable[Part]) -> list[ToolCall]:
        """Add a reply. Returns the calls that are to be made; without one the answer is finished."""
        parts = list(parts)
        calls = [part for part in parts if isinstance(part, ToolCall)]
        text = "".join(part for part in parts if isinstance(part, str))
        if self.offered and not calls and CALL_START in text:
            calls, text = list(_spelled(text, self.tools)), _SPELLED.sub("", text).strip()
        calls = calls[: self.limits.calls] if self.offered else []  # without an offer this is the answer
        self.messages.append(Message("assistant", text, tool_calls=calls))
        self.rounds += bool(calls)
        self.finished = not calls
        return calls

    def make(self, call: ToolCall) -> ToolResult:
        """Make a call, and add its result."""
        result = self._result(call).cut(self.limits.result)
        used = sum(len(one.text) for one in self.results)
        if used + len(result.text) > self.limits.total:
            result = ToolResult.failure(
                "the results of this answer have become too long; answer now", result.source
            )
        if result.outside:
            self.flow.read(result.source)
        self.results.append(result)
        self.messages.append(result.as_message(call.id))
        return result

    def _result(self, call: ToolCall) -> ToolResult:
        name = call.function.name
        tool = self.tools.get(name)
        if tool is None:
            known = ", ".join(self.tools) or "none"
            return ToolResult.failure(f"there is no tool {name[:50]!r}; there are: {known}", "tools")
        try:
            arguments = _arguments(call.function.arguments, tool.parameters, self.limits.arguments)
            arguments = self.flow.released(tool, arguments)
        except NotReleased as error:
            return replace(ToolResult.failure(str(error), name), withheld=error.address)
        except UserError as error:
            return ToolResult.failure(str(error), name)
        sent = (name, json.dumps(arguments, sort_keys=True))
        if self.flow.tainted and sent in self._sent:
            return self._sent[sent]
        result = replace(_called(tool, arguments), outside=tool.outside)
        if tool.sends:
            self._sent[sent] = result
        return result


def _spelled(text: str, known: Iterable[str]) -> Iterator[ToolCall]:
    """The calls in a text that a `CallReader` took for none: of a tool that is not there, in a list as SmolLM2 writes
    them, with `parameters` as Llama does; or in no such form, and then their result will say so.
    """
    for match in _SPELLED.finditer(text):
        try:
            written = json.loads(match[1])
        except (ValueError, RecursionError):
            written = None
        for one in written if isinstance(written, list) and written else [written]:
            if isinstance(one, dict) and isinstance(name := one.get("name"), str):
                arguments = one.get("arguments", one.get("parameters", {}))
                call = FunctionCall(name, arguments if isinstance(arguments, str) else json.dumps(arguments))
            else:
                name = next((name for name in known if name in match[1]), "")
                call = FunctionCall(name, match[1].strip())
            yield ToolCall(call, id=f"call_{secrets.token_hex(12)}")


def _arguments(written: str, schema: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The arguments of a call, as far as the schema's top level says what they are. Raises UserError."""
    if len(written) > most:
        raise UserError(f"the arguments have more than {most:,} characters")
    try:
        arguments = json.loads(written or "{}")
    except (ValueError, RecursionError):
        raise UserError("the arguments are no JSON") from None
    if not isinstance(arguments, dict):
        raise UserError("the arguments are no JSON object")
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in arguments:
            raise UserError(f"the argument {name} is missing")
    for name, value in arguments.items():
        if name not in properties:
            raise UserError(f"there is no argument {name[:50]!r}; there are: {', '.join(properties)}")
        kind = properties[name].get("type")
        if kind == "string" and isinstance(value, int | float) and not isinstance(value, bool):
            arguments[name] = json.dumps(value)  # an expression that is a number alone
        elif kind in _TYPES and not _is(value, kind):
            raise UserError(f"the argument {name} is no {kind}")
    return arguments


def _is(value: Any, kind: str) -> bool:
    """Whether a value is of a type of JSON schema."""
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    return isinstance(value, _TYPES[kind]) and not (isinstance(value, float) and not math.isfinite(value))


def _called(tool: Tool, arguments: dict[str, Any]) -> ToolResult:
    """The result of a tool, or what came instead. A call that hangs is left alone in its thread."""
    outcome: SimpleQueue[ToolResult] = SimpleQueue()

    def call() -> None:
        try:
            outcome.put(tool.call(arguments))
        except UserError as error:
            outcome.put(ToolResult.failure(str(error), tool.name))
        except Exception as error:  # a tool's bug is no reason to lose the conversation
            reason = f"the tool failed with {type(error).__name__}: {error}"
            outcome.put(ToolResult.failure(reason[:300], tool.name))

    Thread(target=call, name=f"tool {tool.name}", daemon=True).start()
    try:
        return outcome.get(timeout=tool.seconds)
    except Empty:
        return ToolResult.failure(f"{tool.name} took longer than {tool.seconds:g} s", tool.name)


def converse(complete: Complete, episode: Episode) -> Iterator[Event]:
    """Run an episode to its end: pieces of text, calls and results, as they come."""
    while not episode.finished:
        parts: list[Part] = []
        for part in complete(episode):
            parts.append(part)
            yield part
        for call in episode.add_reply(parts):
            yield episode.make(call)


async def aconverse(complete: AsyncComplete, episode: Episode) -> AsyncIterator[Event]:
    """`converse` for an event loop: tools work in threads."""
    while not episode.finished:
        parts: list[Part] = []
        async for part in complete(episode):
            parts.append(part)
            yield part
        for call in episode.add_reply(parts):
            yield await asyncio.to_thread(episode.make, call)
