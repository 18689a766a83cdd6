"""Fixtures: a toy pipeline, and one nano run that all slow tests share; and the order of the files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from crawltalk.run.stage import Stage
from crawltalk.verbs.compiling import NEEDS, compiling_ahead
from support.toy_stages import TOY

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
"""Threads of OpenMP give their core up soon when they wait for each other. By default they spin, and on a machine
that does other work, too, a training of two threads on two cores takes many times as long (EXPERIMENTS.md).
"""
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))
)
"""Child processes find `support`, too."""

# The same examples each time, however busy the machine: a test fails because of a change. For new ones:
# pytest --hypothesis-profile default
settings.register_profile("the same", derandomize=True, deadline=None)
settings.load_profile("the same")


def pytest_configure(config: pytest.Config) -> None:
    """Processes that share the tests (`pytest -n`) find compiled what each of them would compile for itself. They heed
    Ctrl-C: xdist has them ignore it, and all that they start would, too.
    """
    if hasattr(config, "workerinput"):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    elif getattr(config.option, "numprocesses", None):
        with compiling_ahead(lambda event: None) as on_event:
            on_event({"event": "plan", "stages": dict.fromkeys(NEEDS, "absent")})
            for stage in NEEDS:
                on_event({"event": "start", "stage": stage})


@pytest.fixture
def toy() -> tuple[Stage, ...]:
    """A pipeline of two stages that take milliseconds; children find it through PYTHONPATH."""
    return TOY


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole journey at nano scale; look at it, and change a copy. Processes that share the tests
    (`pytest -n`) share it, too: the first one builds it, and the others wait for it.
    """
    import fcntl  # not on Windows

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    command = [sys.executable, "-m", "crawltalk", "run", "nano", "--out", str(folder / "nano")]
    with open(folder / "nano.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / "nano.done").exists():
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            assert "crawltalk chat --model" in done.stdout + done.stderr, done.stderr
            (folder / "nano.done").touch()
    return folder / "nano"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in an order that keeps the cores of `pytest -n` busy to the end: the journey first, which builds the
    shared run; then files of slow tests, those that wait for this run last; then all others.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)

    def turn(file: Path) -> int:
        if file.name == "test_journey.py":
            return 0
        if any("nano" in item.fixturenames for item in files[file]):
            return 2
        return 1 if any(item.get_closest_marker("slow") for item in files[file]) else 3

    items[:] = [item for file in sorted(files, key=turn) for item in files[file]]
