"""One input file -> its parts: every page goes through the pipeline.

A page that hangs or kills its process is dropped alone. The process records the number of its page in a file,
kernel timers end the process if a page takes too long, and the next process that works on the input file, on
whatever machine, reads that record.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crawltalk.core.files import write_atomically
from crawltalk.data.parts import PART_PAGES, Done, FileTask, Part, SurveyPart
from crawltalk.data.pipeline import Pipeline
from crawltalk.data.read.inputs import local_copy, read_input, unpacked
from crawltalk.data.record.funnel import Clock
from crawltalk.run.processes import limit_time

WALL = 10
"""Limit of wall-clock time for a page, as a multiple of the limit of CPU seconds."""


class Guard:
    """Records the current page, and reads at which pages earlier processes died.

    The first death may have another cause, so the page is tried again; after the second death it is dropped.
    """

    def __init__(self, task: FileTask, ended: str) -> None:
        self.task, self.limit = task, task.config.page_seconds
        deaths = task.file("deaths")
        state = (
            msgspec.json.decode(deaths.read_bytes())
            if deaths.exists()
            else {"last": 0, "poison": {}, "stop": 0}
        )
        if died_at := task.page_at_work():
            if str(died_at) in state["poison"]:  # reading it kills, too
                state["stop"] = died_at
            elif died_at == state["last"]:
                state["poison"][str(died_at)] = self._reason(ended)
            state["last"] = died_at
            write_atomically(deaths, msgspec.json.encode(state))
        self.poison: dict[str, str] = state["poison"]
        self.stop: int = state["stop"]
        self._mark = np.memmap(task.file("working"), np.int64, "w+", shape=1)

    def _reason(self, ended: str) -> str:
        if ended == "SIGPROF":
            return f"more than {self.limit:g} CPU seconds (a guard against hangs: a faster machine may not agree)"
        if ended == "SIGALRM":
            return f"no result within {self.limit * WALL:g} s"
        return f"ended its process twice ({ended})" if ended else "ended its process twice"

    def enter(self, number: int) -> None:
        """Record that page `number` comes next, and start its time limits."""
        self._mark[0] = number
        limit_time(self.limit, self.limit * WALL)

    def leave(self) -> None:
        """End the time limits and the record: the file is done."""
        limit_time(0, 0)
        self.task.file("working").unlink()


def refine(task: FileTask, report: Callable[[int], Any] = lambda pages: None, ended: str = "") -> None:
    """Write the parts of one file that do not exist yet. `report` is called with the number of pages every 100.

    Call it in a process of its own, which a page may kill. Called again, it continues behind the last finished
    part; `ended` is the name of the signal that ended the process before, if that is known.
    """
    if task.done():
        return
    warnings: list[str] = []
    with (
        local_copy(task.source, task.folder) as path,
        unpacked(path, task.folder, warnings.append) as files,
    ):
        guard = Guard(task, ended)
        parts = _read(task, files, guard, warnings, report)
        write_atomically(task.file("done"), msgspec.json.encode(Done(parts, warnings)))
        guard.leave()


def _read(
    task: FileTask, files: Sequence[Path], guard: Guard, warnings: list[str], report: Callable[[int], Any]
) -> int:
    """Read the files that an input file is or holds to their end. Returns the number of its parts."""
    pipeline, config = Pipeline(task), task.config
    pages = chain.from_iterable(
        read_input(path, config.max_page_bytes, warnings.append, config.text_column) for path in files
    )
    finished = task.finished_parts()
    make_part = SurveyPart if task.survey else Part
    part, number = make_part(task, finished), 0
    while True:
        number += 1
        guard.enter(number)
        if number == guard.stop:
            warnings.append(
                f"{task.name}: reading page {number:,} ends the process; what follows is left out"
            )
            break
        clock = Clock(part.stats.costs)
        page = next(pages, None)
        if page is None:
            break
        if number <= finished * PART_PAGES:
            continue
        clock.lap("read")
        page.fault = guard.poison.get(str(number), page.fault)
        pipeline.run(page, part, clock)
        if number % PART_PAGES == 0:
            _write(part)
            part = make_part(task, part.number + 1)
        if number % 100 == 0:
            report(number)
    if part.stats.pages or not part.number:
        _write(part)
        return part.number + 1
    return part.number


def _write(part: Part | SurveyPart) -> None:
    """Write a part, without the time limits of a page."""
    limit_time(0, 0)
    part.write()
