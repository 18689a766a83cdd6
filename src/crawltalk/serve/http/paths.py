"""The paths of requests, in one form: clients are given base URLs with and without `/v1` and put slashes where they
like.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES = re.compile(r"/{2,}")
_VERSIONS = re.compile(r"^(?:/v1)+(?=/|$)")
_UNVERSIONED = re.compile(
    r"^/(?:(?:chat/)?completions|embeddings|messages(?:/count_tokens)?|(?:models|responses)(?:/.*)?)$"
)


class Paths:
    """Middleware that gives a request the path by which its route is known."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = canonical(scope["path"])
        await self.app(scope, receive, send)


def canonical(path: str) -> str:
    """`/models/`, `//v1/models` and `/v1/v1/models` are `/v1/models`."""
    path = _SLASHES.sub("/", path).rstrip("/") or "/"
    path = _VERSIONS.sub("/v1", path)
    return f"/v1{path}" if _UNVERSIONED.match(path) else path
