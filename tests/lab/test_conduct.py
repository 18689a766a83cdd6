"""The lab runs an experiment's seeds, keeps what is done, and judges it."""

import dataclasses
import json

import pytest

from crawltalk.cli import main
from crawltalk.core.errors import BadInput
from crawltalk.lab import EXPERIMENTS
from crawltalk.lab.conduct import conduct, read_result
from crawltalk.recipe import Machine
from support.experiments import EXPERIMENT

ONE = Machine(workers=1, device="cpu", dtype="float32")
FILES = ["seed-0.json", "seed-1.json"]


def without_times(path):
    row = json.loads(path.read_bytes())
    return {name: value for name, value in row.items() if not name.endswith("seconds")}


def test_an_experiment_leaves_its_figures_its_verdict_and_a_chart(tmp_path):
    result = conduct(EXPERIMENT, 2, tmp_path, ONE)
    assert (result.judgement.verdict, result.seeds) == ("confirmed", [0, 1])
    assert read_result(tmp_path, "more_steps") == result
    assert all(seconds > 0 for seconds in result.cpu_seconds)
    assert (tmp_path / "more_steps" / "figure.svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_seeds_side_by_side_measure_the_same_as_one_after_the_other(tmp_path):
    events = []
    conduct(EXPERIMENT, 2, tmp_path / "one", ONE)
    conduct(EXPERIMENT, 2, tmp_path / "two", dataclasses.replace(ONE, workers=2), events.append)
    for name in FILES:
        one, two = (without_times(tmp_path / run / "more_steps" / name) for run in ("one", "two"))
        assert one == two
    assert {event["stage"] for event in events} == {"more_steps, seed 0", "more_steps, seed 1"}


def test_a_finished_seed_is_not_run_again_and_further_seeds_are_added(tmp_path):
    conduct(EXPERIMENT, 1, tmp_path, ONE)
    done = tmp_path / "more_steps" / "seed-0.json"
    before = done.stat().st_mtime_ns
    assert conduct(EXPERIMENT, 2, tmp_path, ONE).seeds == [0, 1]
    assert done.stat().st_mtime_ns == before


def test_an_interrupted_seed_continues_with_its_partial_work_and_its_time_counts(tmp_path):
    folder = tmp_path / "more_steps" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        conduct(EXPERIMENT, 1, tmp_path, ONE)
    assert not (tmp_path / "more_steps" / "seed-0.json").exists()
    spent = json.loads((folder / "spent.json").read_bytes())
    (folder / "interrupt").unlink()
    result = conduct(EXPERIMENT, 1, tmp_path, ONE)
    assert result.cpu_seconds[0] > spent["cpu_seconds"] > 0
    assert sorted(path.name for path in folder.iterdir()) == ["2", "30"]


def test_a_damaged_file_and_a_file_in_the_way_say_the_way_out(tmp_path):
    conduct(EXPERIMENT, 1, tmp_path, ONE)
    (tmp_path / "more_steps" / "seed-0.json").write_text("{")
    with pytest.raises(BadInput, match="remove it"):
        conduct(EXPERIMENT, 1, tmp_path, ONE)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="--out"):
        conduct(EXPERIMENT, 1, tmp_path / "file", ONE)


def test_the_list_names_every_experiment_and_a_wrong_name_gets_a_hint(capsys, tmp_path):
    assert main(["lab", "--json", "--out", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == [one.name for one in EXPERIMENTS]
    assert main(["lab", "rl_select"]) == 2
    assert "no experiment is called 'rl_select'" in capsys.readouterr().err
    assert main(["lab", "--all", "--seeds", "0"]) == 2
    assert "1 at least" in capsys.readouterr().err


def test_every_experiment_says_what_it_claims_and_expects():
    names = [one.name for one in EXPERIMENTS]
    assert len(set(names)) == len(names)
    for one in EXPERIMENTS:
        assert min(map(len, (one.claim, one.source, one.prediction, one.method))) > 10, one.name
