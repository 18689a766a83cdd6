"""A Ray cluster: each file is one Ray task, the same function as on one machine.

The machines must see the run's folder under the same path. Ray restarts the task of a dead process, and the new
process reads from a file in that folder at which page the other died (`worker.Guard`). So a page that kills its
process is tried twice at most.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from crawltalk.core.errors import UserError
from crawltalk.data.parts import FileTask
from crawltalk.data.worker import refine
from crawltalk.recipe import Machine
from crawltalk.run.ray_cluster import connect

RETRIES = 100
"""Retries of one file: two for each page that kills its process, and those for machines that went away."""
_AHEAD = 2  # tasks given to Ray per core, so that it need not hold a list of 90,000 files


class RayExecutor:
    """A context manager that is connected to the cluster."""

    def __init__(self, machine: Machine, files: int, own_code: bool) -> None:
        self.ray = connect(machine)

    def __enter__(self) -> "RayExecutor":
        return self

    def warm_up(self) -> None:
        """Nothing to do: each task warms up its own process."""

    def __exit__(self, *error: object) -> None:
        self.ray.shutdown()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Apply a function to each item as Ray tasks; results in order."""
        remote = self.ray.remote(function)
        left = iter(items)
        running = [remote.remote(item) for item in islice(left, _window(self.ray))]
        while running:
            yield self.ray.get(running.pop(0))
            running += [remote.remote(item) for item in islice(left, 1)]

    def refine_all(self, tasks: Sequence[FileTask], report: Callable[[FileTask, int], Any]) -> None:
        """Refine all files, the largest first. `report` is called with -1 when one is done. Raises the UserError
        of a file.
        """
        remote = self.ray.remote(max_retries=RETRIES)(refine)
        left = iter(sorted(tasks, key=lambda task: -task.size))
        running = {remote.remote(task): task for task in islice(left, _window(self.ray))}
        while running:
            for finished in self.ray.wait(list(running))[0]:
                task = running.pop(finished)
                try:
                    self.ray.get(finished)
                except self.ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, UserError):
                        raise error.cause from None
                    raise
                except self.ray.exceptions.RayError as error:
                    raise UserError(
                        f"Ray gave up on {task.name} ({type(error).__name__}); finished parts are kept: run again"
                    ) from None
                report(task, -1)
                running |= {remote.remote(task): task for task in islice(left, 1)}


def _window(ray: Any) -> int:
    return max(2, int(_AHEAD * ray.cluster_resources().get("CPU", 1)))
