"""The process in which one stage runs: `python -m crawltalk.run.child EVENTS_FD`, the job as JSON on standard
input.

With a process of its own, each stage has its own peak memory and CPU time, and a crash ends no other stage. The
parent (`run.execute`) reads the events. Exit codes: 0 done, 2 an error that the user can fix (sent as an
event), 1 a bug (traceback).
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import UserError, disk_is_full
from crawltalk.core.objects import load_object
from crawltalk.recipe import Machine
from crawltalk.recipe.keys import SECTIONS
from crawltalk.run.processes import die_with_parent
from crawltalk.run.stage import Job, Metrics, ModelKind, Progress


class JobMessage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A job as the parent sends it."""

    stage: str
    section: str
    """The section of the recipe that `config` is of."""
    function: str
    config: dict[str, Any]
    inputs: dict[str, str]
    models: dict[str, ModelKind]
    beside: dict[str, str]
    out: str
    seed: int
    machine: dict[str, Any]


def run_job(message: JobMessage, progress: Progress) -> Metrics:
    """Run the stage's function in this process."""
    job = Job(
        config=msgspec.convert(message.config, SECTIONS[message.section]),
        inputs={name: Path(path) for name, path in message.inputs.items()},
        out=Path(message.out),
        seed=message.seed,
        machine=msgspec.convert(message.machine, Machine),
        progress=progress,
        models=message.models,
        beside={name: Path(path) for name, path in message.beside.items()},
    )
    return load_object(message.function)(job)


def main() -> int:
    """Run the job on standard input."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # every stage survives a kill, so Ctrl-C may be one
    message = msgspec.json.decode(sys.stdin.buffer.read(), type=JobMessage)
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as stream:
        progress = Progress(stream, message.stage)
        try:
            progress.send("done", metrics=run_job(message, progress))
        except UserError as error:
            progress.send("error", text=str(error))
            return 2
        except Exception as error:  # libraries report a full disk by exceptions of their own
            if not disk_is_full(error):
                raise
            progress.send("error", text=f"the disk of {message.out} is full; free some space and run again")
            return 2
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The stage is over; what libraries do while the interpreter ends must not make a failure of it. DTensor's caches
    # keep a sharded training's process group, whose threads then abort the process if they ask for the interpreter.
    os._exit(code)
