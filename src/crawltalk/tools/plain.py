"""Tools for models whose own chat template has no place for them, such as SmolLM2's: what our renderer writes between
control tokens is spelled in the texts of system, user and assistant.
"""

from collections.abc import Sequence

from crawltalk.chat.messages import Message, text_of
from crawltalk.chat.render import ChatRenderer
from crawltalk.chat.tool_calls import HERMES, Tool, tools_description, written_call, written_result
from crawltalk.tokenizer.tokenizer import CALL_END, CALL_START, RESPONSE_END, RESPONSE_START


def for_renderer(
    renderer: ChatRenderer, messages: Sequence[Message], tools: Sequence[Tool]
) -> tuple[list[Message], list[Tool]]:
    """Messages and tools as this model's conversations can hold them."""
    uses_tools = bool(tools) or any(message.role == "tool" or message.tool_calls for message in messages)
    if not uses_tools or renderer.template is None or renderer.template.takes_tools:
        return list(messages), list(tools)
    return spelled(messages, tools), []


def spelled(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """The same conversation without calls, results and tools. A result cannot spell a mark of its own end: there is a
    blank in it.
    """
    plain: list[Message] = []
    after_result = False
    for message in messages:
        role, text = message.role, text_of(message)
        if message.role == "tool":
            role, text = "user", "".join(written_result(_unmarked(text)))
        elif message.tool_calls:
            calls = ["".join(written_call(call.function)) for call in message.tool_calls]
            text = "\n".join([*([text] if text else []), *calls])
        if after_result and role == "user":  # one turn: many templates refuse two of the user in a row
            text = f"{plain.pop().content}\n{text}"
        plain.append(Message(role, text))
        after_result = message.role == "tool"
    if tools:
        system = f"{plain.pop(0).content}\n\n" if plain and plain[0].role == "system" else ""
        plain.insert(0, Message("system", system + "".join(tools_description(tools, HERMES))))
    return plain


def _unmarked(text: str) -> str:
    for mark in (CALL_START, CALL_END, RESPONSE_START, RESPONSE_END):
        text = text.replace(mark, f"< {mark[1:]}")
    return text
