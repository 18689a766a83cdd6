"""Child processes that never outlive their parent."""

import ctypes
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

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
    """A pool of spawned processes: no inherited threads, no inherited locks."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker)
