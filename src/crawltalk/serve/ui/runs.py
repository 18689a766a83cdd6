"""The served run and those beside it: their stages, what each was made from, and the logs of their trainings."""

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import MissingInput, UserError
from crawltalk.pipeline import stages
from crawltalk.run.folder import RunFolder, StageState

MAX_RUNS = 50
"""Runs that are listed: the served one, then the newest."""
MAX_LOG_BYTES = 1 << 18
"""Bytes of a log in one response."""
ROLLOUTS = "rollouts.jsonl"
MAX_ROLLOUT_BYTES = 1 << 20
SHOWN_GROUPS = 3
"""Problems in one response, each with its replies."""
SHOWN_CHARACTERS = 4000
"""Of a prompt and of a reply."""
_MANIFEST_FIELDS = (
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


class LogRows(msgspec.Struct):
    """Rows of a training's `log.jsonl`."""

    rows: list[dict[str, Any]]
    start: int
    """The byte where they begin."""
    next: int
    """The byte to continue from."""


class Runs:
    """The runs in the folder of the served one. A run's name is that of its folder; no path outside can be
    reached.
    """

    def __init__(self, served: RunFolder) -> None:
        self.served = served

    def names(self) -> list[str]:
        """The served run first, then the newest."""
        own = self.served.path.resolve()
        others = [path for path in own.parent.iterdir() if path != own and RunFolder(path).exists()]
        others.sort(key=lambda path: (path / "recipe.toml").stat().st_mtime, reverse=True)
        return [path.name for path in [own, *others][:MAX_RUNS]]

    def run(self, name: str) -> RunFolder:
        """A run by its name. Raises MissingInput if there is none of this name."""
        if name not in self.names():
            raise MissingInput(
                f"there is no run {name[:100]!r} beside the served one; reload the list of runs"
            )
        return RunFolder(self.served.path.resolve().parent / name)

    def states(self, name: str) -> dict[str, Any]:
        """The stages of a run: state, reasons, figures and inputs of each. For a run that cannot be read:
        why.
        """
        run = self.run(name)
        try:
            recipe = run.recipe()
            states = run.states(stages(recipe), recipe).values()
        except (UserError, FileNotFoundError) as error:  # not found: a stage was being renamed
            return {"name": name, "about": "", "error": str(error), "stages": []}
        return {
            "name": name,
            "about": recipe.about,
            "error": None,
            "stages": [_row(run, state) for state in states],
        }

    def rollouts(self, name: str, stage: str, at: float) -> list[dict[str, Any]]:
        """Some of what a reinforcement has sampled, at a place in its file between 0, the beginning, and 1, the
        newest. Empty for a stage that samples nothing. Raises MissingInput as `log`.
        """
        for path in self._files(name, stage, ROLLOUTS):
            with contextlib.suppress(FileNotFoundError):
                return _read_groups(path, at)
        return []

    def log(self, name: str, stage: str, start: int) -> LogRows:
        """The rows of a stage's log from byte `start` on; of the running training if there is one. Empty if
        there is no log yet. Raises MissingInput if there is no such run, or the stage trains no model.
        """
        for path in self._files(name, stage, "log.jsonl"):
            with contextlib.suppress(FileNotFoundError):  # also if the stage is being renamed
                return _read_log(path, start)
        return LogRows([], 0, 0)

    def _files(self, name: str, stage: str, file: str) -> tuple[Path, Path]:
        """Where a file of a training may be: in its work folder, in the finished stage."""
        run = self.run(name)
        logged = [each.name for each in stages(run.recipe()) if each.makes]
        if stage not in logged:
            raise MissingInput(f"{stage[:100]!r} writes no log; these do: {', '.join(logged)}")
        return run.work(stage) / file, run.folder(stage) / file


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
    return (
        row
        | {"fingerprint": manifest.fingerprint}
        | {name: getattr(manifest, name) for name in _MANIFEST_FIELDS}
    )


def _read_log(path: Path, start: int) -> LogRows:
    """Whole lines from byte `start` on; from the front if no line begins there, because a training began anew."""
    with open(path, "rb") as file:
        file.seek(max(0, start - 1))
        if start and file.read(1) != b"\n":
            start = 0
        file.seek(start)
        lines = file.read(MAX_LOG_BYTES).split(b"\n")[:-1]
    rows = [
        {key: value for key, value in msgspec.json.decode(line).items() if key != "samples"} for line in lines
    ]
    return LogRows(rows, start, start + sum(len(line) + 1 for line in lines))


def _read_groups(path: Path, at: float) -> list[dict[str, Any]]:
    """Whole lines from a place in the file on, or the last ones. Rows stand in the order of the steps."""
    size = path.stat().st_size
    start = int(at * size) if at < 1 else max(0, size - MAX_ROLLOUT_BYTES)
    with open(path, "rb") as file:
        file.seek(start)
        if start:
            file.readline()  # the rest of a line
        lines = file.read(MAX_ROLLOUT_BYTES).split(b"\n")[:-1]
    if not lines and 0 < at < 1:
        return _read_groups(path, 1.0)
    chosen = lines[-SHOWN_GROUPS:] if at >= 1 else lines[:SHOWN_GROUPS]
    groups = [msgspec.json.decode(line) for line in chosen]
    for group in groups:
        group["problem"]["prompt"] = group["problem"]["prompt"][:SHOWN_CHARACTERS]
        group["replies"] = [reply[:SHOWN_CHARACTERS] for reply in group["replies"]]
    return groups
