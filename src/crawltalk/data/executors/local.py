"""Worker processes on this machine. Each refines one file at a time; one that dies is replaced, and its file is
started again behind the finished parts.

On Linux they are forked when everything is loaded, so that libraries, compiled code and models are there at once and
stand in memory once. Elsewhere, and where functions of the user's run, each is a Python of its own, which loads them
while the parent still reads its lists.
"""

import contextlib
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from crawltalk.core.errors import UserError
from crawltalk.data.parts import FileTask
from crawltalk.data.pipeline import warm_up
from crawltalk.data.worker import refine
from crawltalk.recipe import Machine
from crawltalk.run.machine import memory_bytes
from crawltalk.run.processes import limit_memory, start_worker

PATIENCE = 3
"""After so many deaths in a row without a page read, the machine is at fault and not a page."""
_SPARE = 0.2  # of the memory, for the system and this process


class LocalExecutor:
    """A context manager."""

    def __init__(self, machine: Machine, files: int, own_code: bool) -> None:
        """`own_code`: functions of the user's run, which may have started threads in this process."""
        self.count = min(machine.workers or 1, max(1, files))
        self.limit = max(2 << 30, int(memory_bytes() * (1 - _SPARE) / self.count))
        self.context = get_context("fork" if sys.platform == "linux" and not own_code else "spawn")
        self.idle: list[_Worker] = []
        self.busy: dict[Connection, _Worker] = {}
        if self.context.get_start_method() == "spawn":
            self._start()

    def __enter__(self) -> "LocalExecutor":
        return self

    def _start(self) -> None:
        """Start as many processes as there should be."""
        while len(self.idle) + len(self.busy) < self.count:
            self.idle.append(_Worker(self.context, self.limit))

    def warm_up(self) -> None:
        """Let the processes load their models and compiled code. Call it when nothing is left to compile."""
        for worker in self.idle:
            with contextlib.suppress(BrokenPipeError):  # it is dead already, which its first file will show
                worker.pipe.send(None)

    def __exit__(self, *error: object) -> None:
        for worker in (*self.idle, *self.busy.values()):
            worker.kill()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Apply a function to each item, one after the other."""
        return map(function, items)

    def refine_all(self, tasks: Sequence[FileTask], report: Callable[[FileTask, int], Any]) -> None:
        """Refine all files, the largest first. `report` is called with the number of pages of a file that are
        done, and with -1 when all are.

        A file is handed out only when a process is free, so no queue builds up. Raises the UserError of a file,
        or UserError if processes die although no page is the cause.
        """
        waiting = sorted(tasks, key=lambda task: task.size)
        self._start()
        while waiting or self.busy:
            while waiting and self.idle:
                worker = self.idle.pop()
                self.busy[worker.pipe] = worker
                worker.assign(waiting.pop())
            for pipe in wait(list(self.busy)):
                worker = self.busy[pipe]  # type: ignore[index] - wait returns what it was given
                if worker.receive(report):
                    self.idle.append(self.busy.pop(worker.pipe))
                elif worker.dead:
                    del self.busy[worker.pipe]
                    waiting.append(worker.task)
                    _check_patience(worker.task, worker.ended)
                    self._start()


def _check_patience(task: FileTask, ended: str) -> None:
    """Count deaths without a page read, on the task, since each process is a new one."""
    task.ended = ended
    task.fruitless = 0 if task.page_at_work() else task.fruitless + 1
    if task.fruitless >= PATIENCE:
        raise UserError(
            f"worker processes end ({ended}) before they read a page of {task.name}; the finished files are kept: "
            "free some memory, or run again with --machine.workers 1"
        )


class _Worker:
    """A process and the file that it works on."""

    def __init__(self, context: Any, limit: int) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, limit), daemon=True)
        with warnings.catch_warnings():
            # Python 3.12 and later warn of threads: here those of OpenBLAS and Arrow's allocator, which expect a fork
            warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)
            self.process.start()
        theirs.close()
        self.task: FileTask
        self.dead = False
        self.ended = ""

    def assign(self, task: FileTask) -> None:
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # it is dead already, which the next message will show
            self.pipe.send(task)

    def receive(self, report: Callable[[FileTask, int], Any]) -> bool:
        """Receive one message; True if the file is finished. Raises what the process raised."""
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
        """End it at once; its unfinished part is lost."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: Connection, limit: int) -> None:
    """The main loop of a worker process: refine files until the pipe is closed."""
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
        except Exception:  # a bug: the parent shows it and stops; a dead worker would only be replaced
            pipe.send(traceback.format_exc())
        else:
            pipe.send(-1)
