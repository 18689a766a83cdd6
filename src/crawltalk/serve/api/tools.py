"""OpenAI's `tools`, `tool_choice` and `tool_calls`, to and from the types of the chat package."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from crawltalk.chat.messages import FunctionCall, ToolCall
from crawltalk.chat.tool_calls import CallReader, Tool, call_schema
from crawltalk.serve.api import protocol
from crawltalk.serve.api.errors import bad_request


@dataclass(frozen=True)
class Tools:
    """The functions of one request, and whether one must be called."""

    offered: list[Tool]
    must_call: bool
    max_calls: int | None

    @classmethod
    def of(cls, request: protocol.ChatRequest) -> "Tools":
        """Raises ApiError if the functions do not fit the choice."""
        choice = request.tool_choice or "auto"
        functions = [tool.function for tool in request.tools or [] if tool.function is not None]
        must_call = choice in ("required", "any")
        if choice == "none":
            functions = []
        elif isinstance(choice, protocol.NamedTool):
            functions, must_call = _named(functions, {choice.function.name}), True
        elif isinstance(choice, protocol.AllowedToolsChoice):
            allowed = choice.allowed_tools
            names = {tool.function.name for tool in allowed.tools if tool.function is not None}
            functions, must_call = _named(functions, names), allowed.mode == "required"
        if must_call and not functions:
            raise bad_request("tool_choice asks for a call, but tools has no such function", "tool_choice")
        max_calls = 1 if request.parallel_tool_calls is False else None
        return cls(list(map(_tool, functions)), must_call, max_calls)

    def schema(self) -> str | None:
        """The JSON schema of a reply that must be a call; None if it may be anything."""
        return msgspec.json.encode(call_schema(self.offered)).decode() if self.must_call else None

    def reader(self) -> CallReader:
        """A reader that finds the calls in a reply."""
        return CallReader(self.offered, must_call=self.must_call, max_calls=self.max_calls)


def _tool(function: protocol.Function) -> Tool:
    return Tool(
        name=function.name, description=function.description or "", parameters=function.parameters or {}
    )


def _named(functions: list[protocol.Function], names: set[str]) -> list[protocol.Function]:
    return [function for function in functions if function.name in names]


def calls_of(message: protocol.AssistantMessage) -> list[ToolCall]:
    """The calls of an earlier turn."""
    calls = [ToolCall(_call(call.function), call.id) for call in message.tool_calls or []]
    return [*calls, ToolCall(_call(message.function_call))] if message.function_call else calls


def call_ids(messages: Iterable[protocol.ChatMessage]) -> set[str | None]:
    """Of all calls in these messages: what a result may refer to."""
    turns = (message for message in messages if isinstance(message, protocol.AssistantMessage))
    return {call.id for turn in turns for call in turn.tool_calls or []}


def _call(call: protocol.Call) -> FunctionCall:
    arguments = call.arguments or "{}"
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return FunctionCall(call.name, arguments)


def as_openai(call: ToolCall, index: int | msgspec.UnsetType = msgspec.UNSET) -> protocol.ToolCall:
    """A call of the reply; `index` in a stream."""
    function = protocol.Call(name=call.function.name, arguments=call.function.arguments)
    return protocol.ToolCall(id=call.id or "", function=function, index=index)
