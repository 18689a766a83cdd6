"""Responses as JSON, and as streams of server-sent events."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from crawltalk.serve.api.errors import ClientGone, as_api_error, internal_error
from crawltalk.serve.api.generation import Generation
from crawltalk.serve.http.body import while_connected

_LAST_EVENT_SECONDS = 1.0
"""Seconds in which a client must receive the last event, which reports an error."""


class ResponseBuilder(Protocol):
    """Writes a generation in the form of one API."""

    generation: Generation

    async def response(self) -> msgspec.Struct:
        """The whole response."""
        ...

    def chunks(self) -> AsyncIterator[msgspec.Struct]:
        """The response in parts, as the replies grow."""
        ...


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
    """Server-sent events, as an ASGI application: one event for each chunk and for an error, then `[DONE]`."""

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
                    await _send_event(send, msgspec.json.encode(chunk))
                await _send_event(send, b"[DONE]")
        except Exception as error:  # the status is sent: all that is left is an event
            api_error = as_api_error(error)
            if api_error is None:
                generation.log_entry["traceback"] = traceback.format_exc()
                api_error = internal_error(generation.id)
            try:
                async with asyncio.timeout(_LAST_EVENT_SECONDS):
                    await _send_event(send, api_error.body())
            except TimeoutError:
                raise ClientGone from None


async def _send_event(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})
