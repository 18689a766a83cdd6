"""The benchmark of the whole journey: this checkout against itself."""

from pathlib import Path

import pytest

import crawltalk
from crawltalk.bench.journey import (
    JOURNEYS,
    Cost,
    Journey,
    Side,
    busy_core,
    journey,
    read_journey,
    rows_of_journeys,
)
from crawltalk.cli import main
from crawltalk.core.errors import BadInput, UserError

CHECKOUT = Path(crawltalk.__file__).parents[2]


@pytest.fixture
def side(tmp_path) -> Side:
    return Side(CHECKOUT, tmp_path / "cache")


def test_a_side_runs_its_own_source(side, tmp_path):
    cost = side.command(["crawltalk", "--version"], tmp_path)
    assert cost.last_line == crawltalk.__version__
    assert cost.cpu_seconds > 0
    assert cost.seconds > 0


def test_a_side_that_fails_says_how(side, tmp_path):
    with pytest.raises(UserError, match="no preset is called"):
        side.command(["crawltalk", "run", "absent"], tmp_path)
    assert "no preset" in side.command(["crawltalk", "run", "absent"], tmp_path, allowed=2).last_line


def test_a_busy_core_is_free_again_at_the_end():
    with busy_core() as process:
        assert process.poll() is None
    assert process.poll() is not None


def test_the_figures_of_a_journey_are_its_manifests():
    manifests = {
        name: {"seconds": 1.0, "cpu_seconds": cpu, "peak_memory_bytes": memory}
        for name, cpu, memory in (("data", 1.0, 2e6), ("pretrain", 4.0, 9e6), ("sft", 2.0, 5e6))
    }
    one = Journey(Cost(3.0, 7.0, ""), manifests, {})
    assert one.train_cpu_seconds() == 6.0
    assert one.stage_figures()["all", "MB"] == pytest.approx(9.0)
    assert one.stage_figures()["all", "CPU s"] == 7.0


def test_a_peer_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no src/crawltalk"):
        next(journey(["memory"], "nano", tmp_path, 1, None))


def test_a_row_that_does_not_exist_is_refused_with_those_that_do(capsys):
    assert main(["bench", "journey.absent"]) == 2
    assert "journey.train_cpu" in capsys.readouterr().err


@pytest.mark.slow
def test_the_rows_of_two_checkouts_stand_side_by_side(nano):
    one = read_journey(nano, Cost(1.0, 1.0, ""))
    rows = list(rows_of_journeys(JOURNEYS, [[one], [one]], "nano", "itself"))
    by_name = {(row["name"], row["unit"]): row for row in rows}
    trained = by_name["journey.train_cpu", "CPU s"]
    assert trained["ours"] == trained["peer"] > 0
    assert by_name["journey.memory", "MB"]["ratio"] == 1.0
    assert by_name["journey.nano.sft", "s"]["peer_name"] == "itself"
    flagship = by_name["journey.scores.flagship", "score"]
    assert flagship["ours"] == flagship["peer"] == one.scores["flagship"]["score"]
    assert flagship["ratio"] is None
