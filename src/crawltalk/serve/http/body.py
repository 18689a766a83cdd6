"""Reading a request's body as a Struct, and watching whether the client is still connected."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from crawltalk.serve.api.errors import ApiError, ClientGone, invalid_body
from crawltalk.serve.settings import Settings

T = TypeVar("T")


async def read_body(request: Request, kind: type[T], settings: Settings) -> T:
    """The JSON body as a `kind`. Raises ApiError, which names the wrong field, ClientGone, or
    RecursionError.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for part in request.stream():
                body += part
                if len(body) > settings.max_body:
                    raise ApiError(
                        413, f"the body has more than {settings.max_body:,} bytes", code="body_too_large"
                    )
    except TimeoutError:
        raise ApiError(
            408, "the body did not come in time", code="timeout", headers={"connection": "close"}
        ) from None
    except ClientDisconnect:
        raise ClientGone from None
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid_body(error) from None


@contextlib.asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Run the block; if the client hangs up, cancel it and raise ClientGone. The body must have been read."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
    finally:
        watcher.cancel()
    if gone:
        raise ClientGone
