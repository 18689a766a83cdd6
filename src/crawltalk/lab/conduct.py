"""Running experiments: all their seeds side by side, in as many processes as there are cores. Seeds of one number whose
experiments read what one of them builds follow each other, and another seed takes their turn meanwhile.

lab/NAME/seed-0.json    the figures of a seed; written when it is done, so that it is not run again
lab/NAME/seed-0/        what its training left: logs, samples, and partial work while it runs
lab/NAME/result.json    the verdict on all seeds that are done
lab/NAME/figure.svg
"""

import dataclasses
import io
import math
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from crawltalk.core.errors import BadInput, UserError
from crawltalk.core.files import folder_to_write, write_atomically
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Range, Trial, ranges_of
from crawltalk.recipe import Machine
from crawltalk.run.processes import SPAWN, interrupts_held, pool
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


class NotFinite(UserError):
    """A figure of a seed is no number: NaN or infinite."""


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
    experiments: Sequence[Experiment],
    out: Path,
    machine: Machine,
    seeds: int | None = None,
    on_event: OnEvent = lambda event: None,
    on_result: Callable[[Result], None] = lambda result: None,
) -> dict[str, BaseException]:
    """Run the seeds of all experiments that are not done yet, `seeds` of each or as many as it says, side by side. Each
    is judged as soon as its seeds are there, from all that are measured in its folder, so that fewer seeds than before
    never make a verdict weaker; `on_result` gets what is written into `out` / NAME.

    Returns why experiments failed, by their names: no further seed of those is begun, and the others go on. `machine`
    is resolved. `on_event` gets the events of the seeds' progress. Raises BadInput for a damaged file, before it runs
    any, and UserError if a process is killed.
    """
    waiting: list[tuple[Experiment, int]] = []
    for experiment in experiments:
        folder_to_write(out / experiment.name)
        measured_seeds(out / experiment.name)  # damaged ones are told before any is run
        numbers = range(seeds or experiment.seeds)
        waiting += [(experiment, seed) for seed in numbers if measured(out / experiment.name, seed) is None]
    side_by_side = max(1, min(machine.workers or 1, len(waiting)))
    machine = dataclasses.replace(machine, workers=(machine.workers or 1) // side_by_side)
    failures: dict[str, BaseException] = {}
    unjudged, total = list(experiments), len(waiting)
    running: dict[Future[None], tuple[Experiment, int]] = {}
    with _processes(side_by_side, on_event) as (processes, send):
        while unjudged:
            while len(running) < side_by_side and (one := next_trial(waiting, running.values())):
                waiting.remove(one)
                experiment, seed = one
                text = f"begins, {total - len(waiting)} of {total}"
                on_event({"event": "note", "stage": f"{experiment.name}, seed {seed}", "text": text})
                folder = out / experiment.name
                running[processes.submit(run_seed, experiment, seed, folder, machine, send)] = one
            busy = {experiment.name for experiment, _ in (*waiting, *running.values())}
            for experiment in [one for one in unjudged if one.name not in busy]:
                unjudged.remove(experiment)
                if experiment.name not in failures:
                    try:
                        on_result(_judged(experiment, out / experiment.name))
                    except (
                        Exception
                    ) as error:  # a bug of one experiment: its figures are kept, the others go on
                        failures[experiment.name] = error
            for task in wait(running, return_when=FIRST_COMPLETED).done:
                experiment, _ = running.pop(task)
                if isinstance(error := task.exception(), BrokenExecutor):
                    raise error
                if error is not None:
                    failures[experiment.name] = error
                    waiting = [one for one in waiting if one[0] is not experiment]
    return failures


def next_trial(
    waiting: Sequence[tuple[Experiment, int]], running: Iterable[tuple[Experiment, int]]
) -> tuple[Experiment, int] | None:
    """The first that reads nothing that a running one may be making."""
    making = {(experiment.shared, seed) for experiment, seed in running if experiment.shared}
    return next((one for one in waiting if (one[0].shared, one[1]) not in making), None)


def _judged(experiment: Experiment, folder: Path) -> Result:
    rows = measured_seeds(folder)
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


def measured_seeds(folder: Path) -> list[Measured]:
    """What all seeds that are done measured, in their order. Raises BadInput if a file is damaged."""
    names = (re.fullmatch(r"seed-(\d+)\.json", path.name) for path in folder.iterdir())
    rows = (measured(folder, seed) for seed in sorted(int(name[1]) for name in names if name))
    return [row for row in rows if row is not None]


def read_result(out: Path, name: str) -> Result | None:
    """The result of an experiment in `out`, if there is one. Raises BadInput if the file is damaged."""
    return _read(out / name / "result.json", Result)


def run_seed(experiment: Experiment, seed: int, folder: Path, machine: Machine, on_event: OnEvent) -> None:
    """Run one seed, and write its figures and what they took. Raises NotFinite if one of the figures is none, and
    RuntimeError if the experiment would end the program (SystemExit): that ends neither the lab nor its other
    experiments.
    """
    work = folder / f"seed-{seed}"
    folder_to_write(work)
    before = _read(work / SPENT, Spent) or Spent()
    cpu, clock, threads = _cpu_seconds(), time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(machine.workers or 1)
    stream = _Events(on_event)
    try:
        progress = Progress(stream, f"{experiment.name}, seed {seed}", EVERY)
        figures = experiment.run(Trial(seed=seed, out=work, progress=progress, machine=machine))
    except SystemExit as error:
        raise RuntimeError(f"seed {seed} called for the end of the program (exit {error.code})") from error
    finally:
        torch.set_num_threads(threads)
        spent = Spent(
            cpu_seconds=round(before.cpu_seconds + _cpu_seconds() - cpu, 3),
            seconds=round(before.seconds + time.monotonic() - clock, 3),
        )
        write_atomically(work / SPENT, _json(spent))
    if path := next(_not_finite(msgspec.to_builtins(figures)), None):
        raise NotFinite(f"seed {seed}: its figure {path} is NaN or infinite, which no verdict can rest on")
    row = Measured(
        experiment=experiment.name,
        seed=seed,
        cpu_seconds=spent.cpu_seconds,
        seconds=spent.seconds,
        figures=figures,
    )
    write_atomically(folder / f"seed-{seed}.json", _json(row))
    (work / SPENT).unlink()


def _not_finite(figures: Any, path: str = "") -> Iterator[str]:
    """Where NaN and infinities stand, such as `losses[1].mean`: JSON has no word for them, and msgspec writes null."""
    if isinstance(figures, float) and not math.isfinite(figures):
        yield path
    elif isinstance(figures, Mapping):
        for name, value in figures.items():
            yield from _not_finite(value, f"{path}.{name}" if path else str(name))
    elif isinstance(figures, list | tuple):
        for index, value in enumerate(figures):
            yield from _not_finite(value, f"{path}[{index}]")


class _Events(io.StringIO):
    """A stream of JSON lines whose objects go to a function."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event

    def write(self, text: str) -> int:
        self._on_event(msgspec.json.decode(text))
        return len(text)


@contextmanager
def _processes(count: int, on_event: OnEvent) -> Iterator[tuple[Executor, OnEvent]]:
    """So many processes, or this one alone, and what takes the events of what runs there."""
    if count == 1:
        yield _Here(), on_event
        return
    with _events(on_event) as events, pool(count) as processes:
        try:
            yield processes, events.put
        except BrokenExecutor:
            raise UserError(
                "a process of the lab was killed, perhaps for want of memory; the same command continues"
            ) from None
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)  # seeds that run are kept, none is begun
            raise


class _Here(Executor):
    """Runs at once, in this process, what is submitted."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:  # as the executors of the library do: it stands in the future
            future.set_exception(error)
        return future


@contextmanager
def _events(on_event: OnEvent) -> Iterator["queue.Queue[dict[str, Any] | None]"]:
    """A queue for the events of other processes, which a thread of this one hands to `on_event`."""
    with interrupts_held():  # half started, it would print a traceback; later it ignores Ctrl-C
        manager = SPAWN.Manager()
    with manager:
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
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _json(row: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(row), indent=2) + b"\n"


def _read(path: Path, kind: type[Row]) -> Row | None:
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{path} is damaged ({error}); remove it, and run the experiment again") from None
