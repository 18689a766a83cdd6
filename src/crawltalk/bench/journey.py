"""bench journey: the whole journey as a user starts it, alone or against another checkout of this project.

Each side is a process of its own, `python -m crawltalk run PRESET` in a fresh folder, with its own source first
on PYTHONPATH and its own cache of compiled code. The sides take turns. A side runs its own preset of that name.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from crawltalk.bench.data import figure
from crawltalk.core.errors import BadInput, UserError
from crawltalk.recipe import Machine
from crawltalk.recipe.machine import derive_machine

JOURNEYS = ("stages", "train_cpu", "memory")
"""Rows that are read off the same journeys."""
ROWS = (*JOURNEYS, "busy", "compile", "tests")
TRAININGS = ("pretrain", "sft")
TINY = """extends = "nano"
[crawl]
articles = 200
[tokens]
flagships = 2
oversample = 2
graded = []
[pretrain]
tokens = 8192
eval_every = 4
[sft]
epochs = 0.2
[evals]
problems = 2
max_tokens = 4
"""
"""A journey through all stages that does next to nothing, so that compiling is most of its first time."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""How threads wait for each other: a side sets what it needs itself, as it has to for its users."""
BUSY = "from crawltalk.run.processes import die_with_parent\ndie_with_parent()\nwhile True:\n    pass\n"


class Cost(NamedTuple):
    """What a command took, its children included."""

    seconds: float
    cpu_seconds: float
    last_line: str


@dataclass(frozen=True)
class Side:
    """A checkout that is measured."""

    checkout: Path
    cache: Path
    """Of compiled code."""

    def command(
        self, words: Sequence[str], folder: Path, *, cache: Path | None = None, allowed: int = 0
    ) -> Cost:
        """Run `python -m WORDS` in a folder. Raises UserError with its last line if its exit code is neither 0 nor
        the allowed one.
        """
        cache = cache or self.cache
        paths = (str(self.checkout / "src"), os.environ.get("PYTHONPATH", ""))
        environment = {name: value for name, value in os.environ.items() if name not in WAITING} | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "XDG_CACHE_HOME": str(cache),
            "NUMBA_CACHE_DIR": str(cache / "numba"),
        }
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            began = time.monotonic()
            child = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=folder, env=environment, stdout=output, stderr=output
            )
            try:
                _, status, used = os.wait4(child.pid, 0)
            except BaseException:
                child.kill()
                child.wait()
                raise
            seconds = time.monotonic() - began
            child.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            last = (output.read().strip().splitlines() or ["no message"])[-1]
        if child.returncode not in (0, allowed):
            raise UserError(f"{' '.join(words)} of {self.checkout} failed: {last}")
        return Cost(seconds, used.ru_utime + used.ru_stime, last)

    def journey(self, preset: str, seed: int = 0, cache: Path | None = None) -> "Journey":
        """A whole journey in a fresh folder."""
        with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as name:
            folder = Path(name)
            words = ("crawltalk", "run", preset, "--out", "run", "--set", f"seed={seed}")
            cost = self.command(words, folder, cache=cache)
            return read_journey(folder / "run", cost)


class Journey(NamedTuple):
    """A journey, measured."""

    cost: Cost
    manifests: dict[str, dict[str, Any]]
    """Of each stage, as it stands in the run: another checkout's may have other fields."""
    scores: dict[str, dict[str, Any]]

    def stage_figures(self) -> dict[tuple[str, str], float]:
        """(stage, unit) -> figure; the stage `all` for the whole."""
        found = {}
        for unit, field, scale, whole in (
            ("s", "seconds", 1.0, sum),
            ("CPU s", "cpu_seconds", 1.0, sum),
            ("MB", "peak_memory_bytes", 1e-6, max),
        ):
            values = {stage: scale * manifest[field] for stage, manifest in self.manifests.items()}
            found |= {(stage, unit): value for stage, value in values.items()}
            found["all", unit] = whole(values.values())
        return found

    def train_cpu_seconds(self) -> float:
        """Of the stages that train."""
        return sum(manifest["cpu_seconds"] for name, manifest in self.manifests.items() if name in TRAININGS)


def read_journey(run: Path, cost: Cost) -> Journey:
    """What a run's folder says."""
    manifests = [json.loads(path.read_bytes()) for path in run.glob("*/manifest.json")]
    scores = run / "evals" / "scores.json"
    return Journey(
        cost,
        {one["stage"]: one for one in sorted(manifests, key=lambda one: one["started"])},
        json.loads(scores.read_bytes()) if scores.exists() else {},
    )


def journey(
    rows: Sequence[str], preset: str, peer: Path | None, runs: int, seed: int | None
) -> Iterator[dict[str, Any]]:
    """The rows of `ROWS` that are asked for, as soon as they are known. Without a peer, `peer` and `ratio` are null.

    `seed`: the only one; if absent, each run has another one, from 0 on. Raises UserError.
    """
    if peer is not None and not (peer / "src" / "crawltalk" / "__init__.py").exists():
        raise BadInput(f"{peer} is no checkout of crawltalk: it has no src/crawltalk")
    if Path(preset).suffix == ".toml":
        preset = str(Path(preset).resolve())
    checkouts = [Path(__file__).parents[3], *([] if peer is None else [peer.resolve()])]
    name = None if peer is None else f"checkout {_commit(peer)}"
    with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as folder:
        sides = [Side(path, Path(folder) / f"cache-{number}") for number, path in enumerate(checkouts)]
        tiny = Path(folder) / "tiny.toml"
        tiny.write_text(TINY)
        colds: list[list[Cost]] = []
        if {*rows} - {"tests"}:  # compiled code is ready, unless that is what is measured
            colds = [[side.journey(str(tiny)).cost] for side in sides]
        if "compile" in rows:
            yield from _compile(sides, colds, str(tiny), runs, name)
        seeds = range(runs) if seed is None else (seed,)
        if {*rows} & {*JOURNEYS}:
            yield from rows_of_journeys(rows, _take_turns(sides, preset, seeds), preset, name)
        if "busy" in rows:
            with busy_core():
                taken = [[one.cost.seconds for one in side] for side in _take_turns(sides, preset, seeds)]
            yield _row(f"busy.{preset}", "s", taken, name)
        if "tests" in rows:
            yield from _tests(sides, name)


def _take_turns(sides: Sequence[Side], preset: str, seeds: Sequence[int]) -> list[list[Journey]]:
    """The journeys of each side, which take turns in being the first of a round."""
    found: list[list[Journey]] = [[] for _ in sides]
    for turn, seed in enumerate(seeds):
        for number in sorted(range(len(sides)), reverse=turn % 2 == 0):
            found[number].append(sides[number].journey(preset, seed))
    return found


def _row(what: str, unit: str, sides: Sequence[Sequence[float]], peer_name: str | None) -> dict[str, Any]:
    theirs = sides[1] if len(sides) > 1 else None
    return figure(f"journey.{what}", unit, sides[0], theirs, peer_name, derive_machine(Machine()).workers)


def rows_of_journeys(
    rows: Sequence[str], sides: list[list[Journey]], preset: str, peer_name: str | None
) -> Iterator[dict[str, Any]]:
    """What is read off whole journeys, ours and the peer's."""
    if "train_cpu" in rows:
        trained = [[one.train_cpu_seconds() for one in side] for side in sides]
        yield _row("train_cpu", "CPU s", trained, peer_name)
        for score, first in sides[0][0].scores.items():
            if all(score in one.scores for side in sides for one in side):
                values = [[one.scores[score]["score"] for one in side] for side in sides]
                means = dict(
                    zip(("ours", "peer"), (round(statistics.mean(v), 4) for v in values), strict=False)
                )
                about = "; ".join(filter(None, (peer_name, f"means over seeds; {first['about']}")))
                yield _row(f"scores.{score}", "score", values, about) | means | {"ratio": None}
    figures = [[one.stage_figures() for one in side] for side in sides]
    if "memory" in rows:
        yield _row("memory", "MB", [[one["all", "MB"] for one in side] for side in figures], peer_name)
    if "stages" in rows:
        for key in figures[0][0]:
            values = [[one[key] for one in side if key in one] for side in figures]
            yield _row(f"{preset}.{key[0]}", key[1], [side for side in values if side], peer_name)


def _compile(
    sides: Sequence[Side], colds: list[list[Cost]], tiny: str, runs: int, peer_name: str | None
) -> Iterator[dict[str, Any]]:
    """What the first call in an empty cache takes beyond the second. Where a stage compiles while others work,
    seconds say what was not hidden.
    """
    warms: list[list[Cost]] = [[] for _ in sides]
    for turn in range(runs):
        for number, side in enumerate(sides):
            warms[number].append(side.journey(tiny).cost)
            if turn:
                with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as empty:
                    colds[number].append(side.journey(tiny, cache=Path(empty)).cost)
    for unit, field in (("CPU s", "cpu_seconds"), ("s", "seconds")):
        beyond = [
            [getattr(a, field) - getattr(b, field) for a, b in zip(*pair, strict=True)]
            for pair in zip(colds, warms, strict=True)
        ]
        yield _row("compile", unit, beyond, peer_name)


def _tests(sides: Sequence[Side], peer_name: str | None) -> Iterator[dict[str, Any]]:
    """Each side's whole test suite, once; the row says how it ended. PYTEST_ADDOPTS can choose some of the tests."""
    failed = 1  # pytest's exit code when tests failed
    costs = [side.command(["pytest"], side.checkout, allowed=failed) for side in sides]
    ends = "; ".join(
        f"{who}: {cost.last_line.strip('= ')}" for who, cost in zip(("ours", "peer"), costs, strict=False)
    )
    about = "; ".join(filter(None, (peer_name, ends)))
    for unit, field in (("s", "seconds"), ("CPU s", "cpu_seconds")):
        yield _row("tests", unit, [[getattr(cost, field)] for cost in costs], about)


@contextlib.contextmanager
def busy_core() -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps one core busy until the end of the block, or of this process."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _commit(checkout: Path) -> str:
    """The commit of a checkout; its folder's name if git does not know it."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return checkout.resolve().name
