"""An engine in a thread of its own, for many clients at once on asyncio."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from crawltalk.engine.backends import MAX_NUM_SEQS
from crawltalk.engine.engine import Engine
from crawltalk.engine.sampling import Sampling
from crawltalk.engine.sequence import PromptEmbeddings, Request, StepOutput, Token

_DELIVERY_INTERVAL = 0.005
"""Seconds from one delivery of outputs to the next."""


class QueueFull(Exception):
    """No more requests may wait."""


class Stream(AsyncIterator[StepOutput]):
    """The outputs of one request, over all its sequences. Outputs that the reader has not taken yet are
    merged into one for each sequence.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self._pending: dict[int, StepOutput] = {}
        self._failure: BaseException | None = None
        self._arrived = asyncio.Event()
        self._unread = self.unfinished = request.samples
        """Sequences whose end has not been read here; sequences whose end the engine has not computed."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were in the cache; known with the first output."""
        return self.request.cached_tokens

    @property
    def prompt(self) -> tuple[Token, ...]:
        """With `prompt_logprobs`, the prompt's tokens and their log-probabilities; known with the first
        output.
        """
        return self.request.prompt_tokens

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> StepOutput:
        while self._unread and not self._pending and self._failure is None:
            self._arrived.clear()
            try:
                await self._arrived.wait()
            except asyncio.CancelledError:
                await self.aclose()
                raise
        if self._failure is not None:
            raise self._failure
        if not self._unread:
            raise StopAsyncIteration
        output = self._pending.pop(next(iter(self._pending)))
        self._unread -= output.finish_reason is not None
        return output

    async def aclose(self) -> None:
        """Cancel what is not finished; the engine drops it before its next step."""
        self.request.cancelled = True
        self._unread = 0
        self._arrived.set()

    def put(self, output: StepOutput) -> None:
        """Add an output for the reader."""
        before = self._pending.get(output.index)
        if before is not None:
            output = output._replace(text=before.text + output.text, tokens=before.tokens + output.tokens)
        self._pending[output.index] = output
        self._arrived.set()

    def fail(self, failure: BaseException) -> None:
        """Raise this exception in the reader."""
        self._failure = failure
        self._arrived.set()


class Service:
    """Clients submit requests; one thread computes for all of them. `queue` requests may wait beyond those
    that run.
    """

    def __init__(self, engine: Engine, *, queue: int = 256) -> None:
        self.engine, self.queue = engine, queue
        self._streams: dict[int, Stream] = {}
        """By the id of the request."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outputs: list[tuple[Stream, StepOutput]] = []
        """Computed, not yet delivered."""
        self._delivering = False
        """Whether a delivery is scheduled in the event loop."""
        self._calls: list[Callable[[], None]] = []
        """To be made in the engine's thread before the next step."""
        self._changed = threading.Condition()
        self._ending = False
        self.failure: BaseException | None = None
        """The exception that ended the engine's thread."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the engine's thread."""
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
        prompt_logprobs: bool = False,
        embeddings: Sequence[PromptEmbeddings] = (),
    ) -> Stream:
        """Begin a request. Raises QueueFull, or BadInput for what can never be served. Clients take turns where
        there is a queue.
        """
        make = partial(
            self.engine.request,
            prompt,
            sampling,
            samples=samples,
            client=client,
            prompt_logprobs=prompt_logprobs,
            embeddings=embeddings,
        )
        # a schema takes a while to compile
        request = make() if sampling.schema is None else await asyncio.to_thread(make)
        if len(self._streams) >= MAX_NUM_SEQS + self.queue:
            raise QueueFull(f"{len(self._streams)} requests are being served or wait")
        self._loop = asyncio.get_running_loop()
        stream = Stream(request)
        if self._ending:  # since the schema was read
            await stream.aclose()
            return stream
        self._streams[request.id] = stream
        self._raise_failure()  # after the stream is known: a failure from now on reaches it
        self._enqueue(lambda: self.engine.scheduler.add(request))
        return stream

    async def embed(self, texts_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `Engine.embed`."""
        return (await self._call_in_thread(lambda: self.engine.embed(texts_ids))).tolist()

    def stats(self) -> dict[str, float]:
        """The engine's gauges and counters, for /metrics."""
        scheduler = self.engine.scheduler
        running = len(scheduler.running)
        return {
            "running": running,
            "waiting": sum(map(len, list(scheduler.waiting.values()))) + len(self._calls),
            "blocks_used": scheduler.pool.num_used,
            "blocks": scheduler.pool.num_blocks,
            **scheduler.counts,
        }

    async def _call_in_thread(self, function: Callable[[], Any]) -> Any:
        """Call something in the engine's thread, between two steps."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(method: Callable[[Any], None], value: Any) -> None:
            loop.call_soon_threadsafe(lambda: None if future.done() else method(value))

        def call() -> None:
            try:
                settle(future.set_result, function())
            except Exception as error:  # raised again where it is awaited; the engine continues
                settle(future.set_exception, error)

        self._enqueue(call)
        while not future.done():  # an engine that fails makes no more calls
            self._raise_failure()
            await asyncio.wait((future,), timeout=1.0)
        return future.result()

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise RuntimeError("the engine has failed") from self.failure

    def _enqueue(self, call: Callable[[], None]) -> None:
        with self._changed:
            self._calls.append(call)
            self._changed.notify()

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except BaseException as failure:  # every stream raises it; the thread's traceback is printed
            self.failure = failure
            for stream in list(self._streams.values()):
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(stream.fail, failure)
            raise

    def _step(self) -> bool:
        """Make the pending calls, then one step. Returns whether to continue."""
        scheduler = self.engine.scheduler
        with self._changed:
            while not (self._calls or self._ending or scheduler.busy):
                self._changed.wait()
            calls, self._calls = self._calls, []
        for call in calls:
            call()
        outputs = [(self._streams[output.request.id], output) for output in scheduler.step()]
        for stream, output in outputs:
            stream.unfinished -= output.finish_reason is not None
            if not stream.unfinished:
                del self._streams[stream.request.id]
        if outputs:
            self._send(outputs)
        return bool(calls or scheduler.busy or not self._ending)

    def _send(self, outputs: list[tuple[Stream, StepOutput]]) -> None:
        with self._changed:
            self._outputs += outputs
            idle, self._delivering = not self._delivering, True
        if idle and self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        """In the event loop's thread. The next delivery comes after an interval, since tokens may come faster
        than they can be sent one by one.
        """
        with self._changed:
            outputs, self._outputs = self._outputs, []
            self._delivering = bool(outputs)
        for stream, output in outputs:
            stream.put(output)
        if outputs and self._loop is not None:
            self._loop.call_later(_DELIVERY_INTERVAL, self._deliver)
