"""How the C library hands out memory while a model trains."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of malloc.h."""


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next one (on other C libraries: nothing happens).

    By default every large tensor is fresh memory of the system: some 80,000 page faults a step at 4 million
    parameters, a tenth of the time, and several times the step on a virtual machine whose host takes free
    memory back.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
