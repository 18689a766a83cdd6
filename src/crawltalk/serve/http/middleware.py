"""What every request passes: `Log` gives it an id, headers and a line in the log; `Gate` asks who is there."""

import hashlib
import hmac
import logging
import math
import re
import time
import traceback
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crawltalk.serve.api.errors import ApiError, ClientGone, internal_error, shutting_down

if TYPE_CHECKING:
    from crawltalk.serve.app import Serving

LOGGER = logging.getLogger("crawltalk.serve")
"""One JSON line for each request."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_PORT = re.compile(r":\d*$")
_HUNG_UP = 499
"""The status in the log of a request whose client hung up (nginx's number)."""


class Log:
    """Outermost: one line and one count for each request, whatever becomes of it."""

    def __init__(self, app: ASGIApp, serving: "Serving") -> None:
        self.app, self.serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": uuid.uuid4().hex,
            "method": scope["method"],
            "route": "unknown",
            "status": None,
        }
        scope.setdefault("state", {})["line"] = line
        began = time.perf_counter()

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                line["status"] = message["status"]
                MutableHeaders(scope=message).update(_SECURITY | {"x-request-id": line["id"]})
            await send(message)

        try:
            await self.app(scope, receive, send_noted)
        except ClientGone:
            line["status"] = _HUNG_UP
        except (
            Exception
        ):  # the last resort: the client gets the id of the line in the log that has the traceback
            line["traceback"] = traceback.format_exc()
            if line["status"] is None:
                await internal_error(line["id"]).response()(scope, receive, send_noted)
        finally:
            if (route := scope.get("route")) is not None:
                line["route"] = route.path
            line["milliseconds"] = round(1000 * (time.perf_counter() - began), 1)
            self.serving.metrics.requests.labels(line["route"], line["status"]).inc()
            LOGGER.info(msgspec.json.encode(line).decode())


class Gate:
    """Who may pass: the right name of the server, a page of ours if any, a key, not too often, not while it
    shuts down.
    """

    def __init__(self, app: ASGIApp, serving: "Serving") -> None:
        self.app, self.serving = app, serving
        settings = serving.settings
        self.keys = {hashlib.sha256(key.encode()).digest() for key in settings.keys}
        self.limit = Limit(settings.rate) if settings.rate is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host, hosts = headers.get("host", ""), self.serving.settings.hosts
        if hosts is not None and _PORT.sub("", host).strip("[]").lower() not in hosts:
            raise ApiError(403, f"this server is {' or '.join(hosts)}, not {host[:200]!r}", code="wrong_host")
        if (origin := headers.get("origin")) is not None and origin.partition("://")[2] != host:
            raise ApiError(403, "pages of other sites may not ask this server", code="wrong_origin")
        if path in ("/", "/health", "/openapi.json") or path.startswith("/static/"):
            return
        asker = (scope.get("client") or ("",))[0]
        if self.keys:
            asker = self._who(headers.get("authorization", ""))
        scope["state"]["client"] = scope["state"]["line"]["client"] = asker
        if self.serving.draining:
            raise shutting_down()
        if self.limit is not None and scope["method"] == "POST" and (seconds := self.limit.wait(asker)):
            wait = {"retry-after": str(math.ceil(seconds))}
            raise ApiError(
                429,
                f"more than {self.serving.settings.rate} requests a minute",
                code="rate_limit_exceeded",
                headers=wait,
            )

    def _who(self, authorization: str) -> str:
        """The beginning of the key's hash. All keys are compared, each in a time that does not depend on the
        key.
        """
        scheme, _, key = authorization.partition(" ")
        given = hashlib.sha256(key.strip().encode()).digest()
        known = [hmac.compare_digest(given, digest) for digest in self.keys]
        if scheme.lower() != "bearer" or not any(known):
            raise ApiError(
                401,
                "a valid key must come with the request, as Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return given.hex()[:8]


class Limit:
    """So many requests a minute for each client, saved up for at most a minute (a token bucket)."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, client: str) -> float:
        """Take one request; or how many seconds it is too early."""
        now = time.monotonic()
        left, since = self._left.get(client, (self.rate, now))
        left = min(self.rate, left + (now - since) * self.rate / 60)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        return 0.0 if left >= 1 else (1 - left) * 60 / self.rate
