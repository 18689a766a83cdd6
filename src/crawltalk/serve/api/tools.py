"""Tool calls in the form of the Hermes models, which Qwen's models learned, too.

The system message lists the functions in `<tools>`; the assistant calls one by `<tool_call>{"name": ...,
"arguments": {...}}</tool_call>` (Nous Research, Hermes-Function-Calling); what came of it stands in
`<tool_response>`, in a turn of the user (Qwen2.5's chat template).
"""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from crawltalk.engine.sequence import overlap
from crawltalk.serve.api.errors import bad_request
from crawltalk.serve.api.protocol import Call, ChatRequest, NamedTool, Tool, ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class _Said(msgspec.Struct):
    """A call as a model writes it."""

    name: str
    arguments: dict[str, Any] = {}


class Tools:
    """The functions of one request, and whether one must be called."""

    def __init__(self, asked: ChatRequest) -> None:
        """Raises ApiError if the functions do not fit the choice."""
        choice = asked.tool_choice or "auto"
        tools = [] if choice == "none" else asked.tools or []
        if isinstance(choice, NamedTool):
            tools = [tool for tool in tools if tool.function.name == choice.function.name]
            if not tools:
                raise bad_request(f"tools has no function {choice.function.name!r}", "tool_choice")
        if choice == "required" and not tools:
            raise bad_request("tool_choice asks for a call, but there are no tools", "tool_choice")
        self.must_call = choice not in ("none", "auto")
        self.names = {tool.function.name for tool in tools}
        self.most = 1 if asked.parallel_tool_calls is False else None
        self._tools = tools

    def description(self) -> str:
        """What the system message says of them; nothing if there are none."""
        if not self._tools:
            return ""
        lines = "\n".join(
            msgspec.json.encode({"type": "function", "function": _described(tool)}).decode()
            for tool in self._tools
        )
        form = '{"name": <name of the function>, "arguments": <JSON object of its arguments>}'
        return (
            f"# Tools\n\nYou can call functions. Their signatures, as JSON, one a line:\n<tools>\n{lines}\n</tools>\n\n"
            f"To call one, write a JSON object with its name and arguments:\n{OPEN}\n{form}\n{CLOSE}"
        )

    def schema(self) -> str | None:
        """The JSON schema of a reply that must be a call; None if it may be anything."""
        if not self.must_call:
            return None
        return msgspec.json.encode(
            {
                "anyOf": [
                    _schema(tool, f"#/anyOf/{place}/properties/arguments")
                    for place, tool in enumerate(self._tools)
                ]
            }
        ).decode()

    def call(self, text: str) -> ToolCall | None:
        """The call that a model wrote; None if it is none of these functions, or no call at all."""
        try:
            said = msgspec.json.decode(text, type=_Said)
        except (msgspec.DecodeError, RecursionError):
            return None
        if said.name not in self.names:
            return None
        arguments = msgspec.json.encode(said.arguments).decode()
        return ToolCall(
            id=f"call_{secrets.token_hex(12)}", function=Call(name=said.name, arguments=arguments)
        )


def _described(tool: Tool) -> dict[str, Any]:
    function = tool.function
    return {
        "name": function.name,
        "description": function.description or "",
        "parameters": function.parameters or {},
    }


def _schema(tool: Tool, place: str) -> dict[str, Any]:
    """Of a call of this function; its parameters will stand at a place in a larger schema, where their
    references lead.
    """
    parameters = _moved(tool.function.parameters or {"type": "object"}, place)
    properties = {"name": {"const": tool.function.name}, "arguments": parameters}
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    """The schema with each reference into itself leading to where it will stand."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, place)
        for key, value in schema.items()
    }


class CallReader:
    """Tells calls from text as a reply comes. What may begin a call is held back until it does not."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.found = tools, 0
        self._held = ""

    def read(self, text: str, *, final: bool) -> Iterator[str | ToolCall]:
        """Text and calls that are whole after some more text. Without functions every text is text."""
        if not self.tools.names:
            yield text
            return
        self._held += text
        if self.tools.must_call:
            if final:
                yield from self._take(self._held, self._held)
            return
        while self._held:
            said, opened, rest = self._held.partition(OPEN)
            if not opened:
                keep = 0 if final else overlap(said, OPEN)
                said, self._held = said[: len(said) - keep], said[len(said) - keep :]
                if said:
                    yield said
                return
            inside, closed, after = rest.partition(CLOSE)
            if not (closed or final):
                self._held = opened + rest
            if said := said.rstrip():
                yield said
            if not (closed or final):
                return
            yield from self._take(inside, opened + inside + closed)
            self._held = after

    def _take(self, inside: str, text: str) -> Iterator[str | ToolCall]:
        """The call; if it is none, the text as it was said."""
        call = self.tools.call(inside)
        if call is None:
            yield text
        elif self.tools.most is None or self.found < self.tools.most:
            call.index, self.found = self.found, self.found + 1
            yield call


def written(calls: Sequence[ToolCall]) -> str:
    """Calls of an earlier turn, as the model wrote them."""
    return "\n".join(f"{OPEN}\n{_spelled(call.function)}\n{CLOSE}" for call in calls)


def _spelled(call: Call) -> str:
    return f'{{"name": {msgspec.json.encode(call.name).decode()}, "arguments": {call.arguments or "{}"}}}'
