"""uvicorn, with a limit of time for the head of a request, and a drain before the server stops."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from signal import SIGTERM
from types import FrameType

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from crawltalk.core.errors import UserError

MAX_CONNECTIONS = 10_000
"""Open at once, if the system lets this process have so many; further ones get a 503."""
_OTHER_FILES = 200
"""File descriptors that are reserved for everything but connections."""
_HEAD_SECONDS = 15
"""Seconds in which the whole head of a request must arrive, on a new connection or after another request. More than
the 5 for which common clients (httpx) keep a connection, so that they never use one that is being closed.
"""
_LAST_SECONDS = 5
"""Seconds in which responses reach their clients after the engines have stopped."""
_UNREAD_MILLISECONDS = 60_000
"""Milliseconds after which the connection of a client that reads nothing is closed."""


class HeadTimeoutProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection if the head of a request does not arrive in time. This stops the
    "slow loris" attack.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_timer.cancel()

    def on_response_complete(self) -> None:
        self._head_timer.cancel()
        self._head_timer = self._start_head_timer()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.cancel()
        super().connection_lost(exc)

    def _start_head_timer(self) -> asyncio.TimerHandle:
        return self.loop.call_later(_HEAD_SECONDS, self.transport.close)


class Server(uvicorn.Server):
    """A server that drains at the first signal: /health says so, new requests are refused, running ones are
    finished in at most `grace` seconds. The second signal ends it at once.
    """

    def __init__(self, app: Starlette, grace: float) -> None:
        config = uvicorn.Config(
            app,
            http=HeadTimeoutProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            limit_concurrency=_max_connections(),
            timeout_keep_alive=_HEAD_SECONDS,
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
        super().__init__(config)
        self.state, self.grace = app.state.server, grace
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.state.draining:
            self.should_exit = self.force_exit = True
        self.state.draining = True

    async def on_tick(self, counter: int) -> bool:
        """uvicorn calls this ten times a second."""
        if self.state.draining and self._drain is None:
            self._drain = asyncio.create_task(self.state.stop(self.grace))
        self.should_exit |= self._drain is not None and self._drain.done()
        return await super().on_tick(counter)


def _max_connections() -> int:
    """Raise this process's limit of open files as far as allowed, and return the connections that it leaves:
    many slow clients must not keep others out.
    """
    try:
        import resource  # not on Windows
    except ImportError:
        return MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    files = MAX_CONNECTIONS + _OTHER_FILES
    soft = max(soft, files if hard == resource.RLIM_INFINITY else min(files, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(MAX_CONNECTIONS, soft - _OTHER_FILES))


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; `port` 0: any free one. Raises UserError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}, port {port} ({error.strerror}); choose another one with --port"
        ) from None
    with listener:
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS)
        yield listener


def run(app: Starlette, listener: socket.socket, grace: float) -> None:
    """Serve until a signal comes, and then for at most `grace` seconds more."""
    Server(app, grace).run(sockets=[listener])


@contextlib.contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """Serve in a thread of this process, at a free port of this machine, and give the origin. At the end running
    requests are not waited for.
    """
    with listen("127.0.0.1", 0) as listener:
        server = Server(app, 0.0)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.handle_exit(SIGTERM, None)
            thread.join(30)
