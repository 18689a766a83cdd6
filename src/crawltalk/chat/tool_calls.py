"""The one format of tool calls: that of the Hermes models, which Qwen's learned, too.

The system message lists the functions in `<tools>`; the assistant calls one by `<tool_call>`, a JSON object of
its name and arguments, and `</tool_call>` (Nous Research, Hermes-Function-Calling); its result stands
between `<tool_response>` and `</tool_response>` in a turn of the user, several results in one turn. The words and
line breaks are those of Qwen2.5's chat template; our own models, whose context is short, get the list in a shorter
form (`SHORT`).

Why this format: models in the wild know it, and so do the servers that run ours (vLLM's and SGLang's parser is
called `hermes`). The four names are control tokens of our vocabulary, as they are in Qwen3's. The renderer
writes them as ids, so that a text that spells them can never open a call or pass for a result. That is why a
result needs no role of its own, and the layout is the same for every model: the control token, not the role,
says where the text comes from. Where a vocabulary lacks such a token, its name is spelled as text.
"""

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from crawltalk.chat.messages import FunctionCall, ToolCall
from crawltalk.core.errors import BadInput
from crawltalk.tokenizer.tokenizer import CALL_END, CALL_START, RESPONSE_END, RESPONSE_START


class ToolsForm(NamedTuple):
    """How the system message lists the functions."""

    before: str
    after: str
    short: bool
    """Whether a function stands without `{"type": "function", "function": ...}` around it."""


HERMES = ToolsForm(
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>",
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    f"{CALL_START}{CALL_END} XML tags:\n{CALL_START}\n"
    f'{{"name": <function-name>, "arguments": <args-json-object>}}\n{CALL_END}',
    short=False,
)
SHORT = ToolsForm(
    "<tools>",
    f'\n</tools>\nTo call one: {CALL_START}\n{{"name": ..., "arguments": {{...}}}}\n{CALL_END}',
    short=True,
)
"""Half as many tokens in a small vocabulary: 134 instead of 245 for a function with one string."""


class Tool(msgspec.Struct, kw_only=True):
    """A function that the assistant may call."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    """A JSON schema of its arguments."""

    def described(self) -> dict[str, Any]:
        """In OpenAI's form, as chat templates take it, without what is empty."""
        function = {key: value for key, value in msgspec.to_builtins(self).items() if value}
        return {"type": "function", "function": function}


def as_tools(given: Iterable[Any]) -> list[Tool]:
    """Tools out of dicts in OpenAI's form, or of their functions alone. Raises BadInput, with the position, for what
    is neither.
    """
    tools = []
    for index, one in enumerate(given):
        function = one.get("function", one) if isinstance(one, Mapping) else one
        try:
            if not isinstance(function, Mapping):
                raise TypeError("a tool is an object")
            tools.append(
                msgspec.convert({key: value for key, value in function.items() if value is not None}, Tool)
            )
        except (TypeError, ValueError) as error:
            example = '{"type": "function", "function": {"name": "time", "parameters": {...}}}'
            raise BadInput(f"tool {index + 1}: {error}; a tool is {example}") from None
    return tools


class Control(str):
    """The name of a control token that the structure of a conversation asks for; a plain `str` is text."""

    __slots__ = ()


def tools_description(tools: Sequence[Tool], form: ToolsForm) -> list[str]:
    """The functions as the system message lists them: texts and control tokens."""
    described = [tool.described()["function"] if form.short else tool.described() for tool in tools]
    lines = "".join("\n" + json.dumps(one, ensure_ascii=False) for one in described)
    first, *others = form.after.split(CALL_START)
    pieces = [form.before + lines + first]
    for other in others:
        before, closed, after = other.partition(CALL_END)
        pieces += [Control(CALL_START), before, Control(closed), after]
    return pieces


def written_call(call: FunctionCall) -> list[str]:
    """A call as the assistant writes it."""
    arguments = call.arguments or "{}"
    line = f'{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {arguments}}}'
    return [Control(CALL_START), f"\n{line}\n", Control(CALL_END)]


def written_result(text: str) -> list[str]:
    """The result of a call, for a turn of the user."""
    return [Control(RESPONSE_START), f"\n{text}\n", Control(RESPONSE_END)]


def call_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """The JSON schema of a reply that must be a call of one of the functions, without `<tool_call>`."""
    return {"anyOf": [_schema(tool, f"#/anyOf/{i}/properties/arguments") for i, tool in enumerate(tools)]}


def _schema(tool: Tool, path: str) -> dict[str, Any]:
    """Of a call of this function; its parameters will stand at `path` in a larger schema, where their
    references lead. Arguments are an object, and an empty one if no property is declared.
    """
    parameters = tool.parameters | {"type": "object"}
    if not parameters.keys() & {"properties", "allOf", "anyOf", "oneOf", "$ref"}:
        parameters["properties"] = {}
    parameters = _moved(parameters, path)
    properties = {"name": {"const": tool.name}, "arguments": parameters}
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, path: str) -> Any:
    """The schema with each reference into itself leading to where it will stand. Its `$id`, to which references
    would be relative, is left out.
    """
    if isinstance(schema, list):
        return [_moved(item, path) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: path + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, path)
        for key, value in schema.items()
        if not (key == "$id" and isinstance(value, str))
    }


_END_OF_CALL = re.compile(rf'((?:[^"<]++|"(?:[^"\\]++|\\.)*+"|<(?!{CALL_END[1:]}))*+){CALL_END}', re.DOTALL)
"""The text of a call up to its end: the mark in a string of its JSON is none."""


class _WrittenCall(msgspec.Struct):
    """A call as a model writes it."""

    name: str
    arguments: dict[str, Any] = {}


class CallReader:
    """Tells calls from text as a reply comes. What may begin a call is held back until it does not."""

    def __init__(
        self, tools: Sequence[Tool], *, must_call: bool = False, max_calls: int | None = None
    ) -> None:
        """`must_call`: the whole reply is a call, without `<tool_call>` (`call_schema`); `max_calls`: later
        calls are dropped.
        """
        self.names = {tool.name for tool in tools}
        self.must_call, self.max_calls = must_call, max_calls
        self.num_calls = 0
        self._held = ""

    def read(self, text: str, *, final: bool) -> Iterator[str | ToolCall]:
        """The text and the complete calls after another piece of the reply. Without functions everything is text."""
        if not self.names:
            yield text
            return
        self._held += text
        if self.must_call:
            if final:
                yield from self._call(self._held, self._held)
            return
        while self._held:
            before, opened, rest = self._held.partition(CALL_START)
            if not opened:
                size = len(before)
                if not final:  # white space before a call is not part of the text
                    size = len(before[: size - overlap(before, CALL_START)].rstrip())
                before, self._held = before[:size], before[size:]
                if before:
                    yield before
                return
            if text := before.rstrip():
                yield text
            opened = before[len(text) :] + opened
            end = _END_OF_CALL.match(rest)
            if end is None and not final:
                self._held = opened + rest
                return
            if end is None or self._parse(end[1]) is None:  # no JSON, whose quotes mean nothing
                inside, closed, after = rest.partition(CALL_END)
            else:
                inside, closed, after = end[1], CALL_END, rest[end.end() :]
            yield from self._call(inside, opened + inside + closed)
            self._held = after

    def _call(self, inside: str, text: str) -> Iterator[str | ToolCall]:
        """The call; if it is none, the text as it stands, with the white space before it."""
        call = self._parse(inside)
        if call is None:
            yield text
        elif self.max_calls is None or self.num_calls < self.max_calls:
            self.num_calls += 1
            yield call

    def _parse(self, text: str) -> ToolCall | None:
        """The call that a model wrote; None if it is none of these functions, or no call at all."""
        try:
            call = msgspec.json.decode(text, type=_WrittenCall)
        except (msgspec.DecodeError, RecursionError):
            return None
        if call.name not in self.names:
            return None
        arguments = msgspec.json.encode(call.arguments).decode()
        return ToolCall(FunctionCall(call.name, arguments), id=f"call_{secrets.token_hex(12)}")


def overlap(text: str, mark: str) -> int:
    """The length of the longest beginning of `mark`, short of all of it, with which the text ends."""
    return next((size for size in range(len(mark) - 1, 0, -1) if text.endswith(mark[:size])), 0)
