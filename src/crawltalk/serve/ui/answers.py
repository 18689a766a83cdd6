"""Answers with tools of this server, for the page: the loop of call, result and answer runs here.

OpenAI's API has no such thing: there calls go to the client. So this is an endpoint of the page's own. It sends one
event for each piece: `text`, `call`, `result`. Or the answer comes from the run's pages: `citations` (none where
nothing was found), then `text`. With documents that a person attached: `reading`, how much of them the model reads and
the message in which it does; then the pieces; then `citations`, the sentence that the answer rests on, and whether it
is `supported` by it.
"""

import asyncio
import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import StreamingResponse

from crawltalk.chat.messages import Message, ToolCall, text_of
from crawltalk.chat.render import REPLY_FRACTION
from crawltalk.chat.tool_calls import CallReader, call_schema
from crawltalk.chat.tool_calls import Tool as Definition
from crawltalk.core.errors import ContextOverflow
from crawltalk.engine import Sampling
from crawltalk.retrieval.passages import Passages
from crawltalk.run.folder import RunFolder
from crawltalk.serve.api.errors import ErrorBody, as_api_error, internal_error, shutting_down
from crawltalk.serve.http.body import read_body
from crawltalk.serve.state import ServerState
from crawltalk.tasks.scoring import spoken
from crawltalk.tools.answers import Answerer
from crawltalk.tools.attached import AttachedDocument, Attachments, Reading
from crawltalk.tools.flow import Flow
from crawltalk.tools.grounded import NOTHING_FOUND, GroundedAnswer, GroundedAssistant, reading_messages
from crawltalk.tools.loop import Episode, Event, Part, aconverse
from crawltalk.tools.plain import for_renderer
from crawltalk.tools.tool import ToolResult

_LEAST_READ = 16
"""Tokens of a document."""


class AnswerRequest(Struct):
    """A conversation, and how the answer is found."""

    model: Annotated[str, Meta(max_length=1000)]
    messages: Annotated[list[Message], Meta(min_length=1, max_length=1000)]
    tools: bool | Annotated[list[str], Meta(max_length=100)] = False
    """Whether the assistant may call the server's tools, or which of them."""
    search_first: bool = False
    """Whether the last message is answered from the run's documents alone; then tools are not needed."""
    documents: Annotated[list[AttachedDocument], Meta(max_length=20)] = []
    """Attached documents, which the model reads in front of the last message. Then no others are searched."""
    temperature: float = 0.3
    top_k: Annotated[int, Meta(ge=0)] = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: Annotated[int, Meta(ge=1)] = 256
    seed: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class Answers:
    """What the page can ask for beyond the API."""

    def __init__(self, tools: Mapping[str, Answerer], run: RunFolder | None = None) -> None:
        """Tools of the server, by the names of the models; and the run whose documents are searched."""
        self.tools, self.run = tools, run

    @cached_property
    def grounded(self) -> GroundedAssistant:
        """Answers from the run's pages. The first use makes their index."""
        assert self.run is not None
        return GroundedAssistant(Passages.of_run(self.run))

    def about(self) -> dict[str, Any]:
        """What the page offers."""
        named = {tool.name: tool.description for one in self.tools.values() for tool in one.tools}
        return {
            "tools": [{"name": name, "about": about} for name, about in named.items()],
            "search": self.run is not None,
        }

    async def endpoint(self, http_request: Request) -> StreamingResponse:
        """POST /api/answer."""
        server: ServerState = http_request.app.state.server
        request = await read_body(http_request, AnswerRequest, server.settings)
        server.service(request.model)
        if server.draining:
            raise shutting_down()
        events = _Events(self, server, request, http_request.state.client, http_request.state.log_entry)
        return StreamingResponse(
            events.encoded(),
            media_type="text/event-stream; charset=utf-8",
            headers={"cache-control": "no-store"},
        )


class _Events:
    """The events of one answer."""

    def __init__(
        self,
        answers: Answers,
        server: ServerState,
        request: AnswerRequest,
        client: str,
        log_entry: dict[str, Any],
    ) -> None:
        self.answers, self.server, self.request, self.client = answers, server, request, client
        self.log_entry = log_entry
        self.service = server.service(request.model)
        self.sampling = Sampling(
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
            min_p=request.min_p,
            max_tokens=request.max_tokens,
            seed=secrets.randbits(63) if request.seed is None else request.seed,
        )

    async def encoded(self) -> AsyncIterator[bytes]:
        """Server-sent events; an error is one, too."""
        try:
            async with asyncio.timeout(self.server.settings.timeout):
                async for event in self._events():
                    yield b"data: " + msgspec.json.encode(event) + b"\n\n"
        except Exception as error:  # the status is sent: all that is left is an event
            told = as_api_error(error) or internal_error(self.log_entry["id"])
            yield b"data: " + msgspec.json.encode(ErrorBody(told.detail)) + b"\n\n"
            if as_api_error(error) is None:
                raise
        yield b"data: [DONE]\n\n"

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        request, model = self.request, self.request.model
        offered = self.answers.tools.get(model) if request.tools else None
        if request.documents:
            async for event in self._read(offered):
                yield event
            return
        if request.search_first and self.answers.run is not None:
            answer = await self._grounded(text_of(request.messages[-1]))
            yield {"citations": answer.citations}
            yield {"text": answer.text}
            return
        episode = self._begin(offered, request.messages)
        async for event in aconverse(self._complete, episode):
            yield _told(event, episode)

    def _begin(
        self, offered: Answerer | None, messages: Sequence[Message], read: Sequence[str] = ()
    ) -> Episode:
        """An answer to these messages, in which documents with these names stand. What the person said is in the
        request alone.
        """
        flow = Flow(self.request.messages, offered.tools if offered else ())
        for name in read:
            flow.read(name)
        if offered is None:
            return Episode(messages, [], flow=flow)
        permitted = self.request.tools if isinstance(self.request.tools, list) else None
        return offered.begin(messages, flow=flow, only=permitted)

    async def _read(self, offered: Answerer | None) -> AsyncIterator[dict[str, Any]]:
        """An answer after reading the attached documents, as far as there is room for them."""
        *before, last = self.request.messages
        question = text_of(last)
        with tempfile.TemporaryDirectory(prefix="crawltalk-") as folder:
            attached = await asyncio.to_thread(Attachments, self.request.documents, Path(folder))
            tools = self._begin(offered, [last]).offered
            reading = await asyncio.to_thread(self._reading, attached, question, tools)
            read = {
                "read": reading.read,
                "characters": reading.characters,
                "message": reading.message.content,
            }
            yield {"reading": read}
            messages = [*before, reading.message]
            episode = self._begin(offered, messages, [document.name for document in attached.documents])
            async for event in aconverse(self._complete, episode):
                yield _told(event, episode)
            reply = spoken(text_of(episode.messages[-1]))
            citations, supported = await asyncio.to_thread(attached.cite, question, reply, reading)
        yield {"citations": citations, "supported": supported}

    def _reading(self, attached: Attachments, question: str, tools: Sequence[Definition]) -> Reading:
        """What the model reads of the documents, beside the question. Raises ContextOverflow if there is no room."""
        engine, most = self.service.engine, self.sampling.max_tokens
        system = [message for message in self.request.messages[:1] if message.role == "system"]
        bare = [*system, attached.message(question, attached.nothing)]
        messages, definitions = for_renderer(engine.renderer, bare, tools)
        ids, _ = engine.chat_prompt(messages, definitions, reply=most)
        room = engine.context - len(ids) - min(most, engine.context // REPLY_FRACTION)
        if room < _LEAST_READ:
            raise ContextOverflow(
                f"this model's context of {engine.context} tokens has no room for a document: "
                "make the question or the system prompt shorter"
            )
        return attached.read(question, room, lambda text: len(engine.tokenizer.encode(text)))

    async def _grounded(self, question: str) -> GroundedAnswer:
        """An answer from the run's pages, which the model reads if its context has room for them."""
        assistant = await asyncio.to_thread(lambda: self.answers.grounded)
        passage = await asyncio.to_thread(assistant.find, question)
        if passage is None:
            return GroundedAnswer(text=NOTHING_FOUND, citations=[])
        episode = Episode(reading_messages(passage.title, passage.text, question), [])
        try:
            reply = "".join([part async for part in self._complete(episode) if isinstance(part, str)])
        except ContextOverflow:
            reply = ""
        return await asyncio.to_thread(assistant.conclude, question, passage, spoken(reply))

    async def _complete(self, episode: Episode) -> AsyncIterator[Part]:
        """The next reply, by the engine."""
        tools, engine, sampling = episode.offered, self.service.engine, self.sampling
        if episode.must_call:
            sampling = replace(sampling, schema=json.dumps(call_schema(tools)), whole=True)
        messages, definitions = for_renderer(engine.renderer, episode.messages, tools)
        most = sampling.max_tokens
        ids, _ = await asyncio.to_thread(engine.chat_prompt, messages, definitions, reply=most)
        room = max(1, engine.context - len(ids))
        sampling = replace(sampling, max_tokens=min(most, room))
        embeddings = await asyncio.to_thread(engine.embeddings_of, messages, ids)
        stream = await self.service.submit(ids, sampling, client=self.client, embeddings=embeddings)
        reader = CallReader(tools, must_call=episode.must_call)
        try:
            async for output in stream:
                for part in reader.read(output.text, final=output.finish_reason is not None):
                    yield part
        finally:
            await stream.aclose()


def _told(event: Event, episode: Episode) -> dict[str, Any]:
    """An event as JSON. What a tool says is text, which the page never takes for markup."""
    match event:
        case str():
            return {"text": event}
        case ToolCall():
            return {"call": event}
        case ToolResult():
            message = episode.messages[-1]
            result = {"text": message.content, "source": event.source, "error": event.error}
            result |= {"outside": event.outside}
            if event.withheld is not None:
                result |= {"withheld": event.withheld}
            return {"result": result | {"call": message.tool_call_id}}
