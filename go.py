#!/usr/bin/env python3
"""Two commands on a bare machine (Python 3.11 and pip; nothing else):

    python3 go.py            set up .venv, then the whole journey: crawltalk run small
    python3 go.py test       set up .venv, then every check and test
    python3 go.py VERB ...   set up .venv, then crawltalk VERB ...

The set-up is done once: a stamp (hash of pyproject.toml, constraints.txt and this file) makes later calls
start at once. Standard library only. On a machine without an NVIDIA driver no CUDA package is ever installed
(ALLOW_CUDA=1 lifts that).
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TORCH = "torch==2.13.0"
CHECKS = (
    ("ruff check", "ruff", "check", "."),
    ("ruff format", "ruff", "format", "--check", "."),
    ("pyrefly", "pyrefly", "check"),
    ("import-linter", "importlinter.cli", "lint-imports"),
    # a file at a time to each core, in the order of tests/conftest.py; a process takes up to 2 GB of memory
    ("pytest", "pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"),
)
BEGAN = time.monotonic()


def say(text: str) -> None:
    """One line with the seconds since the start, on standard error: standard output is the verb's own."""
    print(f"[{time.monotonic() - BEGAN:5.1f} s] {text}", file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """Print what the user can do, and exit with code 2."""
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)


def call(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command quietly; if it fails, show the end of its output."""
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if check and done.returncode != 0:
        print(done.stdout[-3000:], file=sys.stderr)
        fail(
            f"{' '.join(map(str, command[:6]))} ... failed (the end of its output is above); "
            "mend that and run the same command again"
        )
    return done


def pip(*words: str | Path) -> None:
    """pip install into the environment, with the tested versions."""
    call(
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        ROOT / "constraints.txt",
        *words,
    )


def has_nvidia_driver() -> bool:
    """Whether the CUDA build of torch would be of use here."""
    return Path("/proc/driver/nvidia/version").exists()


def install_torch() -> None:
    """Without a GPU: the CPU build, from torch's own index through uv, else whatever pip offers if it is free
    of CUDA.
    """
    if sys.platform != "linux" or has_nvidia_driver() or os.environ.get("ALLOW_CUDA") == "1":
        pip(TORCH)
        return
    pip("uv")
    quick = {**os.environ, "UV_HTTP_TIMEOUT": "60", "UV_HTTP_RETRIES": "0"}
    command = [
        PYTHON,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        PYTHON,
        "--torch-backend=cpu",
        TORCH,
    ]
    if (
        subprocess.run(
            command, check=False, env=quick, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode
        == 0
    ):
        return
    say("the index of CPU builds cannot be reached; looking at what pip would install")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        call(
            PYTHON,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--report",
            report,
            "-c",
            ROOT / "constraints.txt",
            TORCH,
        )
        names = [
            item["metadata"]["name"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]
        ]
    cuda = [name for name in names if name.lower().startswith(("nvidia", "cuda"))]
    if cuda:
        fail(
            f"pip would install {len(cuda)} CUDA packages (gigabytes), such as {cuda[0]}, "
            "on a machine without an NVIDIA driver; "
            f"install a CPU build of {TORCH} yourself ({PYTHON} -m pip install WHEEL) and give the same command again, "
            "or allow them with ALLOW_CUDA=1"
        )
    pip(TORCH)


def set_up(group: str) -> None:
    """Make the environment, unless its stamp says that it is up to date."""
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__)]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    stamp = VENV / f"stamp-{group}"
    if stamp.exists() and stamp.read_text() == digest and PYTHON.exists():
        return
    if not (VENV / "stamp-run").exists() and not (VENV / "stamp-test").exists():
        say("setting up .venv (once; a minute or two)")
    if not PYTHON.exists() or call(PYTHON, "-m", "pip", "--version", check=False).returncode != 0:
        made = call(sys.executable, "-m", "venv", "--clear", VENV, check=False)
        if made.returncode != 0:
            print(made.stdout[-2000:], file=sys.stderr)
            fail("python3 -m venv does not work here; on Debian and Ubuntu: apt-get install python3-venv")
    say("1/3 pip")
    pip("--upgrade", "pip")  # dependency groups need pip 25.1
    if call(PYTHON, "-c", "import torch", check=False).returncode != 0:
        say("2/3 torch")
        install_torch()
    say("3/3 crawltalk and the libraries that it needs")
    pip(
        "--editable",
        f"{ROOT}[sample]",
        *(["--group", f"{ROOT / 'pyproject.toml'}:test"] if group == "test" else []),
    )
    stamp.write_text(digest)
    say("set up; for the command crawltalk: source .venv/bin/activate (or write python3 go.py in its place)")


def test(words: list[str]) -> int:
    """Every check, then the tests; all of them run even if one fails. `words` go to pytest."""
    failed = []
    for name, module, *arguments in CHECKS:
        say(name)
        code = "import sys; from importlinter.cli import lint_imports_command as main; sys.exit(main())"
        command = [PYTHON, "-c", code] if name == "import-linter" else [PYTHON, "-m", module, *arguments]
        if (
            subprocess.run([*command, *(words if name == "pytest" else [])], check=False, cwd=ROOT).returncode
            != 0
        ):
            failed.append(name)
    say(f"failed: {', '.join(failed)}" if failed else "all green")
    return 1 if failed else 0


def main(words: list[str]) -> int:
    """Set up, then run the tests or the verb."""
    if sys.version_info < (3, 11):  # noqa: UP036 (this very check is for older ones)
        fail(f"crawltalk needs Python 3.11 or later, this is {sys.version.split()[0]}; try: python3.11 go.py")
    set_up("test" if words[:1] == ["test"] else "run")
    if words[:1] == ["test"]:
        return test(words[1:])
    try:
        return subprocess.run(
            [PYTHON, "-m", "crawltalk", *(words or ["run", "small"])], check=False
        ).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
