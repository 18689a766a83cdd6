"""Middleware for every request: `AccessLog` gives it an id, headers and an entry in the log; `AccessControl` checks
host, origin, key and rate, and answers browsers that ask what pages of other origins may do (CORS).
"""

import hashlib
import hmac
import json
import logging
import math
import re
import time
import traceback
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crawltalk.serve.api.errors import ApiError, ClientGone, internal_error, is_anthropic, shutting_down
from crawltalk.serve.state import ServerState

LOGGER = logging.getLogger("crawltalk.serve")
"""Takes one line of JSON for each request."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-dns-prefetch-control": "off",
}
_PORT = re.compile(r":\d*$")
_IGNORED_HEADER = "x-crawltalk-ignored"
_MAX_IGNORED = 1000
"""Characters of that header."""
_PREFLIGHT_HEADERS = {
    "access-control-allow-methods": "GET, HEAD, POST, DELETE, OPTIONS",
    "access-control-max-age": "600",
    "access-control-allow-private-network": "true",
}
_EXPOSED_HEADERS = f"x-request-id, {_IGNORED_HEADER}, retry-after"
_CLIENT_CLOSED_REQUEST = 499
"""The status in the log of a request whose client hung up (nginx's number)."""


class AccessLog:
    """The outermost middleware: one log entry and one count for each request, whatever becomes of it."""

    def __init__(self, app: ASGIApp, server: ServerState) -> None:
        self.app, self.server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Inner layers add to its entry, `scope["state"]["log_entry"]`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": uuid.uuid4().hex,
            "method": scope["method"],
            "route": "unknown",
            "status": None,
        }
        scope.setdefault("state", {})["log_entry"] = entry
        began = time.perf_counter()

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry["status"] = message["status"]
                headers = _SECURITY_HEADERS | {"x-request-id": entry["id"]} | scope["state"].get("cors", {})
                if is_anthropic(scope["path"]):
                    headers |= {"request-id": entry["id"]}
                if ignored := entry.get("ignored"):
                    headers |= {_IGNORED_HEADER: _header_value(ignored)}
                MutableHeaders(scope=message).update(headers)
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except ClientGone:
            entry["status"] = _CLIENT_CLOSED_REQUEST
        except Exception:  # the last resort: the client gets the id of the log entry that has the traceback
            entry["traceback"] = traceback.format_exc()
            if entry["status"] is None:
                await internal_error(entry["id"]).response(scope)(scope, receive, send_and_note)
        finally:
            if (route := scope.get("route")) is not None:
                entry["route"] = route.path
            entry["milliseconds"] = round(1000 * (time.perf_counter() - began), 1)
            self.server.metrics.requests.labels(entry["route"], entry["status"]).inc()
            LOGGER.info(msgspec.json.encode(entry).decode())


def _header_value(names: Sequence[str]) -> str:
    """Names that a client wrote, as a header's value: printable ASCII of a limited length."""
    text = ", ".join(name if name and name == name.strip() else json.dumps(name) for name in names)
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return text if len(text) <= _MAX_IGNORED else text[:_MAX_IGNORED] + "..."


class AccessControl:
    """Lets a request pass if its host is a name of the server, its origin (if it has one) is the server's own page
    or one that the settings allow, it brings a key (if there are keys), its client keeps to the rate, and the
    server is not shutting down.
    """

    def __init__(self, app: ASGIApp, server: ServerState) -> None:
        self.app, self.server = app, server
        settings = server.settings
        self.keys = {hashlib.sha256(key.encode()).digest() for key in settings.keys}
        self.limiter = RateLimiter(settings.rate) if settings.rate is not None else None
        patterns = (
            re.escape(origin.rstrip("/")).replace(r"\*", "[A-Za-z0-9-]*") for origin in settings.origins
        )
        self.origins = re.compile("|".join(patterns), re.IGNORECASE) if settings.origins else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                if (preflight := self._check(scope)) is not None:
                    await preflight(scope, receive, send)
                    return
            except ApiError as error:
                await error.response(scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> Response | None:
        """The answer to a browser's question before a request of a page; None: go on. Raises ApiError."""
        headers, path = Headers(scope=scope), scope["path"]
        host, hosts = headers.get("host", ""), self.server.settings.hosts
        if hosts is not None and _PORT.sub("", host).strip("[]").lower() not in hosts:
            raise ApiError(
                403,
                f"this server is {' or '.join(hosts)}, not {host[:200]!r}; another name: serve --host-name NAME",
                code="wrong_host",
            )
        if (origin := headers.get("origin")) is not None and origin.partition("://")[2] != host:
            scope["state"]["cors"] = self._cors(origin)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                asked = headers.get("access-control-request-headers", "authorization, content-type")
                return Response(None, 204, _PREFLIGHT_HEADERS | {"access-control-allow-headers": asked})
        if path in ("/", "/health", "/openapi.json") or path.startswith("/static/"):
            return None
        client = (scope.get("client") or ("",))[0]
        if self.keys:
            client = self._authenticate(headers)
        scope["state"]["client"] = scope["state"]["log_entry"]["client"] = client
        if self.server.draining:
            raise shutting_down()
        if self.limiter is not None and scope["method"] == "POST" and (seconds := self.limiter.take(client)):
            raise ApiError(
                429,
                f"more than {self.server.settings.rate} requests a minute",
                code="rate_limit_exceeded",
                headers={"retry-after": str(math.ceil(seconds))},
            )
        return None

    def _cors(self, origin: str) -> dict[str, str]:
        """The headers by which a browser lets a page of another origin read the response. Raises ApiError if the
        settings do not allow the origin.
        """
        if "*" in self.server.settings.origins:
            return {"access-control-allow-origin": "*", "access-control-expose-headers": _EXPOSED_HEADERS}
        if self.origins is None or not self.origins.fullmatch(origin):
            raise ApiError(
                403,
                "pages of other sites may not ask this server, unless it is told so: "
                f"crawltalk serve --origin {_header_value([origin[:200]])}",
                code="wrong_origin",
            )
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": _EXPOSED_HEADERS,
            "vary": "Origin",
        }

    def _authenticate(self, headers: Headers) -> str:
        """The client's name: the beginning of the hash of its key.

        All keys are compared, each in a time that does not depend on the key. Raises ApiError.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        for key in (token if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")):
            given = hashlib.sha256(key.strip().encode()).digest()
            matches = [hmac.compare_digest(given, digest) for digest in self.keys]
            if key and any(matches):
                return given.hex()[:8]
        raise ApiError(
            401,
            "a valid key must come with the request, as Authorization: Bearer KEY or x-api-key: KEY",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


class RateLimiter:
    """Allows each client `rate` requests a minute; unused ones are saved up for at most a minute (a token
    bucket).
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._buckets: dict[str, tuple[float, float]] = {}
        """Client -> (requests left, when that was so)."""

    def take(self, client: str) -> float:
        """Take one request and return 0; or take none and return the seconds until there is one."""
        now = time.monotonic()
        left, since = self._buckets.get(client, (self.rate, now))
        left = min(self.rate, left + (now - since) * self.rate / 60)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        return 0.0 if left >= 1 else (1 - left) * 60 / self.rate
