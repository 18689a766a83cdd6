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

from crawltalk.core.errors import UserError
from crawltalk.core.types import Problem
from crawltalk.rewards.verdict import Verdict, Verifier, failed, verify
from crawltalk.run.processes import limit_memory, limit_time, start_worker

SECONDS = 10.0
PATIENCE = 6.0
MEMORY = 2 << 30


class Pool:
    """A `Judge`, and a context manager that ends the processes.

    A process gets one reply at a time, and only when it has loaded the verifier and waits. So the time-out counts from
    execution: neither the queue before it nor the import of a library is part of it. It is CPU time, which the kernel
    counts, so that a busy machine makes no errors; what sleeps is ended after `PATIENCE` times as long by the clock.
    """

    def __init__(
        self, verifier: Verifier, workers: int = 1, *, seconds: float = SECONDS, memory: int = MEMORY
    ) -> None:
        """`verifier`: anything that a spawned process can import. `seconds`: CPU time for one reply. `memory`: bytes of
        a process, beyond which the verifier fails for want of memory (Linux only).
        """
        self.verifier = verifier
        self.count = max(1, workers)
        self.seconds = seconds
        self.memory = memory
        self.replaced = 0
        """Processes that died or were ended so far."""
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; the next batch would start new ones."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def __call__(self, problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
        """A verdict for each reply, in their order.

        Raises RuntimeError if the verifier cannot be loaded, and what UserError it raises: no reply's fault.
        """
        waiting = list(enumerate(zip(problems, replies, strict=True)))[::-1]
        verdicts: dict[int, Verdict] = {}
        try:
            while len(verdicts) < len(replies):
                self._start()
                for worker in self._workers:
                    if worker.idle and waiting:
                        worker.begin(*waiting.pop())
                self._wait()
                for worker in self._workers:
                    item = worker.item
                    if (verdict := worker.verdict()) is not None and item is not None:
                        verdicts[item] = verdict
        except BaseException:  # what is under way belongs to a batch that nobody waits for
            self.close()
            raise
        return [verdicts[index] for index in range(len(replies))]

    def _start(self) -> None:
        """Put new processes in the place of those that have ended."""
        kept = [worker for worker in self._workers if not worker.gone()]
        self.replaced += len(self._workers) - len(kept)
        self._workers = kept + [
            _Worker(self.verifier, self.seconds, self.memory) for _ in range(self.count - len(kept))
        ]

    def _wait(self) -> None:
        """Until a process says something, or one has had its time."""
        at_work = [worker.deadline for worker in self._workers if worker.item is not None]
        pipes = [worker.pipe for worker in self._workers if not worker.idle]
        wait(pipes, max(0.0, min(at_work) - time.monotonic()) if at_work else None)


class _Worker:
    """A process, and the reply that it judges."""

    def __init__(self, verifier: Verifier, seconds: float, memory: int) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, verifier, seconds, memory), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.ended = False
        self.item: int | None = None
        """The position of its reply in the batch."""
        self.seconds = seconds
        self.deadline = 0.0

    @property
    def idle(self) -> bool:
        """Whether it waits for a reply."""
        return self.ready and self.item is None

    def gone(self) -> bool:
        """Whether it has ended, by us or by itself while it waited."""
        if self.idle and not self.process.is_alive():
            self.end()
        return self.ended

    def begin(self, item: int, asked: tuple[Problem, str]) -> None:
        """Hand it a reply; from now on its time runs."""
        self.item = item
        with contextlib.suppress(BrokenPipeError):  # it is dead already, which the next look at it will show
            self.pipe.send(asked)
        self.deadline = time.monotonic() + PATIENCE * self.seconds

    def verdict(self) -> Verdict | None:
        """The verdict on its reply if it is out: what the process said, or an error if it died or took too long.
        Raises RuntimeError if the process failed before it could judge anything.
        """
        if self.pipe.poll():
            return self._received()
        if self.item is not None and time.monotonic() >= self.deadline:
            self.end()
            return failed(f"the verifier took more than {PATIENCE * self.seconds:g} s by the clock")
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
                raise RuntimeError(
                    f"a process of the verifier ended before it could judge anything ({how})"
                ) from None
            if how == "SIGPROF":
                return failed(f"the verifier took more than {self.seconds:g} s")
            return failed(f"the verifier's process ended: {how}")
        if isinstance(message, UserError):
            raise message
        if isinstance(message, str):
            raise RuntimeError(f"the verifier could not be loaded:\n{message}")
        self.ready, self.item = True, None
        return message

    def end(self) -> None:
        """Kill the process."""
        self.ended = True
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: Connection, verifier: Verifier, seconds: float, memory: int) -> None:
    """The main loop of a process: say that it is ready, then judge one reply after the other."""
    start_worker()
    limit_memory(memory)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the pool has ended
        try:
            getattr(verifier, "warm_up", lambda: None)()
            pipe.send(None)
            while True:
                asked = pipe.recv()
                limit_time(seconds, 0)
                verdict = verify(verifier, *asked)
                limit_time(0, 0)
                pipe.send(verdict)
        except UserError as error:
            pipe.send(error)
        except (EOFError, BrokenPipeError):
            raise
        except Exception:  # a user's verifier that cannot be made ready: the pool says so, with the trace
            pipe.send(traceback.format_exc())
