"""From a request to the engine and back: what chat and completions have in common."""

import asyncio
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from crawltalk.engine import Sampling
from crawltalk.engine.sequence import FinishReason, StepOutput, Token
from crawltalk.engine.service import Stream
from crawltalk.serve.api.errors import ClientGone, as_api_error, bad_request, internal_error, shutting_down
from crawltalk.serve.api.protocol import Generate, PromptDetails, Usage
from crawltalk.serve.http.body import while_connected

if TYPE_CHECKING:
    from crawltalk.serve.app import Serving

T = TypeVar("T")
_BLOCKED = 1.0
"""Seconds that a client whose time is over has to take the error."""


def sampling(
    asked: Generate, *, max_tokens: int, logprobs: int | None, schema: str | None = None
) -> Sampling:
    """A request's settings, with OpenAI's defaults. Raises BadInput."""
    stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    return Sampling(
        temperature=default(asked.temperature, 1.0),
        top_k=max(0, asked.top_k or 0),
        top_p=default(asked.top_p, 1.0),
        min_p=asked.min_p or 0.0,
        repetition_penalty=default(asked.repetition_penalty, 1.0),
        presence_penalty=asked.presence_penalty or 0.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        logit_bias=asked.logit_bias or {},
        max_tokens=max_tokens,
        seed=secrets.randbits(63) if asked.seed is None else asked.seed,
        stop=stop,
        logprobs=logprobs,
        schema=schema,
    )


def default(value: T | None, otherwise: T) -> T:
    """A value, or another where there is none."""
    return otherwise if value is None else value


@dataclass
class Reply:
    """A reply, as far as it has come."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: FinishReason | None = None
    began: float = 0.0
    """When its first tokens came."""
    first: int = 0
    """How many these were."""


class Generation:
    """What one request makes the engine do: a stream for each prompt, with some samples each."""

    def __init__(
        self, serving: "Serving", request: Request, asked: Generate, prompts: Sequence[Sequence[int]]
    ) -> None:
        """Nothing is asked of the engine yet. Raises ApiError."""
        self.serving, self.asked, self.prompts = serving, asked, prompts
        self.service = serving.service(asked.model)
        self.client, self.line = request.state.client, request.state.line
        self.id, self.created, self.samples = self.line["id"], int(time.time()), asked.n or 1
        self.line["model"] = asked.model
        self.streams: list[Stream] = []
        self.replies = [Reply() for _ in range(len(prompts) * self.samples)]
        """By the number of the choice: the samples of the first prompt, of the second one ..."""
        self._trace = serving.traces.get(asked.model)
        if len(prompts) > self.service.queue:
            raise bad_request(
                f"{len(prompts)} prompts are more than the {self.service.queue} that may wait: send fewer",
                "prompt",
            )
        if asked.trace and self._trace is None:
            raise bad_request("this model's training data is not at hand: leave trace out", "trace")

    async def submit(self, sampling: Sampling, *, echo: bool = False) -> None:
        """Ask the engine. Raises ApiError, Full or BadInput, and asks nothing then."""
        if self.serving.draining:  # since the body was read
            raise shutting_down()
        try:
            for prompt in self.prompts:
                stream = await self.service.submit(
                    prompt, sampling, samples=self.samples, client=self.client, prompt_logprobs=echo
                )
                self.streams.append(stream)
        except BaseException:
            await self._cancel()
            raise

    async def _cancel(self) -> None:
        for stream in self.streams:
            await stream.aclose()

    async def events(self) -> AsyncIterator[tuple[int, StepOutput]]:
        """(choice, event), prompt after prompt; `replies` grow by them. Raises ApiError if the server shuts
        down.
        """
        began = time.perf_counter()
        for number, stream in enumerate(self.streams):
            first = number * self.samples
            async for event in stream:
                choice = first + event.index
                self._add(self.replies[choice], event, began)
                yield choice, event
            if any(
                reply.finish in (None, "cancelled") for reply in self.replies[first : first + self.samples]
            ):
                raise shutting_down()

    def _add(self, reply: Reply, event: StepOutput, began: float) -> None:
        metrics, model, now = self.serving.metrics, self.asked.model, time.perf_counter()
        if event.tokens and not reply.tokens:
            reply.began, reply.first = now, len(event.tokens)
            metrics.first_token.labels(model).observe(now - began)
        reply.text += event.text
        reply.tokens += event.tokens
        reply.finish = event.finish_reason
        later = len(reply.tokens) - reply.first
        if event.finish_reason is not None and later:
            metrics.each_token.labels(model).observe((now - reply.began) / later)

    async def wait(self) -> None:
        """Until all replies are whole."""
        async for _ in self.events():
            pass

    async def close(self) -> None:
        """Cancel what is not finished, and say in the log what it was."""
        await self._cancel()
        usage = self.usage()
        self.line |= {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.prompt_tokens_details.cached_tokens,
        }
        if self.serving.settings.log_prompts:
            self.line["prompts"] = list(map(self.service.engine.tokenizer.decode, self.prompts))
            self.line["replies"] = [reply.text for reply in self.replies]

    def usage(self) -> Usage:
        """What it cost so far."""
        read, said = sum(map(len, self.prompts)), sum(len(reply.tokens) for reply in self.replies)
        cached = sum(stream.cached_tokens for stream in self.streams)
        return Usage(read, said, read + said, PromptDetails(cached))

    async def trace(self, choice: int) -> list[dict[str, Any]] | UnsetType:
        """Where a reply occurs in the training data, if that was asked for."""
        if not self.asked.trace or self._trace is None:
            return UNSET
        reply = self.replies[choice]
        return await asyncio.to_thread(self._trace, reply.text, [token.id for token in reply.tokens])

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with the usage."""
        return self.asked.stream_options is not None and self.asked.stream_options.include_usage


class Form(Protocol):
    """How one API writes a generation."""

    generation: Generation

    async def answer(self) -> msgspec.Struct:
        """The whole answer."""
        ...

    def chunks(self) -> AsyncIterator[msgspec.Struct]:
        """The answer in parts."""
        ...


async def respond(form: Form) -> ASGIApp:
    """The answer to a request, whole or as a stream."""
    generation = form.generation
    if generation.asked.stream:
        return EventStream(form)
    try:
        return json_response(await form.answer())
    finally:
        await generation.close()


def json_response(content: Any) -> Response:
    """A success."""
    return Response(msgspec.json.encode(content), media_type="application/json")


class EventStream:
    """Server-sent events, as an ASGI application: a chunk of the answer each, errors too, then `[DONE]`."""

    def __init__(self, form: Form) -> None:
        self.form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them. Whatever happens, the engine is told to stop."""
        generation = self.form.generation
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        try:
            async with while_connected(receive):
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._send_chunks(send)
        finally:
            await generation.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_chunks(self, send: Send) -> None:
        generation = self.form.generation
        try:
            async with asyncio.timeout(generation.serving.settings.timeout):
                async for chunk in self.form.chunks():
                    await _send_event(send, msgspec.json.encode(chunk))
                await _send_event(send, b"[DONE]")
        except Exception as error:  # the status is sent: all that is left is an event
            known = as_api_error(error)
            if known is None:
                generation.line["traceback"] = traceback.format_exc()
                known = internal_error(generation.id)
            try:
                async with asyncio.timeout(_BLOCKED):
                    await _send_event(send, known.body())
            except TimeoutError:
                raise ClientGone from None


async def _send_event(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})
