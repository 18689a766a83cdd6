"""The lab runs an experiment's seeds, keeps what is done, and judges it."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.cli import main
from crawltalk.core.errors import BadInput, UserError
from crawltalk.lab import EXPERIMENTS, journeys, readers
from crawltalk.lab.conduct import conduct, next_trial, read_result, run_seed
from crawltalk.recipe import Machine
from support.experiments import EXPERIMENT

ONE = Machine(workers=1, device="cpu", dtype="float32")
FILES = ["seed-0.json", "seed-1.json"]


def without_times(path):
    row = json.loads(path.read_bytes())
    return {name: value for name, value in row.items() if not name.endswith("seconds")}


def conducted(out, seeds=None, machine=ONE):
    """The result of the small experiment."""
    results = []
    failures = conduct([EXPERIMENT], out, machine, seeds, on_result=results.append)
    if failures:
        raise failures["more_steps"]
    return results[0]


def test_an_experiment_leaves_its_figures_its_verdict_and_a_chart(tmp_path):
    result = conducted(tmp_path)
    assert (result.judgement.verdict, result.seeds) == ("confirmed", [0, 1])
    assert read_result(tmp_path, "more_steps") == result
    assert all(seconds > 0 for seconds in result.cpu_seconds)
    assert (tmp_path / "more_steps" / "figure.svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_seeds_side_by_side_measure_the_same_as_one_after_the_other(tmp_path):
    events = []
    conducted(tmp_path / "one")
    conduct([EXPERIMENT], tmp_path / "two", dataclasses.replace(ONE, workers=2), on_event=events.append)
    for name in FILES:
        one, two = (without_times(tmp_path / run / "more_steps" / name) for run in ("one", "two"))
        assert one == two
    assert {event["stage"] for event in events} == {"more_steps, seed 0", "more_steps, seed 1"}


def test_a_finished_seed_is_not_run_again_and_further_seeds_are_added(tmp_path):
    conducted(tmp_path, 1)
    done = tmp_path / "more_steps" / "seed-0.json"
    before = done.stat().st_mtime_ns
    assert conducted(tmp_path, 2).seeds == [0, 1]
    assert done.stat().st_mtime_ns == before


def test_fewer_seeds_than_are_measured_never_replace_the_verdict_on_all(tmp_path):
    everything = conducted(tmp_path, 3)
    assert conducted(tmp_path, 1) == everything == read_result(tmp_path, "more_steps")
    assert everything.seeds == [0, 1, 2]
    (tmp_path / "more_steps" / "seed-2.json").write_text("{")
    (tmp_path / "more_steps" / "seed-0.json").unlink()
    with pytest.raises(BadInput, match=r"seed-2\.json is damaged"):
        conducted(tmp_path, 1)
    assert not (tmp_path / "more_steps" / "seed-0.json").exists()


def test_an_interrupted_seed_continues_with_its_partial_work_and_its_time_counts(tmp_path):
    folder = tmp_path / "more_steps" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        conducted(tmp_path, 1)
    assert not (tmp_path / "more_steps" / "seed-0.json").exists()
    spent = json.loads((folder / "spent.json").read_bytes())
    (folder / "interrupt").unlink()
    result = conducted(tmp_path, 1)
    assert result.cpu_seconds[0] > spent["cpu_seconds"] > 0
    assert sorted(path.name for path in folder.iterdir()) == ["2", "30"]


LAB = """
import sys, time
from pathlib import Path

def run(trial):
    (trial.out / "begun").touch()
    time.sleep(60)

if __name__ == "__main__":
    import dataclasses
    import crawltalk.lab
    from crawltalk.cli import main
    one = crawltalk.lab.EXPERIMENTS[0]
    crawltalk.lab.EXPERIMENTS = (dataclasses.replace(one, run=run),)
    sys.exit(main(["lab", one.name, "--workers", "2", "--out", sys.argv[1]]))
else:
    (Path(__file__).parent / f"{time.monotonic_ns()}.child").touch()
    time.sleep(0.5)
"""
"""Its child processes are half a second long where nothing has told them yet how to take a signal."""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["*.child", "*/seed-0", "*/seed-1/begun"])
def test_ctrl_c_of_seeds_side_by_side_is_told_in_one_line_and_their_work_is_kept(tmp_path, when):
    (tmp_path / "lab.py").write_text(LAB)
    words = [sys.executable, str(tmp_path / "lab.py"), str(tmp_path)]
    program = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 100
    while not any(tmp_path.glob(when)):
        assert program.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    os.killpg(program.pid, signal.SIGINT)
    *begun, last = program.communicate(timeout=100)[1].splitlines()
    assert all(": begins, " in line for line in begun)
    assert "interrupted; finished work is kept" in last
    assert program.returncode == 130
    assert any(tmp_path.glob(when))


def test_a_damaged_file_and_a_file_in_the_way_say_the_way_out(tmp_path):
    conducted(tmp_path, 1)
    (tmp_path / "more_steps" / "seed-0.json").write_text("{")
    with pytest.raises(BadInput, match="remove it"):
        conducted(tmp_path, 1)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="--out"):
        conducted(tmp_path / "file", 1)


def test_an_experiment_that_fails_is_set_aside_and_the_others_go_on(tmp_path):
    first, second, third = (dataclasses.replace(EXPERIMENT, name=name) for name in ("a", "b", "c"))
    (tmp_path / "b" / "seed-0").mkdir(parents=True)
    (tmp_path / "b" / "seed-0" / "fail").touch()
    results = []
    failures = conduct([first, second, third], tmp_path, ONE, on_result=results.append)
    assert [result.experiment for result in results] == ["a", "c"]
    assert str(failures["b"]) == "a file is in the way"
    assert not (tmp_path / "b" / "seed-1").exists()  # a further seed would fail, too
    (tmp_path / "b" / "seed-0" / "fail").unlink()
    assert conduct([first, second, third], tmp_path, ONE, on_result=results.append) == {}
    assert [result.experiment for result in results[2:]] == ["a", "c", "b"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_is_a_failure_that_says_where_it_stands(tmp_path, value):
    def run(trial):
        return {"losses": [1.0, {"of the last": (0.5, value)}], "nothing": None}

    broken = dataclasses.replace(EXPERIMENT, name="a", run=run)
    results = []
    failures = conduct([broken, EXPERIMENT], tmp_path, ONE, on_result=results.append)
    assert isinstance(failures.pop("a"), UserError) and not failures
    assert [result.experiment for result in results] == ["more_steps"]
    assert not (tmp_path / "a" / "seed-0.json").exists()
    with pytest.raises(
        UserError, match=r"seed 0: its figure losses\[1\]\.of the last\[1\] is NaN or infinite"
    ):
        run_seed(broken, 0, tmp_path / "a", ONE, lambda event: None)


def test_an_experiment_that_would_end_the_program_fails_alone(tmp_path):
    quitting = dataclasses.replace(EXPERIMENT, name="a", run=lambda trial: sys.exit(0))
    results = []
    failures = conduct([quitting, EXPERIMENT], tmp_path, ONE, on_result=results.append)
    assert "seed 0 called for the end of the program (exit 0)" in str(failures["a"])
    assert [result.experiment for result in results] == ["more_steps"]


def test_a_judge_that_fails_leaves_the_figures(tmp_path):
    def judge(figures):
        raise ZeroDivisionError

    failures = conduct([dataclasses.replace(EXPERIMENT, judge=judge)], tmp_path, ONE)
    assert isinstance(failures["more_steps"], ZeroDivisionError)
    assert conducted(tmp_path).seeds == [0, 1]


@given(st.lists(st.sampled_from(["", "readers", "journeys"]), max_size=8), st.integers(1, 5), st.randoms())
def test_what_may_be_built_at_once_never_is_and_no_core_waits_without_need(shared, cores, rng):
    experiments = [dataclasses.replace(EXPERIMENT, name=str(i), shared=name) for i, name in enumerate(shared)]
    waiting = [(experiment, seed) for experiment in experiments for seed in range(3)]
    running = []
    while waiting or running:
        while len(running) < cores and (one := next_trial(waiting, running)):
            waiting.remove(one)
            running.append(one)
        folders = [(experiment.shared, seed) for experiment, seed in running if experiment.shared]
        assert len(set(folders)) == len(folders)
        assert len(running) == cores or all((one[0].shared, one[1]) in folders for one in waiting)
        running.remove(rng.choice(running))


def test_experiments_that_read_what_several_make_say_so():
    makers = {"journey": journeys.FOLDER, "image_reader": readers.FOLDER, "audio_reader": readers.FOLDER}
    for experiment in EXPERIMENTS:
        used = vars(sys.modules[experiment.run.__module__])
        assert (
            experiment.shared in [makers[name] for name in makers if name in used] or not makers.keys() & used
        )


def test_the_verb_runs_several_and_its_exit_code_says_that_one_failed(tmp_path, monkeypatch, capsys):
    names = ("asked_by_prompt", "fixed_compute")
    small = [dataclasses.replace(EXPERIMENT, name=name) for name in names]
    monkeypatch.setattr("crawltalk.lab.EXPERIMENTS", tuple(small))
    (tmp_path / names[0] / "seed-0").mkdir(parents=True)
    (tmp_path / names[0] / "seed-0" / "fail").touch()
    assert main(["lab", "--all", "--workers", "1", "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "fixed_compute (1 of 2): A model learns more" in out
    assert "asked_by_prompt, seed 0: begins, 1 of 4" in err
    assert "asked_by_prompt failed: a file is in the way" in err
    assert "1 of 2 experiments failed: asked_by_prompt; the same command tries them again" in err
    assert "A model learns more" in (tmp_path / "lab.html").read_text()


def test_the_verb_names_every_experiment_that_failed_before_a_traceback_of_one(tmp_path, monkeypatch, capsys):
    def broken(trial):
        raise ZeroDivisionError("broken")

    bad = dataclasses.replace(EXPERIMENT, name="asked_by_prompt", run=broken)
    monkeypatch.setattr(
        "crawltalk.lab.EXPERIMENTS", (bad, dataclasses.replace(EXPERIMENT, name="fixed_compute"))
    )
    (tmp_path / "fixed_compute" / "seed-0").mkdir(parents=True)
    (tmp_path / "fixed_compute" / "seed-0" / "fail").touch()
    with pytest.raises(ZeroDivisionError):
        main(["lab", "--all", "--workers", "1", "--out", str(tmp_path)])
    err = capsys.readouterr().err
    assert "asked_by_prompt failed: broken" in err
    assert "fixed_compute failed: a file is in the way" in err


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
