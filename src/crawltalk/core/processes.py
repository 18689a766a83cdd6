"""Child processes that never outlive their parent."""

import ctypes
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies, even by SIGKILL (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start_worker() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker silently; the parent says what happened


def pool(workers: int) -> ProcessPoolExecutor:
    """A pool of spawned processes: no inherited threads, no inherited locks."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
