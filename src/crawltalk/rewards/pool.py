"""A judge whose verifier runs in processes of its own, so that a reply on which it hangs or dies costs that reply
alone.
"""

import contextlib
import signal
import time
import traceback
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from crawltalk.core.types import Problem
from crawltalk.rewards.verdict import Verdict, Verifier, failed, verify
from crawltalk.run.processes import limit_memory, start_worker

SECONDS = 10.0
MEMORY = 2 << 30


class Pool:
    """A `Judge`, and a context manager that ends the processes.

    A process gets one reply at a time, and only when it has loaded the verifier and waits. So the time-out counts from
    execution: neither the queue before it nor the import of a library is part of it.
    """

    def __init__(
        self, verifier: Verifier, workers: int = 1, *, seconds: float = SECONDS, memory: int = MEMORY
    ) -> None:
        """`verifier`: anything that a spawned process can import. `seconds`: for one reply; `memory`: bytes of a
        process, beyond which the verifier fails for want of memory (Linux only).
        """
        self.verifier = verifier
        self.seconds = seconds
        self.memory = memory
        self.replaced = 0
        """Processes that died or were ended so far."""
        self._workers = [_Worker(verifier, memory) for _ in range(max(1, workers))]

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def __call__(self, problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
        """A verdict for each reply, in their order.

        Raises RuntimeError if the verifier cannot be loaded, which is no reply's fault.
        """
        waiting = list(enumerate(zip(problems, replies, strict=True)))[::-1]
        verdicts: dict[int, Verdict] = {}
        while len(verdicts) < len(replies):
            for worker in self._workers:
                if worker.idle and waiting:
                    worker.begin(*waiting.pop(), self.seconds)
            now = time.monotonic()
            nearest = min((worker.deadline for worker in self._workers if worker.item is not None), default=None)
            pipes = [worker.pipe for worker in self._workers if not worker.idle]
            wait(pipes, None if nearest is None else max(0.0, nearest - now))
            for position, worker in enumerate(self._workers):
                item = worker.item
                if (verdict := worker.verdict()) is not None and item is not None:
                    verdicts[item] = verdict
                if worker.ended:
                    self.replaced += 1
                    self._workers[position] = _Worker(self.verifier, self.memory)
        return [verdicts[index] for index in range(len(replies))]


class _Worker:
    """A process, and the reply that it judges."""

    def __init__(self, verifier: Verifier, memory: int) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, verifier, memory), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.ended = False
        self.item: int | None = None
        """The position of its reply in the batch."""
        self.deadline = 0.0
        self.seconds = 0.0

    @property
    def idle(self) -> bool:
        """Whether it waits for a reply."""
        return self.ready and self.item is None

    def begin(self, item: int, asked: tuple[Problem, str], seconds: float) -> None:
        """Hand it a reply; from now on its time runs."""
        self.item, self.seconds = item, seconds
        with contextlib.suppress(BrokenPipeError):  # it is dead already, which the next look at it will show
            self.pipe.send(asked)
        self.deadline = time.monotonic() + seconds

    def verdict(self) -> Verdict | None:
        """The verdict on its reply if it is out: what the process said, or an error if it died or took too long.
        Raises RuntimeError if the process failed before it could judge anything.
        """
        if self.pipe.poll():
            return self._received()
        if self.item is not None and time.monotonic() >= self.deadline:
            self.end()
            return failed(f"the verifier took more than {self.seconds:g} s")
        return None

    def _received(self) -> Verdict | None:
        try:
            message: Any = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            self.end()
            if not self.ready:
                raise RuntimeError(f"a process of the verifier ended before it could judge anything ({how})") from None
            return failed(f"the verifier's process ended: {how}")
        if isinstance(message, str):
            self.end()
            raise RuntimeError(f"the verifier could not be loaded:\n{message}")
        self.ready, self.item = True, None
        return message

    def end(self) -> None:
        """Kill the process."""
        self.ended = True
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: Connection, verifier: Verifier, memory: int) -> None:
    """The main loop of a process: say that it is ready, then judge one reply after the other."""
    start_worker()
    limit_memory(memory)
    try:
        getattr(verifier, "warm_up", lambda: None)()
    except Exception:
        pipe.send(traceback.format_exc())
        return
    pipe.send(None)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the pool has ended
        while True:
            pipe.send(verify(verifier, *pipe.recv()))
