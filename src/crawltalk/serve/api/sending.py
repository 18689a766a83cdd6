"""How responses are sent: as JSON, and as streams of server-sent events."""

import asyncio
import traceback
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from crawltalk.serve.api.errors import ApiError, ClientGone, ErrorBody, as_api_error, internal_error
from crawltalk.serve.api.generation import Generation
from crawltalk.serve.http.body import while_connected

_LAST_EVENT_SECONDS = 1.0
"""Seconds in which a client must receive the last event, which reports an error."""


class ResponseBuilder(ABC):
    """Writes a generation in the form of one API."""

    generation: Generation
    ends_with_done: ClassVar[bool] = True
    """Whether the data `[DONE]` is the last event of a stream."""

    @abstractmethod
    async def response(self) -> msgspec.Struct:
        """The whole response."""

    @abstractmethod
    def chunks(self) -> AsyncIterator[msgspec.Struct]:
        """The response in parts, as the replies grow. The tag of a Struct is the name of its event."""

    def failure(self, error: ApiError) -> msgspec.Struct:
        """The last event of a stream in which an error occurred."""
        return ErrorBody(error.detail)


async def respond(builder: ResponseBuilder) -> ASGIApp:
    """The response to a request, whole or as a stream."""
    generation = builder.generation
    if generation.request.stream:
        return EventStream(builder)
    try:
        return json_response(await builder.response())
    finally:
        await generation.close()


def json_response(content: Any) -> Response:
    """A response with status 200."""
    return Response(msgspec.json.encode(content), media_type="application/json")


class EventStream:
    """Server-sent events, as an ASGI application: one event for each chunk and for an error."""

    def __init__(self, builder: ResponseBuilder) -> None:
        self.builder = builder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. The request in the engine is always cancelled at the end."""
        generation = self.builder.generation
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        try:
            async with while_connected(receive):
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._send_chunks(send)
        finally:
            await generation.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_chunks(self, send: Send) -> None:
        generation = self.builder.generation
        try:
            async with asyncio.timeout(generation.server.settings.timeout):
                async for chunk in self.builder.chunks():
                    await _send_event(send, chunk)
                if self.builder.ends_with_done:
                    await _send(send, b"data: [DONE]\n\n")
        except Exception as error:  # the status is sent: all that is left is an event
            api_error = as_api_error(error)
            if api_error is None:
                generation.log_entry["traceback"] = traceback.format_exc()
                api_error = internal_error(generation.id)
            try:
                async with asyncio.timeout(_LAST_EVENT_SECONDS):
                    await _send_event(send, self.builder.failure(api_error))
            except TimeoutError:
                raise ClientGone from None


async def _send_event(send: Send, event: msgspec.Struct) -> None:
    name = event.__struct_config__.tag
    head = f"event: {name}\n".encode() if name is not None else b""
    await _send(send, head + b"data: " + msgspec.json.encode(event) + b"\n\n")


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
