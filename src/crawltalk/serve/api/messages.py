"""Anthropic's Messages API: POST /v1/messages and POST /v1/messages/count_tokens.

A request becomes one of chat (`begin_reply`), and the reply is written as blocks: texts and calls. A whole message is
the last state of its stream.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Container, Iterator, Sequence, Set
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from crawltalk.chat.messages import PLACES, ImagePart, ToolCall
from crawltalk.serve.api import protocol
from crawltalk.serve.api.chat import ChatReply, begin_reply, conversation
from crawltalk.serve.api.errors import AnthropicError, ApiError, bad_request, blaming
from crawltalk.serve.api.generation import Generation
from crawltalk.serve.api.messages_protocol import (
    AnyChoice,
    AssistantReply,
    AssistantTurn,
    Base64Source,
    BlockDelta,
    BlockStart,
    BlockStop,
    CountTokensRequest,
    ImageBlock,
    InputDelta,
    MessageDelta,
    MessageEvent,
    MessagesRequest,
    MessageStart,
    MessageStop,
    MessageUsage,
    NamedChoice,
    NoChoice,
    Ping,
    StopDelta,
    StopReason,
    SystemTurn,
    TextBlock,
    TextDelta,
    TokensCount,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
    UserTurn,
)
from crawltalk.serve.api.protocol import ChatMessage, ChatRequest
from crawltalk.serve.api.sending import ResponseBuilder, json_response, respond
from crawltalk.serve.api.tools import Tools, call_ids
from crawltalk.serve.state import ServerState


async def create_message(server: ServerState, http_request: Request, request: MessagesRequest) -> ASGIApp:
    """The assistant's message after those of a conversation."""
    _name_ignored(http_request, request)
    places = server.service(request.model).engine.renderer.places
    messages, prefill = as_messages(request, places)
    chat = _as_chat(request, messages)
    chat.max_tokens, chat.stop = request.max_tokens, request.stop_sequences
    if request.output_config is not None and request.output_config.format is not None:
        chat.response_format = protocol.SchemaFormat(schema=request.output_config.format.schema)
    reply = await begin_reply(server, http_request, chat, whole=True, prefill=prefill)
    return await respond(_MessageBuilder(reply, request))


async def count_tokens(server: ServerState, http_request: Request, request: CountTokensRequest) -> Response:
    """The tokens of a prompt, as POST /v1/messages would read it."""
    _name_ignored(http_request, request)
    engine = server.service(request.model).engine
    messages, prefill = as_messages(request, engine.renderer.places)
    tools = Tools.of(_as_chat(request, messages))
    with blaming("messages"):
        ids = await asyncio.to_thread(
            engine.renderer.encode_chat,
            conversation(messages, engine.renderer.places),
            tools=tools.offered,
            add_generation_prompt=True,
        )
    return json_response(TokensCount(len(ids) + len(engine.tokenizer.encode(prefill))))


def _name_ignored(http_request: Request, request: CountTokensRequest) -> None:
    """Name the tools that are left out: those that another server would run."""
    kinds = dict.fromkeys(tool.type for tool in request.tools or [] if tool.type not in (None, "custom"))
    if kinds:
        entry = http_request.state.log_entry
        entry["ignored"] = [*entry.get("ignored", []), *(f"tools ({kind})" for kind in kinds)]


def _as_chat(request: CountTokensRequest, messages: list[ChatMessage]) -> ChatRequest:
    """The same as a request of chat."""
    shared: dict[str, Any] = {
        name: getattr(request, name) for name in protocol.SamplingRequest.__struct_fields__
    }
    tools = [
        protocol.Tool(
            function=protocol.Function(
                name=tool.name, description=tool.description, parameters=tool.input_schema
            )
        )
        for tool in request.tools or []
        if tool.type in (None, "custom")
    ]
    chat = ChatRequest(messages=messages, tools=tools, **shared)
    match request.tool_choice:
        case NoChoice():
            chat.tool_choice = "none"
        case AnyChoice():
            chat.tool_choice = "required"
        case NamedChoice(name=name):
            chat.tool_choice = protocol.NamedTool(function=protocol.ToolName(name))
    if not isinstance(request.tool_choice, NoChoice | None):
        chat.parallel_tool_calls = not request.tool_choice.disable_parallel_tool_use
    return chat


def as_messages(request: CountTokensRequest, places: Container[str] = ()) -> tuple[list[ChatMessage], str]:
    """A conversation, and how its reply begins: the text of the assistant's last turn, if that is the last one.

    `places`: as `chat.conversation` has them. Raises ApiError for documents, for images unless the model reads some,
    and for the result of a call that nobody made.
    """
    messages: list[ChatMessage] = []
    if request.system:
        messages.append(protocol.SystemMessage(content=_text(request.system, "system")))
    known: set[str | None] = set()
    prefill = ""
    for index, turn in enumerate(request.messages):
        where = f"messages.{index}.content"
        match turn:
            case SystemTurn():
                messages.append(protocol.SystemMessage(content=_text(turn.content, where)))
            case UserTurn():
                _add_user_turn(messages, turn, where, known, places)
            case AssistantTurn():
                message = _assistant(turn)
                if turn is request.messages[-1] and not message.tool_calls:
                    prefill = str(message.content)
                else:
                    messages.append(message)
                    known |= call_ids([message])
    return messages, prefill


def _add_user_turn(
    messages: list[ChatMessage],
    turn: UserTurn,
    where: str,
    known: Set[str | None],
    places: Container[str],
) -> None:
    """Add results of calls, texts and images, in their order. `known`: the ids of the calls so far."""
    blocks = [TextBlock(text=turn.content)] if isinstance(turn.content, str) else turn.content
    said: list[str | protocol.ContentPart] = []
    for index, block in enumerate(blocks):
        if isinstance(block, ToolResultBlock):
            if block.tool_use_id not in known:
                raise bad_request(
                    f"{where}.{index}: no tool_use {block.tool_use_id[:200]!r} comes before this tool_result"
                )
            if said:
                messages.append(_said(said))
                said = []
            result = _text(block.content or "", f"{where}.{index}.content")
            messages.append(protocol.ToolMessage(content=result, tool_call_id=block.tool_use_id))
        elif isinstance(block, ImageBlock) and PLACES[ImagePart] in places:
            said.append(protocol.ImagePart(_address(block, f"{where}.{index}")))
        else:
            said.append(_text([block], where, index))
    if said or not blocks:
        messages.append(_said(said))


def _said(parts: list[str | protocol.ContentPart]) -> protocol.UserMessage:
    texts = [part for part in parts if isinstance(part, str)]
    return protocol.UserMessage(content="".join(texts) if len(texts) == len(parts) else parts)


def _address(block: ImageBlock, where: str) -> str:
    """Where an image is; one in base64 stands in its address. Raises ApiError for a file that was sent before."""
    match block.source:
        case Base64Source(media_type=kind, data=data):
            return f"data:{kind};base64,{data}"
        case UrlSource(url=url):
            return url
    raise bad_request(f"{where}: no files are kept here; send the image in base64")


def _assistant(turn: AssistantTurn) -> protocol.AssistantMessage:
    if isinstance(turn.content, str):
        return protocol.AssistantMessage(content=turn.content)
    calls = [
        protocol.ToolCall(id=block.id, function=protocol.Call(name=block.name, arguments=block.input))
        for block in turn.content
        if isinstance(block, ToolUseBlock)
    ]
    text = "".join(block.text for block in turn.content if isinstance(block, TextBlock))
    return protocol.AssistantMessage(content=text, tool_calls=calls or None)


def _text(content: str | Sequence[msgspec.Struct], where: str, first: int = 0) -> str:
    """The text of blocks, of which the first has this index in its field. Raises ApiError for a block without text."""
    if isinstance(content, str):
        return content
    for index, block in enumerate(content, first):
        if not isinstance(block, TextBlock):
            raise bad_request(
                f"{where}.{index}: this model reads text only, no {block.__struct_config__.tag}"
            )
    return "".join(block.text for block in content if isinstance(block, TextBlock))


class _MessageBuilder(ResponseBuilder):
    """Writes a generation as a message of blocks."""

    ends_with_done = False

    def __init__(self, reply: ChatReply, request: MessagesRequest) -> None:
        self.generation, self.tools, self.request = reply.generation, reply.tools, request
        self.message = AssistantReply(
            id=f"msg_{self.generation.id}", model=request.model, content=[], usage=_usage(self.generation)
        )
        self._open = False
        """Whether the last block is a text that is being written."""

    async def response(self) -> AssistantReply:
        """The whole message."""
        async for _ in self.chunks():
            pass
        return self.message

    async def chunks(self) -> AsyncIterator[MessageEvent]:
        """The message in parts: it begins, blocks grow one after the other, and it ends."""
        yield MessageStart(message=self.message)
        yield Ping()
        reader = self.tools.reader()
        async for _, event in self.generation.events():
            for part in reader.read(event.text, final=event.finish_reason is not None):
                for one in self._call(part) if isinstance(part, ToolCall) else self._text(part):
                    yield one
        for one in self._end(called=reader.num_calls > 0):
            yield one

    def failure(self, error: ApiError) -> AnthropicError:
        """The error, as an event."""
        return error.anthropic(self.generation.id)

    def _text(self, text: str) -> Iterator[MessageEvent]:
        """Add text to the open block, or to a new one."""
        if not text:
            return
        if not self._open:
            yield from self._begin(TextBlock(text=""))
            self._open = True
        yield BlockDelta(index=len(self.message.content) - 1, delta=TextDelta(text=text))
        block = self.message.content[-1]
        assert isinstance(block, TextBlock)
        block.text += text

    def _call(self, call: ToolCall) -> Iterator[MessageEvent]:
        """Close the open block and add a call."""
        yield from self._close()
        call_id = f"toolu_{(call.id or '').removeprefix('call_')}"
        block = ToolUseBlock(id=call_id, name=call.function.name, input={})
        yield from self._begin(block)
        self._open = True
        block.input = json.loads(call.function.arguments)
        yield BlockDelta(
            index=len(self.message.content) - 1, delta=InputDelta(partial_json=call.function.arguments)
        )
        yield from self._close()

    def _begin(self, block: TextBlock | ToolUseBlock) -> Iterator[MessageEvent]:
        self.message.content.append(block)
        yield BlockStart(index=len(self.message.content) - 1, content_block=block)

    def _close(self) -> Iterator[MessageEvent]:
        if self._open:
            yield BlockStop(index=len(self.message.content) - 1)
        self._open = False

    def _end(self, *, called: bool) -> Iterator[MessageEvent]:
        """Close the last block and say why the message ends."""
        yield from self._close()
        message = self.message
        message.stop_reason, message.stop_sequence = self._stop(called=called)
        message.usage = _usage(self.generation)
        yield MessageDelta(
            delta=StopDelta(stop_reason=message.stop_reason, stop_sequence=message.stop_sequence),
            usage=message.usage,
        )
        yield MessageStop()

    def _stop(self, *, called: bool) -> tuple[StopReason, str | None]:
        """Why the message ends, and the string that ended it, if one did."""
        [reply] = self.generation.replies
        if reply.finish == "length":
            whole = len(reply.tokens) >= self.request.max_tokens
            return "max_tokens" if whole else "model_context_window_exceeded", None
        if called:
            return "tool_use", None
        stop = reply.stop_string(self.request.stop_sequences or ())
        return "end_turn" if stop is None else "stop_sequence", stop


def _usage(generation: Generation) -> MessageUsage:
    usage = generation.usage()
    cached = usage.prompt_tokens_details.cached_tokens
    return MessageUsage(
        input_tokens=usage.prompt_tokens - cached,
        cache_read_input_tokens=cached,
        output_tokens=usage.completion_tokens,
    )
