"""Fixtures: a toy pipeline, and one nano run that all slow tests share."""

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
