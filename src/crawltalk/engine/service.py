"""The engine in a thread of its own, for many askers at once on asyncio."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from crawltalk.engine.backends import SLOTS
from crawltalk.engine.engine import Engine
from crawltalk.engine.sampling import Sampling
from crawltalk.engine.sequence import Event, Request, Token

PAUSE = 0.005
"""Seconds between two deliveries of news."""


class Full(Exception):
    """As many requests wait as may."""


class Stream(AsyncIterator[Event]):
    """The events of one request, over all its samples. What came since the last look comes as one event for
    each sample.
    """

    def __init__(self, request: Request) -> None:
        self._request, self.number = request, request.number
        self._pending: dict[int, Event] = {}
        self._failure: BaseException | None = None
        self._arrived = asyncio.Event()
        self._open = self.unfinished = request.samples
        """Samples whose end the asker, the engine has not seen."""

    @property
    def cached_tokens(self) -> int:
        """Of the prompt, found in the cache; known with the first event."""
        return self._request.cached_tokens

    @property
    def prompt(self) -> tuple[Token, ...]:
        """With `echo`, the prompt's tokens and what the model thought of them; known with the first event."""
        return self._request.prompt_tokens

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Event:
        while self._open and not self._pending and self._failure is None:
            self._arrived.clear()
            try:
                await self._arrived.wait()
            except asyncio.CancelledError:
                await self.aclose()
                raise
        if self._failure is not None:
            raise self._failure
        if not self._open:
            raise StopAsyncIteration
        event = self._pending.pop(next(iter(self._pending)))
        self._open -= event.finish is not None
        return event

    async def aclose(self) -> None:
        """Cancel what is not finished; the engine drops it before its next step."""
        self._request.cancelled = True
        self._open = 0
        self._arrived.set()

    def put(self, event: Event) -> None:
        """Hand over news."""
        before = self._pending.get(event.sample)
        if before is not None:
            event = Event(event.sample, before.text + event.text, before.tokens + event.tokens, event.finish)
        self._pending[event.sample] = event
        self._arrived.set()

    def fail(self, failure: BaseException) -> None:
        """Hand over the reason why there will be no more."""
        self._failure = failure
        self._arrived.set()


class Service:
    """Askers submit requests; one thread computes for all of them. `queue` requests may wait beyond those
    that run.
    """

    def __init__(self, engine: Engine, *, queue: int = 256) -> None:
        self.engine, self.queue = engine, queue
        self._streams: dict[int, Stream] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: list[tuple[Stream, Event]] = []
        self._posted = False
        """Whether the askers' thread has been told that there is news, and has not had its pause since."""
        self._work: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self._ending = False
        self.failure: BaseException | None = None
        """What ended the engine before its time."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    async def stop(self, grace: float) -> None:
        """Finish what runs, for at most `grace` seconds, cancel the rest, and end."""
        deadline = time.monotonic() + grace
        while self._streams and self.failure is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for stream in list(self._streams.values()):
            await stream.aclose()
        with self._changed:
            self._ending = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    async def submit(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        samples: int = 1,
        client: str = "",
        echo: bool = False,
    ) -> Stream:
        """Ask. Raises Full, or BadInput for what can never be served. Clients take turns where there is a
        queue.
        """
        make = partial(self.engine.request, prompt, sampling, samples=samples, client=client, echo=echo)
        # a schema takes a while to compile
        request = make() if sampling.schema is None else await asyncio.to_thread(make)
        if len(self._streams) >= SLOTS + self.queue:
            raise Full(f"{len(self._streams)} requests are being served or wait")
        self._loop = asyncio.get_running_loop()
        stream = Stream(request)
        if self._ending:  # since the schema was read
            await stream.aclose()
            return stream
        self._streams[request.number] = stream
        self._check()  # after the stream is known: a failure from now on is told to it
        self._do(lambda: self.engine.scheduler.submit(request))
        return stream

    async def embed(self, texts_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `Engine.embed`."""
        return (await self._call(lambda: self.engine.embed(texts_ids))).tolist()

    def stats(self) -> dict[str, float]:
        """What the engine does and did."""
        scheduler = self.engine.scheduler
        running = len(scheduler.running)
        return {
            "running": running,
            "waiting": sum(map(len, list(scheduler.waiting.values()))) + len(self._work),
            "blocks_used": scheduler.pool.used,
            "blocks": scheduler.pool.blocks,
            **scheduler.counts,
        }

    async def _call(self, work: Callable[[], Any]) -> Any:
        """Run something in the engine's thread, between two steps."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(method: Callable[[Any], None], value: Any) -> None:
            loop.call_soon_threadsafe(lambda: None if future.done() else method(value))

        def run() -> None:
            try:
                settle(future.set_result, work())
            except Exception as error:  # raised again where it is awaited; the engine goes on
                settle(future.set_exception, error)

        self._do(run)
        while not future.done():  # an engine that fails leaves its work undone
            self._check()
            await asyncio.wait((future,), timeout=1.0)
        return future.result()

    def _check(self) -> None:
        if self.failure is not None:
            raise RuntimeError("the engine has failed") from self.failure

    def _do(self, work: Callable[[], None]) -> None:
        with self._changed:
            self._work.append(work)
            self._changed.notify()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as failure:  # everybody who waits is told; the thread's traceback is printed
            self.failure = failure
            for stream in list(self._streams.values()):
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(stream.fail, failure)
            raise

    def _turn(self) -> bool:
        """Do what was asked, then one step. Whether to go on."""
        scheduler = self.engine.scheduler
        with self._changed:
            while not (self._work or self._ending or scheduler.busy):
                self._changed.wait()
            work, self._work = self._work, []
        for one in work:
            one()
        news = [(self._streams[request.number], event) for request, event in scheduler.step()]
        for stream, event in news:
            stream.unfinished -= event.finish is not None
            if not stream.unfinished:
                del self._streams[stream.number]
        if news:
            self._post(news)
        return bool(work or scheduler.busy or not self._ending)

    def _post(self, news: list[tuple[Stream, Event]]) -> None:
        with self._changed:
            self._news += news
            tell, self._posted = not self._posted, True
        if tell and self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        """In the askers' thread. News is followed by a pause, since tokens may come faster than they can be
        sent one by one.
        """
        with self._changed:
            news, self._news = self._news, []
            self._posted = bool(news)
        for stream, event in news:
            stream.put(event)
        if news and self._loop is not None:
            self._loop.call_later(PAUSE, self._deliver)
