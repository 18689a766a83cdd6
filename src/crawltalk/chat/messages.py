"""Messages and conversations, in the form of OpenAI's API: text, images and sounds, tool calls and their results.

A plain dict of that form is taken wherever a message is (`as_messages`). In JSON, fields that are not set are
left out.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from crawltalk.core.errors import BadInput

Role = Literal["system", "user", "assistant", "tool"]


class TextPart(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A text among the parts of a message."""

    text: str


class ImageUrl(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    url: str
    """A web address, or `data:image/png;base64,...`."""
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url", forbid_unknown_fields=True):
    """An image among the parts of a message."""

    image_url: ImageUrl


class InputAudio(msgspec.Struct, forbid_unknown_fields=True):
    """A sound: its bytes in base64."""

    data: str
    format: str
    """ "wav" or "mp3"."""


class AudioPart(msgspec.Struct, tag_field="type", tag="input_audio", forbid_unknown_fields=True):
    """A sound among the parts of a message."""

    input_audio: InputAudio


ContentPart = TextPart | ImagePart | AudioPart

PLACES: dict[type[ContentPart], str] = {ImagePart: "<|image|>", AudioPart: "<|audio|>"}
"""The control tokens that stand for what is no text, in models that read it (`crawltalk.multimodal`)."""


class FunctionCall(msgspec.Struct, forbid_unknown_fields=True):
    """A function's name and its arguments, a JSON object as text."""

    name: str
    arguments: str


class ToolCall(
    msgspec.Struct, tag_field="type", tag="function", forbid_unknown_fields=True, omit_defaults=True
):
    """A call that the assistant makes."""

    function: FunctionCall
    id: str | None = None
    """The result refers to its call by this id."""


class Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    role: Role
    content: str | list[ContentPart]
    tool_calls: list[ToolCall] = []
    """Of the assistant, after its text."""
    tool_call_id: str | None = None
    """Of a tool's result: the call that it answers."""
    name: str | None = None
    """The name of the speaker, if several have one role, or of the tool. No chat format here writes it."""


class Conversation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Messages in order; the `messages` JSONL of OpenAI and Hugging Face."""

    messages: list[Message]
    source: str
    """What made this conversation: flagship, refusal, identity, arithmetic, spelling, ... or the file it is from."""
    tools: list[dict[str, Any]] = []
    """The functions that the assistant may call, in OpenAI's form (`chat.tool_calls.as_tools`)."""
    unlearned: list[int] = []
    """Positions of the assistant's messages that are only read: those of OpenAI's `weight: 0`."""


class Preference(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Two continuations of one conversation, of which people or a judge prefer one."""

    messages: list[Message]
    """What both continue; the last is no message of the assistant."""
    chosen: list[Message]
    rejected: list[Message]
    source: str


MessageLike = Message | Mapping[str, Any]


def as_messages(messages: Iterable[MessageLike]) -> list[Message]:
    """Messages out of messages and plain dicts. Raises BadInput, with the position, for what is neither."""
    return [
        message if isinstance(message, Message) else _from_dict(message, index)
        for index, message in enumerate(messages)
    ]


def _from_dict(given: Any, index: int) -> Message:
    """What is None is not set, as in rows of a table. `content` may be missing beside calls, as OpenAI has it,
    and arguments may be an object, as Hugging Face has them.
    """
    try:
        if isinstance(given, Mapping):
            given = {key: value for key, value in given.items() if value is not None or key == "content"}
            if isinstance(calls := given.get("tool_calls"), list):
                calls = [_with_json_arguments(call) for call in calls]
                given |= {"content": given.get("content") or "", "tool_calls": calls}
        return msgspec.convert(given, Message)
    except (TypeError, ValueError, RecursionError) as error:  # msgspec's own are ValueErrors
        raise BadInput(
            f'message {index + 1}: {error}; a message is {{"role": "user", "content": "Hi"}}'
        ) from None


def _with_json_arguments(call: Any) -> Any:
    match call:
        case {"function": {"arguments": dict(arguments)}}:
            written = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
            return {**call, "function": {**call["function"], "arguments": written}}
    return call


def text_of(message: Message) -> str:
    """The text of a message. Raises BadInput for an image or a sound."""
    if isinstance(message.content, str):
        return message.content
    for part in message.content:
        if not isinstance(part, TextPart):
            raise BadInput(unread(part))
    return "".join(part.text for part in message.content if isinstance(part, TextPart))


def unread(part: ContentPart) -> str:
    """What to say of a part that the model does not read."""
    return f"this model reads text only, no {part.__struct_config__.tag}; leave such parts out"
