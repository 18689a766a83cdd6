"""The threads of a CPU that share a step: each computes whole micro-batches, and whole matrices of the optimizer.

Threads inside of each operation (OpenMP) wait for each other at its end, thousands of times a step. These wait twice
a step, so a core that another program keeps busy holds up one micro-batch instead of every operation; and what a thread
computes stays in the cache of its core. Who computes what depends on who is free, but results are taken in the order
of the items: they are the same to the last bit on any number of threads, up to that of the items.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads:
    """Threads that work side by side, at most one for each of the `parts` of a step. Where there are more, they
    work inside of the operations.
    """

    def __init__(self, threads: int, parts: int = 1) -> None:
        self._threads, self.count = threads, 0
        self._pool: ThreadPoolExecutor | None = None
        self.share(parts)

    def share(self, parts: int) -> None:
        """Steps have so many parts from now on."""
        count = max(1, min(self._threads, parts))
        if count == self.count:
            return
        if self._pool is not None:
            self._pool.shutdown()
        self.count, self._inside = count, self._threads // count
        self._pool = ThreadPoolExecutor(count, "step") if count > 1 else None
        torch.set_num_threads(self._inside)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items; few are computed ahead of what is taken, as each may be large."""
        if self._pool is None:
            yield from map(function, items)
            return
        ahead: deque[Future[Result]] = deque()
        for item in items:
            ahead.append(self._pool.submit(function, item))
            if len(ahead) > 2 * self.count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """All threads work inside of the operations."""
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(self._inside)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)
