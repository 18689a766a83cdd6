"""Runs beside each other: their stages, what each was made from, and the logs of their trainings."""

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import MissingInput, UserError
from crawltalk.pipeline import stages
from crawltalk.run.folder import RunFolder, StageState

RUNS = 50
"""Of a folder that are listed: the served one, then the newest."""
LOG_BYTES = 1 << 18
"""Of a log in one answer."""
_FIGURES = (
    "seconds",
    "cpu_seconds",
    "peak_memory_bytes",
    "attempts",
    "started",
    "metrics",
    "inputs",
    "versions",
    "host",
)


class Log(msgspec.Struct):
    """Rows of a training's log."""

    rows: list[dict[str, Any]]
    start: int
    """The byte where they begin."""
    next: int
    """The byte to go on from."""


class Runs:
    """The runs in the folder of the served one. Runs are named by their folder; no other path can be asked
    for.
    """

    def __init__(self, served: RunFolder) -> None:
        self.served = served

    def names(self) -> list[str]:
        """The served run first, then the newest."""
        own = self.served.path.resolve()
        others = [path for path in own.parent.iterdir() if path != own and RunFolder(path).exists()]
        others.sort(key=lambda path: (path / "recipe.toml").stat().st_mtime, reverse=True)
        return [path.name for path in [own, *others][:RUNS]]

    def run(self, name: str) -> RunFolder:
        """A run by its name. Raises MissingInput if it is none of them."""
        if name not in self.names():
            raise MissingInput(
                f"there is no run {name[:100]!r} beside the served one; reload the list of runs"
            )
        return RunFolder(self.served.path.resolve().parent / name)

    def states(self, name: str) -> dict[str, Any]:
        """The stages of a run: state, reasons, figures and inputs of each. A run that cannot be read says
        why.
        """
        run = self.run(name)
        try:
            recipe = run.recipe()
            states = run.states(stages(recipe), recipe).values()
        except (UserError, FileNotFoundError) as error:  # not there: a stage is put in its place right now
            return {"name": name, "about": "", "error": str(error), "stages": []}
        return {
            "name": name,
            "about": recipe.about,
            "error": None,
            "stages": [_row(run, state) for state in states],
        }

    def log(self, name: str, stage: str, start: int) -> Log:
        """The rows of a stage's log from a byte on, of the training that goes on if there is one."""
        run = self.run(name)
        logged = [each.name for each in stages(run.recipe()) if each.makes]
        if stage not in logged:
            raise MissingInput(f"{stage[:100]!r} writes no log; these do: {', '.join(logged)}")
        for folder in (run.work(stage), run.folder(stage)):
            with contextlib.suppress(FileNotFoundError):  # also when the stage is put in its place right now
                return _rows(folder / "log.jsonl", start)
        return Log([], 0, 0)


def _row(run: RunFolder, state: StageState) -> dict[str, Any]:
    stage, manifest = state.stage, state.manifest
    row: dict[str, Any] = {
        "stage": stage.name,
        "about": stage.about,
        "makes": stage.makes,
        "state": state.state,
        "reasons": state.reasons,
    }
    row["going"] = run.work(stage.name).is_dir()
    if manifest is None:
        return row
    return row | {"fingerprint": manifest.fingerprint} | {name: getattr(manifest, name) for name in _FIGURES}


def _rows(path: Path, start: int) -> Log:
    """Whole lines from byte `start` on; from the front if no line ends there, because a training began anew."""
    with open(path, "rb") as file:
        file.seek(max(0, start - 1))
        if start and file.read(1) != b"\n":
            start = 0
        file.seek(start)
        lines = file.read(LOG_BYTES).split(b"\n")[:-1]
    rows = [
        {key: value for key, value in msgspec.json.decode(line).items() if key != "samples"} for line in lines
    ]
    return Log(rows, start, start + sum(len(line) + 1 for line in lines))
