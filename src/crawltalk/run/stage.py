"""A stage: a function from directories to a directory.

The function gets a `Job` and returns its metrics (a flat dict of numbers and short strings). It writes its
artifacts into `job.out`, and nowhere else. `job.out` is a work folder that outlives a crash: when the same
job is started again it finds its partial work there, continues from it, and its result must equal that of an
uninterrupted run byte for byte (logs of time and speed excepted). What only such a continuation needs goes
into `job.out / STATE`. When the function returns, the engine writes the manifest, drops STATE and renames the
folder. What a stage that gives up leaves in `job.out / RESCUED` is kept in the run's own folder of that name.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from crawltalk.core.objects import load_object
from crawltalk.recipe import Machine

STATE, RESCUED = "state", "rescued"
Config = TypeVar("Config")
Metrics = dict[str, float | int | str]


class Progress:
    """What a stage says while it works: JSON lines on `stream`, drawn by the console of the parent process."""

    def __init__(self, stream: TextIO | None = None, stage: str = "", every: float = 0.2) -> None:
        self.stream = stream
        self.stage = stage
        self.every = every
        self._last = -1e9

    def update(self, done: float, total: float | None, unit: str, **figures: float | str) -> None:
        """Say how far the work is (`done` of `total` units) with further figures such as loss; cheap,
        throttled.
        """
        now = time.monotonic()
        if self.stream is None or (now - self._last < self.every and done != total):
            return
        self._last = now
        self.send("progress", done=done, total=total, unit=unit, **figures)

    def note(self, text: str) -> None:
        """Say one line that a person should see, such as a sample of the model."""
        self.send("note", text=text)

    def warn(self, text: str) -> None:
        """Say that something was set aside or is not as it should be; the work goes on."""
        self.send("warning", text=text)

    def send(self, event: str, **fields: Any) -> None:
        """Write one event."""
        if self.stream is not None:
            row = {"event": event, "stage": self.stage, **fields}
            self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            self.stream.flush()


@dataclass(frozen=True)
class Job(Generic[Config]):
    """All that a stage may know."""

    config: Config
    """Its own section of the recipe."""
    inputs: Mapping[str, Path]
    """Upstream stage -> its folder."""
    out: Path
    """The work folder to write into; may hold partial work of this very job."""
    seed: int
    machine: Machine
    """Resolved: workers, device and dtype are set, dtype may still be None (stage probes)."""
    progress: Progress


@dataclass(frozen=True)
class Stage:
    """One line of the table of contents in `crawltalk.pipeline`."""

    name: str
    """Its folder in the run and its section in the recipe."""
    inputs: tuple[str, ...]
    """Stages whose folders it reads."""
    function: str
    """`module:function`, imported only when the stage runs."""
    about: str
    version: int = 1
    """Raised when the code changes what the stage writes, so that older results go stale."""
    ranks: bool = False
    """Whether it trains on all ranks that torchrun started; other stages run on rank 0 alone."""
    external_inputs: str | None = None
    """`module:function` that maps the section to what else decides the result, outside the recipe: such as the
    dates of files that it names.
    """

    def load(self) -> Callable[[Job[Any]], Metrics]:
        """Import the function."""
        return load_object(self.function)

    def load_external_inputs(self) -> Callable[[Any], dict[str, Any]]:
        """Import that function."""
        return load_object(self.external_inputs or "")
