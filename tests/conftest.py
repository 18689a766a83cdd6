"""Fixtures: a toy pipeline, and one nano run that all slow tests share."""

import subprocess
import sys
from pathlib import Path

import pytest

from crawltalk.core.stage import Stage

TOY = (
    Stage("crawl", (), "toy_stages:crawl", "pages"),
    Stage("data", ("crawl",), "toy_stages:data", "documents"),
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> tuple[Stage, ...]:
    """A pipeline of two stages that take milliseconds; children find it through PYTHONPATH."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return TOY


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole journey at nano scale; look at it, and change a copy."""
    path = tmp_path_factory.mktemp("runs") / "nano"
    command = [sys.executable, "-m", "crawltalk", "run", "nano", "--out", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "crawltalk chat --model" in done.stdout + done.stderr, done.stderr
    return path
