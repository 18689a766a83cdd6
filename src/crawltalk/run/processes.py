"""Child processes that never outlive their parent."""

import ctypes
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies, even by SIGKILL (Linux; elsewhere
    nothing).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start_worker() -> None:
    """What every worker process does first."""
    die_with_parent()
    # Ctrl-C ends a worker silently; the parent says what happened
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def limit_time(cpu_seconds: float, seconds: float) -> None:
    """Have the kernel end this process (SIGPROF, SIGALRM) when it has used so much CPU or time from now on;
    0: no limit.

    Native code that hangs is ended too. Where there are no such timers (Windows) nothing happens.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def limit_memory(limit: int) -> None:
    """Refuse this process more than `limit` bytes of memory of its own: allocating fails (Linux; elsewhere
    nothing).
    """
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def pool(workers: int) -> ProcessPoolExecutor:
    """A pool of spawned processes: no inherited threads, no inherited locks."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker)
