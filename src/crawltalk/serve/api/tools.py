"""OpenAI's `tools`, `tool_choice` and `tool_calls`, to and from the types of the chat package."""

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
        tools = [] if choice == "none" else request.tools or []
        if isinstance(choice, protocol.NamedTool):
            tools = [tool for tool in tools if tool.function.name == choice.function.name]
            if not tools:
                raise bad_request(f"tools has no function {choice.function.name!r}", "tool_choice")
        if choice == "required" and not tools:
            raise bad_request("tool_choice asks for a call, but there are no tools", "tool_choice")
        max_calls = 1 if request.parallel_tool_calls is False else None
        return cls([_tool(tool.function) for tool in tools], choice not in ("none", "auto"), max_calls)

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


def calls_of(calls: Iterable[protocol.ToolCall]) -> list[ToolCall]:
    """Calls of an earlier turn."""
    return [ToolCall(FunctionCall(call.function.name, call.function.arguments), call.id) for call in calls]


def as_openai(call: ToolCall, index: int | msgspec.UnsetType = msgspec.UNSET) -> protocol.ToolCall:
    """A call of the reply; `index` in a stream."""
    function = protocol.Call(name=call.function.name, arguments=call.function.arguments)
    return protocol.ToolCall(id=call.id or "", function=function, index=index)
