"""Running a judge: for a limited time, with nothing left of it afterwards."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from crawltalk.core.printable import printable

_LAST_SECONDS = 5.0
"""From the request to end until the end is forced."""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_ROOT = str(Path(__file__).parents[2])
_START = """
import os, sys
from crawltalk.run.processes import die_with_parent
die_with_parent()
del os.environ["PYTHONPATH"]
os.execv(sys.argv[1], sys.argv[1:])
"""
"""What becomes the judge: a process that does not outlive ours and sees none of our modules."""


class Ended(NamedTuple):
    """How a process came to its end."""

    seconds: float
    problem: str
    """Empty if it ended by itself and without an error."""


def environment(folder: Path, *, online: bool, **variables: str) -> dict[str, str]:
    """The variables of a judge's process. Its caches and settings go into `folder`; nothing is downloaded, unless
    `online`. The seed of hashes makes two runs ask the same, even if sets are drawn from.
    """
    homes = {
        f"XDG_{kind}_HOME": str((folder / kind.lower()).resolve()) for kind in ("DATA", "CACHE", "CONFIG")
    }
    kept = {
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",
        "HF_HOME": homes["XDG_CACHE_HOME"],
    }
    return {**os.environ, **homes, **kept, **({} if online else _OFFLINE), **variables}


def run(
    command: Sequence[str], *, folder: Path, log: Path, seconds: float, variables: Mapping[str, str]
) -> Ended:
    """Run a command in `folder`, its output in `log`, for so many seconds at most. It and all that it has started is
    ended then, and also when this process is interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    own = {name: value for name, value in variables.items() if name != "PYTHONPATH"}
    if linux := sys.platform == "linux":
        own["PYTHONPATH"] = _ROOT
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, *command] if linux else command,
            cwd=folder,
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return Ended(time.monotonic() - began, f"it was ended after {seconds:.0f} seconds")
        finally:
            _end(process)
    problem = "" if code == 0 else f"it ended with status {code}: {last_line(log)}"
    return Ended(time.monotonic() - began, problem)


def last_line(log: Path) -> str:
    """The last line of a log that is not blank: of a Python program that failed, the error."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return printable(lines[-1], 300) if lines else "it wrote nothing"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and its group, gently at first."""
    if not hasattr(os, "killpg"):  # Windows
        process.kill()
        process.wait()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + _LAST_SECONDS
        while number is signal.SIGTERM and time.monotonic() < deadline and _alive(process.pid):
            process.poll()
            time.sleep(0.02)
    process.wait()


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
