"""Running an experiment: its seeds side by side, each in a process of its own, on the threads that this leaves it.

lab/NAME/seed-0.json    the figures of a seed; written when it is done, so that it is not run again
lab/NAME/seed-0/        what its training left: logs, samples, and partial work while it runs
lab/NAME/result.json    the verdict
lab/NAME/figure.svg
"""

import dataclasses
import io
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from crawltalk.core.errors import BadInput
from crawltalk.core.files import write_atomically
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Range, Trial, ranges_of
from crawltalk.recipe import Machine
from crawltalk.run.processes import pool
from crawltalk.run.stage import Progress

Row = TypeVar("Row", bound=msgspec.Struct)
OnEvent = Callable[[dict[str, Any]], None]
EVERY = 5.0
"""Seconds between two events of a seed's progress."""
SPENT = "spent.json"
"""In a seed's folder: the time that interrupted runs of it took."""


class Measured(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """seed-N.json."""

    experiment: str
    seed: int
    cpu_seconds: float
    """Of all its processes, interrupted runs included."""
    seconds: float
    figures: Figures


class Spent(msgspec.Struct, kw_only=True):
    """spent.json."""

    cpu_seconds: float = 0.0
    seconds: float = 0.0


class Result(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """result.json."""

    experiment: str
    claim: str
    source: str
    prediction: str
    method: str
    seeds: list[int]
    judgement: Judgement
    cpu_seconds: list[float]
    """Of each seed."""
    ranges: dict[str, Range] = {}
    """Of each effect over the seeds, each judged alone."""


def conduct(
    experiment: Experiment, seeds: int, out: Path, machine: Machine, on_event: OnEvent = lambda event: None
) -> Result:
    """Run the seeds 0 to `seeds` - 1 that are not done yet, judge all, and write what they say into `out` / NAME.

    `machine` is resolved. `on_event` gets the events of the seeds' progress.
    """
    folder = out / experiment.name
    _make(folder)
    waiting = [seed for seed in range(seeds) if measured(folder, seed) is None]
    side_by_side = max(1, min(machine.workers or 1, len(waiting)))
    machine = dataclasses.replace(machine, workers=(machine.workers or 1) // side_by_side)
    if side_by_side == 1:
        for seed in waiting:
            run_seed(experiment, seed, folder, machine, on_event)
    else:
        with _events(on_event) as events, pool(side_by_side) as processes:
            tasks = [
                processes.submit(run_seed, experiment, seed, folder, machine, events.put) for seed in waiting
            ]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                processes.shutdown(wait=False, cancel_futures=True)  # seeds that run are kept, none is begun
                raise
    rows = [row for seed in range(seeds) if (row := measured(folder, seed)) is not None]
    figures = [row.figures for row in rows]
    result = Result(
        experiment=experiment.name,
        claim=experiment.claim,
        source=experiment.source,
        prediction=experiment.prediction,
        method=experiment.method,
        seeds=[row.seed for row in rows],
        judgement=experiment.judge(figures),
        cpu_seconds=[row.cpu_seconds for row in rows],
        ranges=ranges_of(experiment.judge, figures),
    )
    write_atomically(folder / "figure.svg", experiment.figure(figures).encode())
    write_atomically(folder / "result.json", _json(result))
    return result


def measured(folder: Path, seed: int) -> Measured | None:
    """What a seed measured, if it is done. Raises BadInput if the file is damaged."""
    return _read(folder / f"seed-{seed}.json", Measured)


def read_result(out: Path, name: str) -> Result | None:
    """The result of an experiment in `out`, if there is one. Raises BadInput if the file is damaged."""
    return _read(out / name / "result.json", Result)


def run_seed(experiment: Experiment, seed: int, folder: Path, machine: Machine, on_event: OnEvent) -> None:
    """Run one seed, and write its figures and what they took."""
    work = folder / f"seed-{seed}"
    _make(work)
    before = _read(work / SPENT, Spent) or Spent()
    cpu, clock, threads = _cpu_seconds(), time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(machine.workers or 1)
    stream = _Events(on_event)
    try:
        progress = Progress(stream, f"{experiment.name}, seed {seed}", EVERY)
        figures = experiment.run(Trial(seed=seed, out=work, progress=progress, machine=machine))
    finally:
        torch.set_num_threads(threads)
        spent = Spent(
            cpu_seconds=round(before.cpu_seconds + _cpu_seconds() - cpu, 2),
            seconds=round(before.seconds + time.monotonic() - clock, 2),
        )
        write_atomically(work / SPENT, _json(spent))
    row = Measured(
        experiment=experiment.name,
        seed=seed,
        cpu_seconds=spent.cpu_seconds,
        seconds=spent.seconds,
        figures=figures,
    )
    write_atomically(folder / f"seed-{seed}.json", _json(row))
    (work / SPENT).unlink()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(
            f"{folder} cannot be a folder: a file is in its way; choose another with --out"
        ) from None


class _Events(io.StringIO):
    """A stream of JSON lines whose objects go to a function."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event

    def write(self, text: str) -> int:
        self._on_event(msgspec.json.decode(text))
        return len(text)


@contextmanager
def _events(on_event: OnEvent) -> Iterator["queue.Queue[dict[str, Any] | None]"]:
    """A queue for the events of other processes, which a thread of this one hands to `on_event`."""
    with get_context("spawn").Manager() as manager:
        events = manager.Queue()
        thread = threading.Thread(target=lambda: [on_event(event) for event in iter(events.get, None)])
        thread.start()
        try:
            yield events
        finally:
            events.put(None)
            thread.join()


def _cpu_seconds() -> float:
    """Of this process and those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _json(row: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(row), indent=2) + b"\n"


def _read(path: Path, kind: type[Row]) -> Row | None:
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{path} is damaged ({error}); remove it, and run the experiment again") from None
