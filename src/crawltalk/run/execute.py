"""Building stages: each in a child process, its events passed on, its manifest written when it is done."""

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
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import StageCrashed, UserError
from crawltalk.core.files import write_atomically
from crawltalk.recipe import Recipe
from crawltalk.recipe.machine import derive_machine
from crawltalk.run.child import JobMessage
from crawltalk.run.folder import WORK, RunFolder, StageState
from crawltalk.run.machine import EnergyMeter, describe_host
from crawltalk.run.manifest import Manifest, hash_files, installed_versions
from crawltalk.run.stage import ModelKind, Stage

USAGE = "usage.json"
OnEvent = Callable[[dict[str, Any]], None]
PACKAGES = ("crawltalk", "torch", "numpy", "pyarrow", "fastwarc", "resiliparse", "tiktoken")
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Environment variables that torchrun sets; hidden from stages that do not train on all ranks."""

DEFAULTS = {
    # glibc: keep freed buffers, instead of handing large ones back and faulting them in again (training: 5 % faster)
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    # a thread of OpenMP that waits gives its core to others: see "Threads that spin" in EXPERIMENTS.md
    "OMP_WAIT_POLICY": "passive",
}
"""Environment variables of a stage's process, where the user has set no others."""


class Usage(msgspec.Struct, kw_only=True):
    """What a stage has used so far, over all attempts. An attempt is lost if this process was killed with it."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    attempts: int = 0
    joules: float = 0.0


def build(
    run: RunFolder,
    stages: Sequence[Stage],
    names: Sequence[str],
    recipe: Recipe,
    on_event: OnEvent,
    broadcast: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Build the named stages, in order, where they are not fresh. Upstream stages outside `names` must be
    fresh.

    `on_event` gets one dict per event: plan, start, progress, note, warning, finish; `broadcast` gets the job of a
    stage that trains on all ranks, for `build_on_rank` there. Raises the stage's UserError, or StageCrashed;
    finished stages and partial work are kept.
    """
    with run.lock():
        run.recover()
        run.write_recipe(recipe)
        states = run.states(stages, recipe)
        on_event({"event": "plan", "stages": {name: states[name].state for name in names}})
        for name in names:
            state = states[name]
            if state.state in ("fresh", "borrowed"):
                on_event({"event": "skip", "stage": name, **_figures(state.manifest)})
                continue
            for upstream in state.stage.inputs:
                if upstream not in names and states[upstream].state not in ("fresh", "borrowed"):
                    why = f" ({states[upstream].reasons[0]})" if states[upstream].reasons else ""
                    verb = "crawl" if upstream == "crawl" else "run"
                    raise UserError(
                        f"{upstream} of {run.path} is {states[upstream].state}{why}; "
                        f"build it with: crawltalk {verb} {run.path}"
                    )
            on_event({"event": "start", "stage": name, "state": state.state, "reasons": list(state.reasons)})
            makes = {upstream: states[upstream].stage.makes for upstream in state.stage.inputs}
            models = {upstream: kind for upstream, kind in makes.items() if kind is not None}
            manifest = _build_one(
                run, state, models, recipe, on_event, broadcast if state.stage.ranks else None
            )
            on_event({"event": "finish", "stage": name, **_figures(manifest)})


def _figures(manifest: Manifest | None) -> dict[str, Any]:
    assert manifest is not None
    names = ("seconds", "cpu_seconds", "peak_memory_bytes", "metrics")
    return {name: getattr(manifest, name) for name in names}


def build_on_rank(job: dict[str, Any]) -> None:
    """Run a job that rank 0 broadcasts, on another rank. If it fails, rank 0 fails too and reports it; the reason
    is in this rank's log.
    """
    message = msgspec.convert(job, JobMessage)
    log = Path(message.out).with_name(f"{message.stage}.rank-{os.environ.get('RANK', '')}.log")
    _run_child(log, message, lambda event: None)


def _build_one(
    run: RunFolder,
    state: StageState,
    models: dict[str, ModelKind],
    recipe: Recipe,
    on_event: OnEvent,
    broadcast: Callable[[dict[str, Any]], None] | None,
) -> Manifest:
    stage = state.stage
    work = run.open_work(state)
    usage = _read_usage(work)
    beside = run.beside(stage)
    message = JobMessage(
        stage=stage.name,
        section=stage.kind,
        function=stage.function,
        config=asdict(stage.config(recipe)),
        inputs={name: str(run.folder(name)) for name in stage.inputs},
        models=models,
        beside={name: str(run.path / name) for name in beside},
        out=str(work),
        seed=recipe.seed,
        machine=asdict(derive_machine(recipe.machine)),
    )
    started, clock, meter = datetime.now(UTC), time.monotonic(), EnergyMeter()
    if broadcast is not None:
        broadcast(msgspec.to_builtins(message))
    log = run.path / WORK / f"{stage.name}.log"
    last, returncode, resources = _run_child(log, message, on_event, alone=broadcast is None)
    usage.seconds += time.monotonic() - clock
    usage.cpu_seconds += resources.ru_utime + resources.ru_stime
    # bytes on macOS, KiB elsewhere
    peak = resources.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    usage.peak_memory_bytes = max(usage.peak_memory_bytes, peak)
    usage.attempts += 1
    usage.joules += meter.joules() or 0.0
    if returncode != 0 or last.get("event") != "done":
        with contextlib.suppress(OSError):  # a full disk: the stage's own message matters more
            write_atomically(work / USAGE, msgspec.json.encode(usage))
        _raise_failure(state, recipe, last, returncode, run)
    (work / USAGE).unlink(missing_ok=True)
    rate = recipe.machine.dollars_an_hour
    manifest = Manifest(
        stage=stage.name,
        version=stage.version,
        fingerprint=state.fingerprint,
        config=state.config,
        inputs={name: _input_fingerprint(run, name) for name in stage.inputs} | beside,
        files=hash_files(work),
        metrics=last["metrics"],
        started=started.isoformat(timespec="seconds"),
        seconds=round(usage.seconds, 3),
        cpu_seconds=round(usage.cpu_seconds, 3),
        peak_memory_bytes=usage.peak_memory_bytes,
        attempts=usage.attempts,
        joules=round(usage.joules) or None,
        dollars=None if rate is None else round(usage.seconds / 3600 * rate, 4),
        versions={"python": ".".join(map(str, sys.version_info[:3])), **installed_versions(PACKAGES)},
        host=describe_host(),
    )
    run.close_work(state, manifest)
    return manifest


def _read_usage(work: Path) -> Usage:
    path = work / USAGE
    return msgspec.json.decode(path.read_bytes(), type=Usage) if path.exists() else Usage()


def _input_fingerprint(run: RunFolder, stage: str) -> str:
    manifest = run.manifest(stage)
    assert manifest is not None, stage
    return manifest.fingerprint


def _run_child(
    log: Path, message: JobMessage, on_event: OnEvent, *, alone: bool = False
) -> tuple[dict[str, Any], int, Any]:
    """Start the child and pass its events on. Returns its last event, exit code and resource usage."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "crawltalk.run.child", str(write_end)]
    hidden = RANKS if alone else ()
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    threads = {"OMP_NUM_THREADS": str(message.machine["workers"])}  # libraries see no quota of CPU time
    with open(log, "wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(write_end,),
            env=DEFAULTS | threads | environment,
        )
    os.close(write_end)
    last: dict[str, Any] = {}
    try:
        assert child.stdin is not None
        child.stdin.write(msgspec.json.encode(message))
        child.stdin.close()
        with os.fdopen(read_end, encoding="utf-8") as events:
            for line in events:
                last = json.loads(line)
                if last["event"] in ("progress", "note", "warning"):
                    on_event(last)
    except BaseException:
        child.kill()
        child.wait()
        raise
    _, status, resources = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return last, child.returncode, resources


def _raise_failure(
    state: StageState, recipe: Recipe, last: dict[str, Any], returncode: int, run: RunFolder
) -> None:
    stage, rescued = state.stage, run.rescue(state)
    if returncode == 2 and last.get("event") == "error":
        resume = f"; to resume from before it: --{stage.key(recipe)}.resume_from {rescued}" if rescued else ""
        raise UserError(last["text"] + resume)
    again = f"the partial work is kept; continue with: crawltalk run {run.path}"
    if returncode < 0:
        name = signal.Signals(-returncode).name
        why = " (often: out of memory)" if -returncode == signal.SIGKILL else ""
        raise StageCrashed(f"{stage.name} was ended by {name}{why}; {again}")
    log = run.path / WORK / f"{stage.name}.log"
    raise StageCrashed(
        f"{log.read_text(errors='replace')[-4000:]}\n{stage.name} failed (see above; full log: {log}); {again}"
    )
