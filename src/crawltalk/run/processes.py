"""Child processes that never outlive their parent."""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, even by SIGKILL (Linux only; elsewhere this does
    nothing).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start_worker() -> None:
    """What every worker process does first."""
    die_with_parent()
    # Ctrl-C ends a worker silently; the parent reports it
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `interrupts_held`


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Within the block Ctrl-C waits for its end, and processes that are started in it never see one until they ask for
    it, as `start_worker` does: one that is hit while it still imports would print a traceback. Windows has no such
    masks; there this does nothing.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    resource_tracker.ensure_running()  # its start ends the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))  # by another thread
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if came:
            signal.raise_signal(signal.SIGINT)


class _Process(SpawnProcess):
    def start(self) -> None:
        with interrupts_held():
            super().start()


class _Context(SpawnContext):
    Process = _Process


SPAWN = _Context()
"""Spawned processes: no inherited threads, no inherited locks; and none that Ctrl-C hits before it is ready."""


def limit_time(cpu_seconds: float, seconds: float) -> None:
    """Have the kernel end this process when it has used this much more CPU time (SIGPROF) or wall-clock time
    (SIGALRM); 0: no limit.

    Native code that hangs is ended too. Windows has no such timers; there this does nothing.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def limit_memory(limit: int) -> None:
    """Let allocations fail beyond `limit` bytes of this process's own memory (Linux only; elsewhere this does
    nothing).
    """
    if sys.platform == "linux":
        import resource

        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(
            resource.RLIMIT_DATA, (limit if most == resource.RLIM_INFINITY else min(limit, most), most)
        )


def pool(workers: int) -> ProcessPoolExecutor:
    """A pool of spawned processes."""
    return ProcessPoolExecutor(workers, mp_context=SPAWN, initializer=start_worker)
