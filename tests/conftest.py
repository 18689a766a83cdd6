"""Fixtures: a toy pipeline, and one nano run that all slow tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from crawltalk.run.stage import Stage
from support.toy_stages import TOY

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
"""Threads of OpenMP give their core up soon when they wait for each other. By default they spin, and on a machine
that does other work, too, a training of two threads on two cores takes many times as long (EXPERIMENTS.md).
"""
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))
)
"""Child processes find `support`, too."""

# The same examples each time: a test fails because of a change. For new ones: pytest --hypothesis-profile default
settings.register_profile("the same", derandomize=True)
settings.load_profile("the same")


@pytest.fixture
def toy() -> tuple[Stage, ...]:
    """A pipeline of two stages that take milliseconds; children find it through PYTHONPATH."""
    return TOY


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole journey at nano scale; look at it, and change a copy."""
    path = tmp_path_factory.mktemp("runs") / "nano"
    command = [sys.executable, "-m", "crawltalk", "run", "nano", "--out", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "crawltalk chat --model" in done.stdout + done.stderr, done.stderr
    return path
