"""The process in which one stage runs: `python -m crawltalk.run.child EVENTS_FD`, the job as JSON on standard
input.

A process of its own gives each stage its own peak memory and CPU time, and a stage that dies takes nothing
with it. The parent (`run.execute`) reads the events. Exit codes: 0 done, 2 the user's mistake (sent as an
event), 1 ours (traceback).
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import UserError, disk_is_full
from crawltalk.core.objects import load_object
from crawltalk.recipe import Machine, Recipe
from crawltalk.run.processes import die_with_parent
from crawltalk.run.stage import Job, Metrics, Progress


class Order(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the parent sends."""

    stage: str
    function: str
    config: dict[str, Any]
    inputs: dict[str, str]
    out: str
    seed: int
    machine: dict[str, Any]


def section_type(stage: str) -> type:
    """The dataclass of a stage's section of the recipe."""
    return next(field.type for field in dataclasses.fields(Recipe) if field.name == stage)  # type: ignore[return-value]


def perform(order: Order, progress: Progress) -> Metrics:
    """Run the stage's function in this process."""
    job = Job(
        config=msgspec.convert(order.config, section_type(order.stage)),
        inputs={name: Path(path) for name, path in order.inputs.items()},
        out=Path(order.out),
        seed=order.seed,
        machine=msgspec.convert(order.machine, Machine),
        progress=progress,
    )
    return load_object(order.function)(job)


def main() -> int:
    """Perform one order."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # every stage survives a kill, so Ctrl-C may be one
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as stream:
        progress = Progress(stream, order.stage)
        try:
            progress.send("done", metrics=perform(order, progress))
        except UserError as error:
            progress.send("error", text=str(error))
            return 2
        except Exception as error:  # libraries report a full disk by exceptions of their own
            if not disk_is_full(error):
                raise
            progress.send("error", text=f"the disk of {order.out} is full; free some space and run again")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
