"""POST /v1/chat/completions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.types import ASGIApp

from crawltalk.chat.messages import Message, ToolCall
from crawltalk.engine.sequence import Token
from crawltalk.serve.api.errors import bad_request
from crawltalk.serve.api.generation import Generation, Reply, default, respond, sampling
from crawltalk.serve.api.protocol import (
    AssistantMessage,
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatLogprobs,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    Content,
    ContentLogprob,
    Delta,
    Finish,
    JsonFormat,
    RefusalPart,
    ReplyMessage,
    SchemaFormat,
    TextPart,
    TokenLogprob,
    ToolMessage,
    UserMessage,
)
from crawltalk.serve.api.tools import Tools, as_openai, calls_of
from crawltalk.tokenizer import Tokenizer

if TYPE_CHECKING:
    from crawltalk.serve.app import Serving


async def chat_completions(serving: "Serving", request: Request, asked: ChatRequest) -> ASGIApp:
    """The assistant's reply to a conversation; its oldest messages are left out if it is too long, and
    counted.
    """
    tools = Tools.of(asked)
    schema = _schema(asked, tools)
    engine = serving.service(asked.model).engine
    messages = conversation(asked.messages)
    ids, dropped = await asyncio.to_thread(engine.prompt, messages, tools.offered)
    generation = Generation(serving, request, asked, [ids])
    most = default(asked.max_completion_tokens, asked.max_tokens)
    room = max(1, engine.context - len(ids))
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    await generation.submit(
        sampling(asked, max_tokens=min(default(most, room), room), logprobs=logprobs, schema=schema)
    )
    return await respond(_Chat(generation, tools, engine.tokenizer, dropped))


def _schema(asked: ChatRequest, tools: Tools) -> str | None:
    """What the reply must obey. Raises ApiError if the request contradicts itself."""
    if asked.top_logprobs and not asked.logprobs:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    form = asked.response_format
    if tools.must_call:
        return tools.schema()
    if isinstance(form, JsonFormat):
        return '{"type": "object"}'
    return msgspec.json.encode(form.json_schema.schema).decode() if isinstance(form, SchemaFormat) else None


def conversation(messages: Sequence[ChatMessage]) -> list[Message]:
    """Messages as the chat package knows them. Raises ApiError for parts that are no text."""
    return [_message(message, index) for index, message in enumerate(messages)]


def _message(message: ChatMessage, index: int) -> Message:
    text = _text(message.content or "", index)
    match message:
        case UserMessage():
            return Message("user", text)
        case AssistantMessage():
            return Message("assistant", text, tool_calls=calls_of(message.tool_calls or []))
        case ToolMessage():
            return Message("tool", text, tool_call_id=message.tool_call_id)
    return Message("system", text)


def _text(content: Content, index: int) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for number, part in enumerate(content):
        if not isinstance(part, TextPart | RefusalPart):
            kind = part.__struct_config__.tag
            raise bad_request(
                f"this model reads text only, no {kind}", f"messages[{index}].content[{number}]"
            )
        texts.append(part.text if isinstance(part, TextPart) else part.refusal)
    return "".join(texts)


class _Chat:
    """How a generation becomes a chat completion."""

    def __init__(self, generation: Generation, tools: Tools, tokenizer: Tokenizer, dropped: int) -> None:
        self.generation, self.tools, self.tokenizer = generation, tools, tokenizer
        self.id, self.dropped = f"chatcmpl-{generation.id}", dropped or UNSET

    async def answer(self) -> ChatAnswer:
        """The whole answer."""
        generation = self.generation
        await generation.wait()
        return ChatAnswer(
            id=self.id,
            created=generation.created,
            model=generation.asked.model,
            choices=[await self._choice(index, reply) for index, reply in enumerate(generation.replies)],
            usage=generation.usage(),
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
            trace=await self.generation.trace(index),
        )

    async def chunks(self) -> AsyncIterator[ChatChunk]:
        """The answer in parts: a role, pieces of text, whole calls, and why it ended."""
        samples = self.generation.samples
        readers = [self.tools.reader() for _ in range(samples)]
        for index in range(samples):
            yield self._chunk(ChunkChoice(index=index, delta=Delta(role="assistant", content="")), first=True)
        async for index, event in self.generation.events():
            logprobs = self._logprobs(event.tokens) if event.tokens else None
            for part in readers[index].read(event.text, final=event.finish_reason is not None):
                delta = _delta(part, readers[index].num_calls - 1)
                yield self._chunk(ChunkChoice(index=index, delta=delta, logprobs=logprobs))
                logprobs = None
            if event.finish_reason is not None or logprobs is not None:
                finish = (
                    _finish(event.finish_reason, readers[index].num_calls > 0)
                    if event.finish_reason is not None
                    else None
                )
                choice = ChunkChoice(index=index, delta=Delta(), logprobs=logprobs, finish_reason=finish)
                if finish is not None:
                    choice.trace = await self.generation.trace(index)
                yield self._chunk(choice)
        if self.generation.wants_usage:
            yield ChatChunk(
                id=self.id,
                created=self.generation.created,
                model=self.generation.asked.model,
                choices=[],
                usage=self.generation.usage(),
            )

    def _chunk(self, choice: ChunkChoice, *, first: bool = False) -> ChatChunk:
        return ChatChunk(
            id=self.id,
            created=self.generation.created,
            model=self.generation.asked.model,
            choices=[choice],
            dropped_messages=self.dropped if first else UNSET,
        )

    def _logprobs(self, tokens: Sequence[Token]) -> ChatLogprobs | None:
        if not (isinstance(self.generation.asked, ChatRequest) and self.generation.asked.logprobs):
            return None
        return ChatLogprobs([self._logprob(token) for token in tokens])

    def _logprob(self, token: Token) -> ContentLogprob:
        top = [_written(self.tokenizer.word(index), logprob) for index, logprob in token.top]
        said = _written(token.text, token.logprob or 0.0)
        return ContentLogprob(said.token, said.logprob, said.bytes, top)


def _delta(part: str | ToolCall, call_index: int) -> Delta:
    return Delta(content=part) if isinstance(part, str) else Delta(tool_calls=[as_openai(part, call_index)])


def _written(word: bytes, logprob: float) -> TokenLogprob:
    return TokenLogprob(word.decode(errors="replace"), logprob, list(word))


def _finish(finish: str | None, called: bool) -> Finish:
    if finish == "stop":
        return "tool_calls" if called else "stop"
    return "length"
