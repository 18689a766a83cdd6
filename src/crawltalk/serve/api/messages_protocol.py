"""The bodies of Anthropic's Messages API. An event's tag is its name; its data have the same name as `type`."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from crawltalk.serve.api.protocol import SamplingRequest, StopString

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]


class TextBlock(Struct, kw_only=True, tag_field="type", tag="text"):
    """A text."""

    text: str


class ToolUseBlock(Struct, kw_only=True, tag_field="type", tag="tool_use"):
    """A call of a tool by the assistant."""

    id: str
    name: str
    input: dict[str, Any]


class Base64Source(Struct, kw_only=True, tag_field="type", tag="base64"):
    """A file in base64."""

    media_type: str
    """image/png, ..."""
    data: str


class UrlSource(Struct, kw_only=True, tag_field="type", tag="url"):
    """A file at an address, which is refused: nothing is fetched."""

    url: str


class FileSource(Struct, tag_field="type", tag="file"):
    """A file that was sent before, which is refused: none are kept."""


class ImageBlock(Struct, tag_field="type", tag="image"):
    """An image, which is refused unless the model reads images."""

    source: Base64Source | UrlSource | FileSource | None = None


class DocumentBlock(Struct, tag_field="type", tag="document"):
    """A document, which is refused: send its text."""


class ThinkingBlock(Struct, tag_field="type", tag="thinking"):
    """What a model thought earlier: taken, and not read."""


class RedactedThinkingBlock(Struct, tag_field="type", tag="redacted_thinking"):
    """The same, encrypted."""


class ToolResultBlock(Struct, kw_only=True, tag_field="type", tag="tool_result"):
    """The result of a call."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock] | None = None


class SystemTurn(Struct, kw_only=True, tag_field="role", tag="system"):
    """Instructions for the assistant."""

    content: str | list[TextBlock]


class UserTurn(Struct, kw_only=True, tag_field="role", tag="user"):
    """What the user says, and results of calls."""

    content: str | list[TextBlock | ToolResultBlock | ImageBlock | DocumentBlock]


class AssistantTurn(Struct, kw_only=True, tag_field="role", tag="assistant"):
    """An earlier reply. The last turn, if it is one of text, is how the reply begins."""

    content: str | list[TextBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock]


class ToolDefinition(Struct, kw_only=True):
    """A tool that the client runs. Those that Anthropic runs, which have other types, are left out and named."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    type: str | None = None
    """ "custom" or absent."""
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    """A JSON schema."""


class AutoChoice(Struct, kw_only=True, tag_field="type", tag="auto"):
    """The assistant calls tools or not."""

    disable_parallel_tool_use: bool | None = None


class AnyChoice(Struct, kw_only=True, tag_field="type", tag="any"):
    """One of the tools must be called."""

    disable_parallel_tool_use: bool | None = None


class NamedChoice(Struct, kw_only=True, tag_field="type", tag="tool"):
    """This tool must be called."""

    name: str
    disable_parallel_tool_use: bool | None = None


class NoChoice(Struct, tag_field="type", tag="none"):
    """No tool is called."""


class OutputFormat(Struct, kw_only=True, tag_field="type", tag="json_schema"):
    """A reply that obeys a JSON schema."""

    schema: dict[str, Any]


class OutputConfig(Struct, kw_only=True):
    """The form of a reply."""

    format: OutputFormat | None = None


class CountTokensRequest(SamplingRequest, kw_only=True):
    """POST /v1/messages/count_tokens: the body of a message; how its tokens are drawn does not count."""

    messages: Annotated[list[UserTurn | AssistantTurn | SystemTurn], Meta(min_length=1, max_length=2000)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[ToolDefinition], Meta(max_length=128)] | None = None
    tool_choice: AutoChoice | AnyChoice | NamedChoice | NoChoice | None = None


class MessagesRequest(CountTokensRequest, kw_only=True):
    """POST /v1/messages. What a model thinks is part of its text: `thinking` is named as not read."""

    max_tokens: Annotated[int, Meta(ge=1)]
    stop_sequences: Annotated[list[StopString], Meta(max_length=16)] | None = None
    output_config: OutputConfig | None = None


class TokensCount(Struct):
    """The tokens of a prompt."""

    input_tokens: int


class MessageUsage(Struct, kw_only=True):
    """The tokens of a message."""

    input_tokens: int
    """Of the prompt, without those that were in the cache."""
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    output_tokens: int


class AssistantReply(Struct, kw_only=True, tag_field="type", tag="message"):
    """The assistant's message, whole or as far as it is."""

    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[TextBlock | ToolUseBlock]
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage


class MessageStart(Struct, kw_only=True, tag_field="type", tag="message_start"):
    message: AssistantReply


class Ping(Struct, tag_field="type", tag="ping"):
    """Shows that the connection is alive."""


class BlockStart(Struct, kw_only=True, tag_field="type", tag="content_block_start"):
    index: int
    content_block: TextBlock | ToolUseBlock


class TextDelta(Struct, kw_only=True, tag_field="type", tag="text_delta"):
    text: str


class InputDelta(Struct, kw_only=True, tag_field="type", tag="input_json_delta"):
    partial_json: str


class BlockDelta(Struct, kw_only=True, tag_field="type", tag="content_block_delta"):
    index: int
    delta: TextDelta | InputDelta


class BlockStop(Struct, kw_only=True, tag_field="type", tag="content_block_stop"):
    index: int


class StopDelta(Struct, kw_only=True):
    stop_reason: StopReason | None
    stop_sequence: str | None


class MessageDelta(Struct, kw_only=True, tag_field="type", tag="message_delta"):
    delta: StopDelta
    usage: MessageUsage


class MessageStop(Struct, tag_field="type", tag="message_stop"):
    pass


MessageEvent = MessageStart | Ping | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop
