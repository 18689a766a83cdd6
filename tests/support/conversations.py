"""A conversation with tools, calls and results."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from crawltalk.chat.messages import FunctionCall, Message, ToolCall
from crawltalk.chat.tool_calls import Tool

TOOLS = [
    Tool(name="time", description="What time is it, <now>?"),
    Tool(name="weather", parameters={"type": "object", "properties": {"city": {"enum": ["Zürich"]}}}),
]
CALLS = [
    ToolCall(FunctionCall("time", '{"zone": "UTC"}'), id="1"),
    ToolCall(FunctionCall("weather", "{}"), id="2"),
]
PLAIN = [
    Message("system", "Be brief."),
    Message("user", "What is 2 + 2?"),
    Message("assistant", "Four,\n\nI think."),
]
CALLING = [
    *PLAIN,
    Message("user", "What time is it?"),
    Message("assistant", "Let me see.", tool_calls=CALLS),
    Message("tool", "noon", tool_call_id="1"),
    Message("tool", "rain\n", tool_call_id="2"),
    Message("assistant", "", tool_calls=CALLS[:1]),
    Message("tool", "1 pm", tool_call_id="1"),
    Message("assistant", "Noon, then one."),
    Message("user", "Thank you."),
]


def as_rows(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as the plain dicts of OpenAI's API."""
    return json.loads(msgspec.json.encode(messages))
