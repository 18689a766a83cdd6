"""The server: uvicorn, with a limit of time for a request's head, and a drain before it stops."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import FrameType

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from crawltalk.core.errors import UserError

CONNECTIONS = 10_000
"""At once, if the system lets this process have so many; further ones get a 503."""
_OTHER_FILES = 200
"""That a process may have open besides."""
_HEAD_SECONDS = 15
"""For the whole head of a request to come, on a new connection or after another request; more than the 5 for
which common clients (httpx) keep a connection, lest they use one that is being closed.
"""
_LAST_SECONDS = 5
"""For answers to reach their clients after the engines have stopped."""
_UNREAD_MILLISECONDS = 60_000
"""A client that takes no byte of what is sent to it is given up."""


class Protocol(H11Protocol):
    """HTTP/1.1 that closes a connection on which no whole head of a request comes in time (the attack "slow
    loris").
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        self._head = self._await_head()

    def data_received(self, data: bytes) -> None:
        """Some bytes of it."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head.cancel()

    def on_response_complete(self) -> None:
        """Another request may come."""
        self._head.cancel()
        self._head = self._await_head()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._head.cancel()
        super().connection_lost(exc)

    def _await_head(self) -> asyncio.TimerHandle:
        return self.loop.call_later(_HEAD_SECONDS, self.transport.close)


class Server(uvicorn.Server):
    """Drains at the first signal: /health says so, nothing new is taken, what runs is finished. The second
    signal ends at once.
    """

    def __init__(self, app: Starlette, grace: float) -> None:
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            limit_concurrency=_connections(),
            timeout_keep_alive=_HEAD_SECONDS,
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
        super().__init__(config)
        self.serving, self.grace = app.state.serving, grace
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal."""
        if self.serving.draining:
            self.should_exit = self.force_exit = True
        self.serving.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self.serving.draining and self._drain is None:
            self._drain = asyncio.create_task(self.serving.stop(self.grace))
        self.should_exit |= self._drain is not None and self._drain.done()
        return await super().on_tick(counter)


def _connections() -> int:
    """How many there may be, after this process has asked for room: slow clients must not keep the others
    out.
    """
    try:
        import resource  # not on Windows
    except ImportError:
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS
    wanted = CONNECTIONS + _OTHER_FILES
    soft = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(CONNECTIONS, soft - _OTHER_FILES))


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens. Raises UserError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}, port {port} ({error.strerror}); choose another one with --port"
        ) from None
    with listening:
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS)
        yield listening


def run(app: Starlette, listening: socket.socket, grace: float) -> None:
    """Serve until a signal comes, and what runs is finished or `grace` seconds are over."""
    Server(app, grace).run(sockets=[listening])
