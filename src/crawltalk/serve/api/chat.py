"""POST /v1/chat/completions."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Container, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.types import ASGIApp

from crawltalk.chat import messages as chat
from crawltalk.chat.messages import Message, ToolCall
from crawltalk.core.errors import ContextOverflow
from crawltalk.engine.sequence import Token
from crawltalk.serve.api.errors import bad_request, blaming
from crawltalk.serve.api.generation import Generation, Reply, or_default, sampling
from crawltalk.serve.api.protocol import (
    AssistantMessage,
    AudioPart,
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatLogprobs,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    Content,
    ContentLogprob,
    ContentPart,
    Delta,
    FinishReason,
    FunctionMessage,
    ImagePart,
    JsonFormat,
    RefusalPart,
    ReplyMessage,
    SchemaFormat,
    TextPart,
    TokenLogprob,
    ToolMessage,
    UserMessage,
)
from crawltalk.serve.api.sending import ResponseBuilder, respond
from crawltalk.serve.api.tools import Tools, as_openai, calls_of
from crawltalk.serve.state import ServerState
from crawltalk.tokenizer import Tokenizer


async def chat_completions(server: ServerState, http_request: Request, request: ChatRequest) -> ASGIApp:
    """The assistant's reply to a conversation; its oldest messages are left out if it is too long, and
    counted.
    """
    return await respond(_ChatBuilder(await begin_reply(server, http_request, request)))


@dataclass(frozen=True)
class ChatReply:
    """A reply that is being generated."""

    generation: Generation
    tools: Tools
    dropped: int
    """Messages that were left out, the oldest, since they do not fit."""


async def begin_reply(
    server: ServerState,
    http_request: Request,
    request: ChatRequest,
    *,
    whole: bool = False,
    prefill: str = "",
) -> ChatReply:
    """Begin to generate the reply to a conversation; other APIs' requests become this one, too.

    `whole`: a conversation that does not fit is refused, instead of losing its oldest messages. `prefill`: how the
    reply begins. Raises ApiError.
    """
    tools = Tools.of(request)
    schema = _schema(request, tools)
    engine = server.service(request.model).engine
    most = _max_tokens(request, server.settings.max_tokens)
    messages = conversation(request.messages, engine.renderer.places)
    with blaming("messages"):
        ids, dropped = await asyncio.to_thread(engine.chat_prompt, messages, tools.offered, reply=most)
        if dropped and whole:
            raise ContextOverflow(
                f"the conversation is longer than this model's context of {engine.context} tokens: "
                f"{dropped} of its {len(messages)} messages do not fit"
            )
        embeddings = await asyncio.to_thread(engine.embeddings_of, messages, ids)
    ids += engine.tokenizer.encode(prefill)
    generation = Generation(server, http_request, request, [ids], embeddings)
    room = max(1, engine.context - len(ids))
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    settings = sampling(
        request, max_tokens=min(or_default(most, room), room), logprobs=logprobs, schema=schema
    )
    if tools.must_call:  # it is no call if it is cut, by a string or by the limit
        settings = dataclasses.replace(settings, stop=(), whole=True)
    await generation.submit(settings, schema_from="tools" if tools.must_call else "response_format")
    return ChatReply(generation, tools, dropped)


def _max_tokens(request: ChatRequest, default: int | None) -> int | None:
    """Tokens of the reply at most; None: what the context has room for. Raises ApiError."""
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    most = or_default(request.max_completion_tokens, request.max_tokens)
    if most == 0:
        raise bad_request(f"{name} is 1 at least, or -1 for as many as there is room for", name)
    return or_default(most, default) if most != -1 else None


def _schema(request: ChatRequest, tools: Tools) -> str | None:
    """The JSON schema that the reply must obey, if any. Raises ApiError if the request contradicts itself."""
    if request.top_logprobs and not request.logprobs:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    form = request.response_format
    if tools.must_call:
        return tools.schema()
    schema: dict[str, Any] | None = None
    if isinstance(form, JsonFormat):
        schema = {"type": "object"} if form.schema is None else form.schema
    elif isinstance(form, SchemaFormat):
        if form.json_schema is None and form.schema is None:
            raise bad_request("this form of a reply needs a json_schema", "response_format.json_schema")
        schema = (form.json_schema.schema if form.json_schema is not None else form.schema) or {}
    return None if schema is None else msgspec.json.encode(schema).decode()


def conversation(messages: Sequence[ChatMessage], places: Container[str] = ()) -> list[Message]:
    """OpenAI's messages as those of the chat package. `places`: control tokens of what the model reads beside text
    (`ChatRenderer.places`). Raises ApiError for parts that it does not read.
    """
    return [_message(message, index, places) for index, message in enumerate(messages)]


def _message(message: ChatMessage, index: int, places: Container[str]) -> Message:
    where = f"messages[{index}].content"
    if isinstance(message, UserMessage) and (parts := parts_of(message.content, where, places)):
        return Message("user", parts)
    text = text_of(message.content or "", where)
    match message:
        case UserMessage():
            return Message("user", text)
        case AssistantMessage():
            return Message("assistant", text, tool_calls=calls_of(message))
        case ToolMessage():
            return Message("tool", text, tool_call_id=message.tool_call_id)
        case FunctionMessage():
            return Message("tool", text)
    return Message("system", text)


def parts_of(content: Content, where: str, places: Container[str]) -> list[chat.ContentPart]:
    """The parts of what a user says, if some are no text. Raises ApiError for one that the model does not read."""
    if isinstance(content, str):
        return []
    parts = [_part(part, f"{where}[{number}]", places) for number, part in enumerate(content)]
    return parts if any(not isinstance(part, chat.TextPart) for part in parts) else []


def text_of(content: Content, where: str) -> str:
    """The text of a message. `where`: the field, for errors. Raises ApiError for a part that is no text."""
    if isinstance(content, str):
        return content
    return "".join(_part_text(part, f"{where}[{number}]") for number, part in enumerate(content))


def _part(part: str | ContentPart, where: str, places: Container[str]) -> chat.ContentPart:
    """A part of what a user says, if the model reads it. Raises ApiError."""
    match part:
        case ImagePart(image_url=given) if chat.PLACES[chat.ImagePart] in places and given:
            return chat.ImagePart(chat.ImageUrl(given if isinstance(given, str) else given.url))
        case AudioPart(input_audio=given) if chat.PLACES[chat.AudioPart] in places and given:
            return chat.AudioPart(chat.InputAudio(given.data, given.format))
    return chat.TextPart(_part_text(part, where))


def _part_text(part: str | ContentPart, where: str) -> str:
    match part:
        case str():
            return part
        case TextPart():
            return part.text
        case RefusalPart():
            return part.refusal
    raise bad_request(f"this model reads text only, no {part.__struct_config__.tag}", where)


class _ChatBuilder(ResponseBuilder):
    """Writes a generation as a chat completion."""

    def __init__(self, reply: ChatReply) -> None:
        self.generation, self.tools = reply.generation, reply.tools
        self.tokenizer = self.generation.service.engine.tokenizer
        self.id, self.dropped = f"chatcmpl-{self.generation.id}", reply.dropped or UNSET

    async def response(self) -> ChatCompletion:
        """The whole response."""
        generation = self.generation
        await generation.wait()
        return ChatCompletion(
            id=self.id,
            created=generation.created,
            model=generation.request.model,
            choices=[await self._choice(index, reply) for index, reply in enumerate(generation.replies)],
            usage=generation.usage(),
            prompt_token_ids=generation.prompt_token_ids(0),
            dropped_messages=self.dropped,
        )

    async def _choice(self, index: int, reply: Reply) -> ChatChoice:
        parts = list(self.tools.reader().read(reply.text, final=True))
        calls = [as_openai(part) for part in parts if isinstance(part, ToolCall)]
        text = "".join(part for part in parts if isinstance(part, str))
        return ChatChoice(
            index=index,
            message=ReplyMessage(content=None if calls and not text else text, tool_calls=calls or UNSET),
            logprobs=self._logprobs(reply.tokens),
            finish_reason=_finish(reply.finish, bool(calls)),
            token_ids=self.generation.token_ids(reply.tokens),
            trace=await self.generation.trace(index),
        )

    async def chunks(self) -> AsyncIterator[ChatCompletionChunk]:
        """The response in parts: a role, pieces of text, whole calls, and why it ended."""
        samples, asks_usage = self.generation.samples, self.generation.include_usage
        readers = [self.tools.reader() for _ in range(samples)]
        for index in range(samples):
            yield self._chunk(ChunkChoice(index=index, delta=Delta(role="assistant", content="")), first=True)
        async for index, event in self.generation.events():
            logprobs = self._logprobs(event.tokens) if event.tokens else None
            ids = self.generation.token_ids(event.tokens) if event.tokens else UNSET
            for part in readers[index].read(event.text, final=event.finish_reason is not None):
                delta = _delta(part, readers[index].num_calls - 1)
                yield self._chunk(ChunkChoice(index=index, delta=delta, logprobs=logprobs, token_ids=ids))
                logprobs, ids = None, UNSET
            if event.finish_reason is not None or logprobs is not None or ids is not UNSET:
                finish = (
                    _finish(event.finish_reason, readers[index].num_calls > 0)
                    if event.finish_reason is not None
                    else None
                )
                choice = ChunkChoice(
                    index=index, delta=Delta(), logprobs=logprobs, finish_reason=finish, token_ids=ids
                )
                if finish is not None:
                    choice.trace = await self.generation.trace(index)
                yield self._chunk(choice)
        if asks_usage:
            yield ChatCompletionChunk(
                id=self.id,
                created=self.generation.created,
                model=self.generation.request.model,
                choices=[],
                usage=self.generation.usage(),
            )

    def _chunk(self, choice: ChunkChoice, *, first: bool = False) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self.id,
            created=self.generation.created,
            model=self.generation.request.model,
            choices=[choice],
            usage=None if self.generation.include_usage else UNSET,
            prompt_token_ids=self.generation.prompt_token_ids(0) if first else UNSET,
            dropped_messages=self.dropped if first else UNSET,
        )

    def _logprobs(self, tokens: Sequence[Token]) -> ChatLogprobs | None:
        if not (isinstance(self.generation.request, ChatRequest) and self.generation.request.logprobs):
            return None
        return ChatLogprobs([content_logprob(self.tokenizer, token) for token in tokens])


def content_logprob(tokenizer: Tokenizer, token: Token) -> ContentLogprob:
    """A generated token, its log-probability and the likeliest ones at its position."""
    top = [_token_logprob(tokenizer.word(index), logprob) for index, logprob in token.top]
    chosen = _token_logprob(token.text, token.logprob or 0.0)
    return ContentLogprob(chosen.token, chosen.logprob, chosen.bytes, top)


def _delta(part: str | ToolCall, call_index: int) -> Delta:
    return Delta(content=part) if isinstance(part, str) else Delta(tool_calls=[as_openai(part, call_index)])


def _token_logprob(word: bytes, logprob: float) -> TokenLogprob:
    return TokenLogprob(word.decode(errors="replace"), logprob, list(word))


def _finish(finish: str | None, called: bool) -> FinishReason:
    if finish == "stop":
        return "tool_calls" if called else "stop"
    return "length"
