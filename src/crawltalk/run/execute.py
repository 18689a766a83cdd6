"""Builds stages: each in a child process, its events passed to a console, its manifest written when it is
done.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import StageCrashed, UserError
from crawltalk.core.files import write_atomically
from crawltalk.recipe import Recipe
from crawltalk.recipe.machine import derive_machine
from crawltalk.run.folder import WORK, RunFolder, StageState
from crawltalk.run.machine import EnergyMeter, describe_host
from crawltalk.run.manifest import Manifest, hash_files
from crawltalk.run.stage import Stage

Listener = Callable[[dict[str, Any]], None]
PACKAGES = ("crawltalk", "torch", "numpy", "pyarrow", "fastwarc", "resiliparse", "tiktoken")

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
"""glibc: keep freed buffers, instead of handing large ones back and faulting them in again (training: 5 %
faster).
"""


def build(
    run: RunFolder,
    stages: Sequence[Stage],
    names: Sequence[str],
    recipe: Recipe,
    listen: Listener,
    share: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Build the named stages, in order, where they are not fresh. Upstream stages outside `names` must be
    fresh.

    `listen` gets one dict per event: plan, start, progress, note, warning, finish; `share` the order of a
    stage that trains on all ranks. Raises the stage's UserError, or StageCrashed; finished stages and partial
    work are kept.
    """
    with run.lock():
        run.recover()
        run.write_recipe(recipe)
        states = run.states(stages, recipe)
        listen({"event": "plan", "stages": {name: states[name].state for name in names}})
        for name in names:
            state = states[name]
            if state.state in ("fresh", "borrowed"):
                listen({"event": "skip", "stage": name, **_figures(state.manifest)})
                continue
            for upstream in state.stage.inputs:
                if upstream not in names and states[upstream].state not in ("fresh", "borrowed"):
                    why = f" ({states[upstream].reasons[0]})" if states[upstream].reasons else ""
                    raise UserError(
                        f"{upstream} of {run.path} is {states[upstream].state}{why}; build it with: crawltalk run {run.path}"
                    )
            listen({"event": "start", "stage": name, "state": state.state, "reasons": list(state.reasons)})
            manifest = _build_one(run, state, recipe, listen, share if state.stage.ranks else None)
            listen({"event": "finish", "stage": name, **_figures(manifest)})


def _figures(manifest: Manifest | None) -> dict[str, Any]:
    assert manifest is not None
    names = ("seconds", "cpu_seconds", "peak_memory_bytes", "metrics")
    return {name: getattr(manifest, name) for name in names}


def perform_beside(order: dict[str, Any]) -> None:
    """Perform an order that rank 0 shares, on another rank. If that fails, so does rank 0, which says so; the
    log keeps the reason.
    """
    log = Path(order["out"]).with_name(f"{order['stage']}.rank-{os.environ.get('RANK', '')}.log")
    _run_child(log, order, lambda event: None)


def _build_one(
    run: RunFolder,
    state: StageState,
    recipe: Recipe,
    listen: Listener,
    share: Callable[[dict[str, Any]], None] | None,
) -> Manifest:
    stage = state.stage
    work = run.open_work(state)
    spent = _read_spent(work)
    order = {
        "stage": stage.name,
        "function": stage.function,
        "config": asdict(getattr(recipe, stage.name)),
        "inputs": {name: str(run.folder(name)) for name in stage.inputs},
        "out": str(work),
        "seed": recipe.seed,
        "machine": asdict(derive_machine(recipe.machine)),
    }
    started, clock, meter = datetime.now(UTC), time.monotonic(), EnergyMeter()
    if share is not None:
        share(order)
    last, returncode, usage = _run_child(run.path / WORK / f"{stage.name}.log", order, listen)
    spent = [
        spent[0] + time.monotonic() - clock,
        spent[1] + usage.ru_utime + usage.ru_stime,
        # bytes on macOS, KiB elsewhere
        max(spent[2], usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)),
        spent[3] + 1,
        spent[4] + (meter.joules() or 0.0),
    ]
    if returncode != 0 or last.get("event") != "done":
        with contextlib.suppress(OSError):  # a full disk: what the stage says of it matters more
            write_atomically(work / "spent.json", json.dumps(spent).encode())
        _raise_failure(stage.name, last, returncode, run, run.rescue(state))
    (work / "spent.json").unlink(missing_ok=True)
    rate = recipe.machine.dollars_an_hour
    manifest = Manifest(
        stage=stage.name,
        version=stage.version,
        fingerprint=state.fingerprint,
        config=state.config,
        inputs={name: _input_fingerprint(run, name) for name in stage.inputs},
        files=hash_files(work),
        metrics=last["metrics"],
        started=started.isoformat(timespec="seconds"),
        seconds=round(spent[0], 3),
        cpu_seconds=round(spent[1], 3),
        peak_memory_bytes=int(spent[2]),
        attempts=int(spent[3]),
        joules=round(spent[4]) or None,
        dollars=None if rate is None else round(spent[0] / 3600 * rate, 4),
        versions=_versions(),
        host=describe_host(),
    )
    run.close_work(state, manifest)
    return manifest


def _read_spent(work: Path) -> list[float]:
    """Seconds, CPU seconds, peak bytes, count and joules of the earlier attempts; one that took this process
    along is lost.
    """
    path = work / "spent.json"
    return json.loads(path.read_text()) if path.exists() else [0.0, 0.0, 0, 0, 0.0]


def _input_fingerprint(run: RunFolder, stage: str) -> str:
    manifest = run.manifest(stage)
    assert manifest is not None, stage
    return manifest.fingerprint


def _run_child(log: Path, order: dict[str, Any], listen: Listener) -> tuple[dict[str, Any], int, Any]:
    """Start the child, pass its events on; its last event, exit code and resource usage."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "crawltalk.run.child", str(write_end)]
    with open(log, "wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(write_end,),
            env=MALLOC | os.environ,
        )
    os.close(write_end)
    last: dict[str, Any] = {}
    try:
        assert child.stdin is not None
        child.stdin.write(msgspec.json.encode(order))
        child.stdin.close()
        with os.fdopen(read_end, encoding="utf-8") as events:
            for line in events:
                last = json.loads(line)
                if last["event"] in ("progress", "note", "warning"):
                    listen(last)
    except BaseException:
        child.kill()
        child.wait()
        raise
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return last, child.returncode, usage


def _raise_failure(
    stage: str, last: dict[str, Any], returncode: int, run: RunFolder, rescued: Path | None
) -> None:
    if returncode == 2 and last.get("event") == "error":
        raise UserError(
            last["text"] + (f"; from where it was well: --{stage}.start {rescued}" if rescued else "")
        )
    again = f"the partial work is kept; go on with: crawltalk run {run.path}"
    if returncode < 0:
        name = signal.Signals(-returncode).name
        why = " (often: out of memory)" if -returncode == signal.SIGKILL else ""
        raise StageCrashed(f"{stage} was ended by {name}{why}; {again}")
    log = run.path / WORK / f"{stage}.log"
    raise StageCrashed(
        f"{log.read_text(errors='replace')[-4000:]}\n{stage} failed (above; all of it in {log}); {again}"
    )


def _versions() -> dict[str, str]:
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # a minimal installation may lack a stage's library
            continue
    return versions
