"""The processes of this machine: each refines one file at a time; one that dies is replaced, and its file
taken up again.
"""

import contextlib
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from crawltalk.core.errors import UserError
from crawltalk.data.parts import Task
from crawltalk.data.pipeline import warm_up
from crawltalk.data.worker import refine
from crawltalk.recipe import Machine
from crawltalk.run.machine import memory_bytes
from crawltalk.run.processes import limit_memory, start_worker

PATIENCE = 3
"""Deaths in a row without a single page read, after which the machine is at fault and not a page."""
_SPARE = 0.2  # of the memory, for the system and this process


class Engine:
    """Processes that start at once, while the caller still prepares; to be used in a `with`."""

    def __init__(self, machine: Machine, files: int) -> None:
        count = min(machine.workers or 1, max(1, files))
        self.limit = max(2 << 30, int(memory_bytes() * (1 - _SPARE) / count))
        self.idle = [_Worker(self.limit) for _ in range(count)]
        self.busy: dict[Connection, _Worker] = {}

    def __enter__(self) -> "Engine":
        return self

    def warm_up(self) -> None:
        """Have the processes load their models and compiled code; to be called when nothing is left to
        compile.
        """
        for worker in self.idle:
            with contextlib.suppress(BrokenPipeError):  # it is dead already, which its first file will say
                worker.pipe.send(None)

    def __exit__(self, *error: object) -> None:
        for worker in (*self.idle, *self.busy.values()):
            worker.kill()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Apply a function to each item, in order: here, one after the other."""
        return map(function, items)

    def refine_all(self, tasks: Sequence[Task], report: Callable[[Task, int], Any]) -> None:
        """Refine all files, the largest first; `report` gets how many pages of a file are done, and -1 when
        all are.

        No file is handed out before a process is free for it, so nothing piles up. Raises the UserError of a
        file, or UserError if processes die for no page's fault.
        """
        waiting = sorted(tasks, key=lambda task: task.size)
        while waiting or self.busy:
            while waiting and self.idle:
                worker = self.idle.pop()
                self.busy[worker.pipe] = worker
                worker.take(waiting.pop())
            for pipe in wait(list(self.busy)):
                worker = self.busy[pipe]  # type: ignore[index] - wait returns what it was given
                if worker.hear(report):
                    self.idle.append(self.busy.pop(worker.pipe))
                elif worker.dead:
                    del self.busy[worker.pipe]
                    waiting.append(worker.task)
                    _check_patience(worker.task, worker.ended)
                    self.idle.append(_Worker(self.limit))


def _check_patience(task: Task, ended: str) -> None:
    """Count deaths without a page; a note beside the file, since each process is a new one."""
    task.ended = ended
    task.fruitless = 0 if task.page_at_work() else task.fruitless + 1
    if task.fruitless >= PATIENCE:
        raise UserError(
            f"worker processes end ({ended}) before they read a page of {task.name}; the finished files are kept: "
            "free some memory, or run again with --machine.workers 1"
        )


class _Worker:
    """A process and the file that it is at."""

    def __init__(self, limit: int) -> None:
        context = get_context("spawn")  # no inherited threads, no inherited locks
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, limit), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task
        self.dead = False
        self.ended = ""

    def take(self, task: Task) -> None:
        """Hand over a file."""
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # it is dead already, which the next message says
            self.pipe.send(task)

    def hear(self, report: Callable[[Task, int], Any]) -> bool:
        """Take one message; True if the file is finished. Raises what the process raised."""
        try:
            message = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.dead, code = True, self.process.exitcode or 0
            self.ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            self.pipe.close()
            return False
        if isinstance(message, UserError):
            raise message
        if isinstance(message, str):
            raise RuntimeError(f"{self.task.name}: {message}")
        report(self.task, message)
        return message < 0

    def kill(self) -> None:
        """End it at once; parts that are not finished are done again."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: Connection, limit: int) -> None:
    """What a worker process does: files, until there are no more."""
    start_worker()
    limit_memory(limit)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            if task is None:
                warm_up()
                continue
            refine(task, pipe.send, task.ended)
        except UserError as error:
            pipe.send(error)
        except (
            Exception
        ):  # a fault of ours: the parent shows it and stops, where a dead worker would only be replaced
            pipe.send(traceback.format_exc())
        else:
            pipe.send(-1)
