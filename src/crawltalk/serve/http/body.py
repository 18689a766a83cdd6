"""Reading a request's body as a Struct, which fields of it were ignored, and watching whether the client is still
connected.
"""

import asyncio
import codecs
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from crawltalk.serve.api.errors import ApiError, ClientGone, bad_request, invalid_body
from crawltalk.serve.api.protocol import REFUSED
from crawltalk.serve.settings import Settings

T = TypeVar("T")


async def read_body(request: Request, kind: type[T], settings: Settings) -> T:
    """The JSON body as a `kind`; the fields that this does not have go into the log entry's "ignored". Numbers may
    come as text and whole numbers as 12.0, as other servers of this API take them. Raises ApiError, which names
    the wrong field, ClientGone, or RecursionError.
    """
    body = await read_bytes(request, settings)
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        decoded = msgspec.json.decode(body, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid_body(error) from None
    ignored = dict(unknown_fields(msgspec.json.decode(body), decoded))
    for name, instead in REFUSED.items():
        if ignored.get(name):
            raise bad_request(f"{name} is not read here; send {instead}", name)
    if ignored:
        request.state.log_entry["ignored"] = list(ignored)
    return decoded


async def read_bytes(request: Request, settings: Settings) -> bytearray:
    """The body as it is. Raises ApiError if it is compressed, too large or too slow, or ClientGone."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise ApiError(415, f"a body in {encoding[:50]!r} is not read here: send it uncompressed")
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
    return body


def unknown_fields(given: Any, decoded: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The paths and values of the fields of a JSON value that the Struct made of it does not have. Items of lists
    have no numbers in the path.
    """
    if isinstance(decoded, msgspec.Struct) and isinstance(given, dict):
        known, tag = {*decoded.__struct_fields__}, decoded.__struct_config__.tag_field
        for name, value in given.items():
            if name in known:
                yield from unknown_fields(value, getattr(decoded, name), f"{path}{name}.")
            elif name != tag:
                yield path + name, value
    elif isinstance(decoded, list) and isinstance(given, list):
        for item, decoded_item in zip(given, decoded, strict=True):
            yield from unknown_fields(item, decoded_item, path)


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
