"""What both sandboxes take and give."""

from dataclasses import dataclass

MAX_CODE = 100_000
"""Characters of a program."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one run. Every sandbox sets each of them explicitly."""

    seconds: float = 10.0
    """Of CPU time (CPython), and with `patience` of wall-clock time."""
    patience: float = 1.0
    """How many times as long a program may take by the clock: where other work is done, too, it waits for its turn."""
    memory: int = 512 << 20
    """Bytes of address space (CPython; numpy alone takes 200 MB) or of heap (Monty)."""
    output: int = 16_384
    """Bytes of output that are kept; a program that writes more is ended."""
    files: int = 32 << 20
    """Bytes of all files that it writes, in a folder that ends with it."""
    processes: int = 16
    """Threads, and processes where these are not forbidden."""
    recursion: int = 400
    """Calls within each other (Monty)."""

    @property
    def wall(self) -> float:
        """Seconds of wall-clock time."""
        return self.seconds * self.patience


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run."""

    output: str
    """What it printed, and the value of its last line, as in an interactive session; its traceback, if it raised."""
    problem: str = ""
    """Why it did not end well, in one line."""
    truncated: bool = False
    """Whether it wrote more than was kept."""
