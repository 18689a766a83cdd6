"""Python in a process of its own that the kernel confines (Linux).

Before the first run it is found out which layers the system grants; they are asked for in each run, and a run in
which one of them fails does not begin:

    namespaces   an own pid, network, mount, IPC and host name space: no process, network or file of the host is there
    Landlock     no file is opened but Python's libraries and an own folder; no TCP
    seccomp      no sockets, new processes, signals, or changes of permissions; nothing that administers the machine
    limits       memory, CPU seconds, files, threads; wall-clock seconds and output are watched from outside

Namespaces, or Landlock with seccomp, are enough for a program to run: the latter are what is left in most containers,
where namespaces are forbidden. Then there is no folder to write to, and a program can still learn which files there are
and how large, since Landlock does not hide that. With less it is refused.
"""

import contextlib
import json
import os
import platform
import select
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crawltalk.core.errors import UserError
from crawltalk.tools.sandbox.outcome import MAX_CODE, Limits, Outcome

NAME = "CPython"
START_SECONDS = 5.0
"""Until a program begins; only then its own time does."""
_CONFINE = Path(__file__).with_name("confine.py")
_LIBRARIES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/dev/null",
)
_ENVIRONMENT = {"LANG": "C.UTF-8", "HOME": "/tmp", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class NotConfined(UserError):
    """This system cannot keep a program in."""


@dataclass(frozen=True)
class Layers:
    """What keeps a program in, beside its limits."""

    namespaces: bool
    landlock: bool
    seccomp: bool

    @property
    def enough(self) -> bool:
        """Whether a program may run behind them."""
        return self.namespaces or (self.landlock and self.seccomp)

    def named(self) -> tuple[str, ...]:
        """Their names."""
        names = {"namespaces": self.namespaces, "Landlock": self.landlock, "seccomp": self.seccomp}
        return (*(name for name, active in names.items() if active), "limits")


class CPythonSandbox:
    """Runs programs, each in a process of its own."""

    def __init__(self, limits: Limits | None = None, layers: Layers | None = None) -> None:
        """`layers` None: all that the system grants. Raises NotConfined if they are not enough."""
        self.limits = limits or Limits()
        self._asked = layers
        if not self.active.enough:
            raise NotConfined(f"a program cannot be kept in here: {self._reason}; use python:monty instead")

    @cached_property
    def active(self) -> Layers:
        """The layers of each run."""
        self._reason = "this takes Linux"
        if sys.platform != "linux":
            return Layers(False, False, False)
        if self._asked is not None:
            self._reason = f"only {', '.join(self._asked.named())} are asked for"
            return self._asked
        from crawltalk.tools.sandbox import confine

        landlock, seccomp = confine.landlock_version() > 0, platform.machine() in confine._ARCHITECTURES
        try:
            self._execute("None", Layers(True, landlock, seccomp))
        except NotConfined as error:
            self._reason = f"{error}, and Landlock {'has' if landlock else 'lacks'} the kernel's support"
            return Layers(False, landlock, seccomp)
        return Layers(True, landlock, seccomp)

    @property
    def layers(self) -> tuple[str, ...]:
        """What keeps a program in."""
        return self.active.named()

    def run(self, code: str) -> Outcome:
        """Run a program. Raises NotConfined if a layer has failed since the start."""
        return self._execute(code, self.active)

    def close(self) -> None:
        """Nothing outlives a run."""

    def _execute(self, code: str, layers: Layers) -> Outcome:
        if len(code) > MAX_CODE:
            return Outcome(output="", problem=f"the program has more than {MAX_CODE:,} characters")
        reading, writing = os.pipe()
        packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        request = {
            "code": code,
            "status": writing,
            "namespaces": layers.namespaces,
            "landlock": layers.landlock,
            "seccomp": layers.seccomp,
            "seconds": self.limits.seconds,
            "wall": self.limits.wall,
            "memory": self.limits.memory,
            "files": self.limits.files,
            "processes": self.limits.processes,
            "readable": _readable(packages),
            "packages": packages,
        }
        try:
            with tempfile.TemporaryFile() as file:
                file.write(json.dumps(request).encode("utf-8", "replace"))
                file.seek(0)
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-B", "-u", "-X", "utf8", str(_CONFINE)],
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writing,),
                    env=_ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
        finally:
            os.close(writing)
        try:
            return self._watch(process, reading)
        finally:
            _end(process)
            os.close(reading)

    def _watch(self, process: "subprocess.Popen[bytes]", status: int) -> Outcome:
        """Read the output to its end, or to the end of the program's time."""
        assert process.stdout is not None
        select.select([status], [], [], START_SECONDS)
        deadline = time.monotonic() + self.limits.wall
        pipe, output = process.stdout.fileno(), b""
        problem = ""
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                problem = f"the program was ended after {self.limits.wall:g} s"
                break
            piece = os.read(pipe, 65_536)
            output += piece
            if len(output) > self.limits.output:
                problem = f"the program was ended: it wrote more than {self.limits.output:,} bytes"
                break
            if not piece:
                try:
                    code = process.wait(max(0.01, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    problem = f"the program was ended after {self.limits.wall:g} s"
                    break
                problem = _ending(code)
                break
        _end(process)
        text = output[: self.limits.output].decode("utf-8", "replace")
        _check_status(_read_status(status), text)
        if not problem.startswith("it raised"):
            return Outcome(output=text, problem=problem, truncated=len(output) > self.limits.output)
        lines = text.strip().splitlines()
        return Outcome(output=text, problem=lines[-1] if lines else problem)


def _readable(packages: list[str]) -> list[str]:
    """The paths of Python's libraries, none within another; a symbolic link stands for itself."""
    own = [
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        os.path.join(sys.base_prefix, "lib"),
        *packages,
    ]
    paths = sorted(path for path in {*_LIBRARIES, *own} if os.path.exists(path))
    kept: list[str] = []
    for path in paths:
        if not any(path.startswith(other + "/") for other in kept if not os.path.islink(other)):
            kept.append(path)
    return kept


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill the process and its group; with it die all that are in its namespace."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _read_status(status: int) -> bytes:
    """What the child wrote before the program began: it is there, or never will be."""
    ready, _, _ = select.select([status], [], [], 0)
    return os.read(status, 4096) if ready else b""


def _check_status(status: bytes, output: str) -> None:
    """Raises NotConfined unless every layer stood when the program began."""
    try:
        said = (
            json.loads(status) if status else {"error": output.strip()[-300:] or "it did not start in time"}
        )
    except ValueError:
        said = {"error": "it ended too early"}
    if not said.get("ready"):
        raise NotConfined(f"no namespaces or limits for a process ({said.get('error')})")


def _ending(code: int) -> str:
    """How a program ended, if not well."""
    number = -code if code < 0 else code - 128
    if number > 0:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = str(number)
        return f"the program was ended by {name}"
    return "it raised" if code else ""
