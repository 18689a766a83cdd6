"""C++ beside the Python that calls it: compiled for this machine when first needed, and kept for the next time."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from crawltalk.run.machine import cache_folder

_FLAGS = (
    "-O3",
    "-std=gnu++17",
    "-shared",
    "-fPIC",
    "-pthread",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",  # each sum has one order and one rounding, which the code states
)
COMPILERS = ("c++", "g++", "clang++")


class Unavailable(Exception):
    """Why there is no native code for a model or machine."""


def library(source: Path, target: str = "native") -> ctypes.CDLL:
    """The code of a file, compiled for a processor as the compiler's -march names it. Raises Unavailable, with the
    reason.
    """
    code = _library(source, target)
    if isinstance(code, Unavailable):
        raise code
    return code


@cache
def _library(source: Path, target: str) -> ctypes.CDLL | Unavailable:
    """The compiled code, or why there is none: what fails once is not tried again."""
    try:
        return _compiled(source, target)
    except Unavailable as reason:
        return reason


def _compiled(source: Path, target: str) -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))), None)
    if compiler is None:
        raise Unavailable("no C++ compiler was found (g++ or clang++)")
    march = f"-mcpu={target}" if platform.machine() in ("arm64", "aarch64") else f"-march={target}"
    version = subprocess.run([compiler, "--version"], check=False, capture_output=True).stdout
    inputs = (source.read_bytes(), version, repr((_FLAGS, march)).encode(), _processor())
    path = cache_folder() / f"{source.stem}-{hashlib.sha256(b'|'.join(inputs)).hexdigest()[:16]}.so"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if sys.stderr.isatty():
                print(f"compiling {source.stem} for this machine, once (seconds) ...", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = Path(folder) / path.name
                command = [compiler, *_FLAGS, march, "-Wno-psabi", "-o", str(made), str(source)]
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                if done.returncode:
                    raise Unavailable(
                        f"{compiler} failed: {(done.stderr.strip().splitlines() or ['no message'])[0]}"
                    )
                made.replace(path)  # another process may have been quicker: both made the same
        except OSError as error:
            raise Unavailable(f"nothing can be kept in {path.parent}: {error}") from None
    return ctypes.CDLL(str(path))


def _processor() -> bytes:
    """The description of the processor, on which the compiled code depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(
            sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))})
        ).encode()
    except OSError:
        return platform.processor().encode()
