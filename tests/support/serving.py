"""A server in a thread, over a small random model, for tests."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence

from starlette.routing import BaseRoute

from crawltalk.engine import Engine
from crawltalk.engine.engine import make_backend
from crawltalk.engine.service import Service
from crawltalk.model.shape import Shape
from crawltalk.serve import Settings, make_app
from crawltalk.serve.http.server import Server, listen
from crawltalk.serve.state import Tracer
from crawltalk.tokenizer import Tokenizer
from support.models import random_model

TOKENIZER = Tokenizer.trained([(116, 104), (256, 101)])
SHAPE = Shape(
    vocab_size=TOKENIZER.vocab_size,
    layers=2,
    width=32,
    heads=2,
    kv_heads=1,
    head_dim=16,
    mlp=48,
    context=2048,
)
MODEL = random_model(SHAPE)
NEVER = {str(token): -100.0 for token in TOKENIZER.special_tokens.values()}
"""A bias against every control token: the reply goes on to its limit."""
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


class Running:
    """A server and what is behind it."""

    def __init__(self, url: str, service: Service, server: Server) -> None:
        self.url, self.service, self.server = url, service, server

    def stats(self) -> dict[str, float]:
        return self.service.stats()

    def until(self, figure: str, value: float, seconds: float = 10.0) -> None:
        """Wait until a figure of the engine has a value."""
        deadline = time.monotonic() + seconds
        while self.stats()[figure] != value:
            assert time.monotonic() < deadline, f"{figure} is {self.stats()[figure]}, not {value}"
            time.sleep(0.002)


@contextlib.contextmanager
def serving(
    settings: Settings | None = None,
    *,
    queue: int = 256,
    grace: float = 0.0,
    cache_bytes: int | None = None,
    routes: Sequence[BaseRoute] = (),
    tracers: dict[str, Tracer] | None = None,
    engine: Engine | None = None,
) -> Iterator[Running]:
    engine = engine or Engine(MODEL, TOKENIZER, make_backend(MODEL, cache_bytes=cache_bytes))
    service = Service(engine, queue=queue)
    settings = settings or Settings(hosts=("127.0.0.1",))
    app = make_app({"tiny": service, "tiny/sft": service}, settings, routes, tracers)
    with listen("127.0.0.1", 0) as listener:
        server = Server(app, grace)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            while not server.started:
                time.sleep(0.01)
            yield Running(url, service, server)
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(30)
            assert not thread.is_alive()
