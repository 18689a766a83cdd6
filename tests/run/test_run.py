"""The frame: stages, manifests, freshness, resumption, borrowing, failure."""

import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.cli import main
from crawltalk.core.errors import BadInput, BadRecipe, MissingInput, StageCrashed, UserError, disk_is_full
from crawltalk.recipe import Machine
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.console import BARS, sparkline
from crawltalk.run.execute import build
from crawltalk.run.folder import RunFolder
from crawltalk.run.machine import EnergyMeter
from crawltalk.run.stage import Job, Progress, Stage
from support.toy_runs import NAMES, build_toy, recipe_with
from support.toy_stages import TOY


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [
        f"{event['event']} {event['stage']}"
        for event in events
        if event["event"] in ("start", "skip", "finish")
    ]


def contents(path: Path) -> dict[str, bytes]:
    files = (file for stage in NAMES for file in (path / stage).rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.name != "manifest.json"}


def test_a_run_builds_its_stages_in_order_and_writes_manifests(tmp_path, toy):
    events = build_toy(tmp_path, toy, recipe_with())
    assert kinds(events) == ["start crawl", "finish crawl", "start data", "finish data"]
    manifest = RunFolder(tmp_path).manifest("data")
    assert manifest is not None
    assert manifest.metrics == {"documents": 3}
    assert [file.name for file in manifest.files] == ["all.txt"]
    assert manifest.seconds > 0
    assert manifest.cpu_seconds > 0
    assert manifest.peak_memory_bytes > 1_000_000
    assert manifest.attempts == 1


def test_a_fresh_stage_is_skipped(tmp_path, toy):
    build_toy(tmp_path, toy, recipe_with())
    assert kinds(build_toy(tmp_path, toy, recipe_with())) == ["skip crawl", "skip data"]


def test_a_changed_field_is_named_and_everything_downstream_is_rebuilt(tmp_path, toy):
    build_toy(tmp_path, toy, recipe_with(3))
    events = build_toy(tmp_path, toy, recipe_with(4))
    reasons = {event["stage"]: event["reasons"] for event in events if event["event"] == "start"}
    assert reasons == {"crawl": ["crawl.articles: 3 -> 4"], "data": ["input crawl changed"]}
    assert (tmp_path / "data/all.txt").read_text().count("\n") == 4


def test_a_change_downstream_leaves_upstream_alone(tmp_path, toy):
    build_toy(tmp_path, toy, recipe_with())
    assert kinds(build_toy(tmp_path, toy, recipe_with(extractor="other")))[0] == "skip crawl"


def test_a_damaged_artifact_makes_its_stage_stale(tmp_path, toy):
    build_toy(tmp_path, toy, recipe_with())
    (tmp_path / "crawl/page-001.txt").write_text("")
    state = RunFolder(tmp_path).states(toy, recipe_with())["crawl"]
    assert state.state == "stale"
    assert "page-001.txt" in state.reasons[0]


def test_where_and_how_to_compute_is_no_reason_to_rebuild(tmp_path, toy):
    build_toy(tmp_path, toy, recipe_with())
    other = dataclasses.replace(
        recipe_with(), machine=dataclasses.replace(recipe_with().machine, workers=1, dtype="float32")
    )
    assert kinds(build_toy(tmp_path, toy, other)) == ["skip crawl", "skip data"]


def test_the_users_mistake_in_a_stage_is_one_line_and_finished_work_is_kept(tmp_path, toy):
    with pytest.raises(UserError, match="upside down; turn them"):
        build_toy(tmp_path, toy, recipe_with(extractor="user"))
    assert kinds(build_toy(tmp_path, toy, recipe_with()))[0] == "skip crawl"


def test_what_a_stage_that_gives_up_rescues_outlives_a_change_of_the_recipe(tmp_path, toy):
    with pytest.raises(
        UserError, match=r"it went wrong; to resume from before it: --data\.resume_from .*step-2\.txt"
    ):
        build_toy(tmp_path, toy, recipe_with(extractor="rescue"))
    build_toy(tmp_path, toy, recipe_with())
    assert [path.read_text() for path in (tmp_path / "rescued").glob("data-*-step-2.txt")] == [
        "good until here"
    ]


def test_energy_and_money_are_accounted_for_where_they_are_known(tmp_path, toy):
    package = tmp_path / "powercap" / "intel-rapl:0"
    (package / "intel-rapl:0:0").mkdir(parents=True)  # a part of the package, not to be counted twice
    (package / "max_energy_range_uj").write_text("10000000")
    (package / "energy_uj").write_text("9000000")
    meter = EnergyMeter(tmp_path / "powercap")
    (package / "energy_uj").write_text("1500000")
    assert meter.joules() == 2.5
    assert EnergyMeter(tmp_path / "absent").joules() is None
    recipe = recipe_with()
    build_toy(
        tmp_path,
        toy,
        dataclasses.replace(recipe, machine=dataclasses.replace(recipe.machine, dollars_an_hour=3600.0)),
    )
    manifest = RunFolder(tmp_path).manifest("data")
    assert manifest is not None
    assert manifest.dollars == pytest.approx(manifest.seconds, abs=1e-3)


@given(st.lists(st.floats(0, 100), max_size=100))
def test_a_curve_in_one_line_is_highest_and_lowest_where_its_values_are(values):
    line = sparkline(values)
    assert len(line) == min(24, len(values))
    if 0 < len(values) <= 24 and max(values) > min(values):
        assert line[values.index(max(values))] == BARS[-1]
        assert line[values.index(min(values))] == BARS[0]


def test_our_mistake_in_a_stage_keeps_its_traceback(tmp_path, toy):
    with pytest.raises(StageCrashed, match=r"(?s)ZeroDivisionError.*continue with: crawltalk run"):
        build_toy(tmp_path, toy, recipe_with(extractor="bug"))


def test_a_full_disk_is_one_clear_line(tmp_path, toy):
    with pytest.raises(UserError, match=r"the disk of .* is full; free some space"):
        build_toy(tmp_path, toy, recipe_with(extractor="full"))


def test_a_full_disk_is_known_by_its_words_where_a_library_drops_the_number():
    assert disk_is_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not disk_is_full(OSError(errno.EACCES, "Permission denied"))


def test_a_killed_stage_says_so(tmp_path, toy):
    with pytest.raises(StageCrashed, match="ended by SIGKILL"):
        build_toy(tmp_path, toy, recipe_with(extractor="killed"))


def test_a_job_knows_which_of_its_inputs_are_models():
    kinds = {"pretrain": "base", "sft": "assistant", "polish": "assistant"}
    inputs = {name: Path(name) for name in ("tokens", *kinds)}
    job = Job(None, inputs, Path("out"), 0, Machine(), Progress(stage="evals"), kinds)
    assert (job.model("base"), job.model("assistant")) == (Path("pretrain"), Path("polish"))
    assert job.model("base", "assistant") == Path("polish")
    with pytest.raises(MissingInput, match="evals needs a model of the kind reward"):
        job.model("reward")


def test_a_kind_of_stage_may_stand_twice(tmp_path, toy):
    """The child finds section and models of both, and each goes stale by its own values."""
    recipe = load_recipe("nano", flags=POLISH)
    again = Stage(
        "polish", ("crawl", "data"), "support.toy_stages:polish", "again", section="sft", makes="assistant"
    )
    stages = (toy[0], dataclasses.replace(toy[1], makes="base"), again)
    build(RunFolder(tmp_path), stages, [stage.name for stage in stages], recipe, lambda event: None)
    assert (tmp_path / "polish" / "config.txt").read_text() == f"data 0.5 {recipe.sft.tasks['identity']}"
    other = load_recipe("nano", flags=POLISH | {"stages.polish.config.epochs": "2", "sft.epochs": "7"})
    state = RunFolder(tmp_path).states(stages, other)["polish"]
    assert state.reasons == ("stages.polish.config.epochs: 0.5 -> 2.0",)


POLISH = {"stages.polish.kind": "sft", "stages.polish.model": "sft", "stages.polish.config.epochs": "0.5"}


def test_an_input_that_comes_or_goes_makes_stale_and_is_named(tmp_path):
    """A further stage is added to the recipe and removed again: its folder stays, who read it is stale."""
    polish = Stage("polish", ("crawl",), "support.toy_stages:crawl", "again", section="crawl")
    few = (TOY[0], dataclasses.replace(TOY[1]))
    more = (TOY[0], polish, dataclasses.replace(TOY[1], inputs=("crawl", "polish")))
    folder, recipe = RunFolder(tmp_path), recipe_with()
    build_toy(tmp_path, few, recipe)
    assert folder.states(more, recipe)["data"].reasons == ("input polish is new",)
    build(folder, more, ["polish", "data"], recipe, lambda event: None)
    state = folder.states(few, recipe)["data"]
    assert (state.state, state.reasons) == ("stale", ("input polish is gone",))
    build_toy(tmp_path, few, recipe)
    assert (tmp_path / "polish" / "manifest.json").exists()


def test_two_commands_cannot_write_into_one_run_at_once(tmp_path, toy):
    with RunFolder(tmp_path).lock(), pytest.raises(UserError, match="another crawltalk is at work"):
        build_toy(tmp_path, toy, recipe_with())


def test_a_missing_upstream_stage_names_the_way_out(tmp_path, toy):
    with pytest.raises(UserError, match=r"crawl of .* is absent; build it with: crawltalk crawl"):
        build(RunFolder(tmp_path), toy, ["data"], recipe_with(), lambda event: None)


def test_a_damaged_manifest_is_one_clear_line(tmp_path, toy):
    build_toy(tmp_path, toy, recipe_with())
    (tmp_path / "crawl/manifest.json").write_text("{")
    with pytest.raises(BadInput, match="remove the folder"):
        build_toy(tmp_path, toy, recipe_with())


def test_a_run_of_an_earlier_version_whose_recipe_cannot_be_read_says_the_way_out(tmp_path, toy, capsys):
    build_toy(tmp_path / "old", toy, recipe_with())
    recipe, path = tmp_path / "old" / "recipe.toml", tmp_path / "old" / "crawl" / "manifest.json"
    recipe.write_text(recipe.read_text().replace("executor =", "engine ="))
    with pytest.raises(BadRecipe, match=r"^\S*recipe.toml: unknown key 'machine.engine'; its name is now"):
        RunFolder(tmp_path / "old").recipe()  # somebody changed it
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"versions": {"crawltalk": "0.0.9"}}))
    for words in (["status"], ["report"], ["sft"], ["diff", str(tmp_path / "old")]):
        assert main([*words, str(tmp_path / "old")]) == 2
        line = " ".join(capsys.readouterr().err.split())
        assert "old was made by crawltalk 0.0.9, and this is" in line and "'machine.executor'" in line
        assert "--model" in line and "crawltalk run small --out" in line


def test_finished_stages_of_another_run_can_be_borrowed(tmp_path, toy):
    build_toy(tmp_path / "a", toy, recipe_with())
    other = RunFolder(tmp_path / "b")
    wanted = recipe_with(extractor="other")
    assert other.borrow(RunFolder(tmp_path / "a"), toy, wanted) == ["crawl"]
    assert kinds(build_toy(tmp_path / "b", toy, wanted)) == ["skip crawl", "start data", "finish data"]
    assert not (tmp_path / "b/crawl").exists()
    assert (tmp_path / "b/data/all.txt").read_text().count("\n") == 3


def test_a_crash_between_manifest_and_rename_is_mended(tmp_path, toy):
    build_toy(tmp_path, toy, recipe_with())
    before = contents(tmp_path)
    (tmp_path / ".work").mkdir(exist_ok=True)
    (tmp_path / "data").rename(tmp_path / ".work/data")  # complete, but not yet in its place
    assert kinds(build_toy(tmp_path, toy, recipe_with())) == ["skip crawl", "skip data"]
    (tmp_path / "crawl").rename(tmp_path / ".work/crawl.old")  # the old one moved away, the new one not there
    assert kinds(build_toy(tmp_path, toy, recipe_with())) == ["skip crawl", "skip data"]
    assert contents(tmp_path) == before


SCRIPT = """
import sys
from pathlib import Path
from support.toy_stages import TOY
from crawltalk.run.stage import Job, Progress, Stage
from support.toy_runs import build_toy, recipe_with
build_toy(Path(sys.argv[1]), TOY, recipe_with(60))
"""


@pytest.mark.slow
def test_a_run_killed_at_random_points_ends_with_the_files_of_an_uninterrupted_one(tmp_path, toy):
    build_toy(tmp_path / "whole", toy, recipe_with(60))
    torn = tmp_path / "torn"
    command = [sys.executable, "-c", SCRIPT, str(torn)]
    rng = random.Random(1)
    codes = []
    for pages in (0, *sorted(rng.sample(range(1, 60), 3)), 60):  # how far the first stage may come
        with subprocess.Popen(command, env=os.environ) as child:
            while len(list(torn.rglob("page-*.txt"))) < pages and child.poll() is None:
                time.sleep(0.002)
            child.send_signal(signal.SIGKILL)
        codes.append(child.returncode)
        time.sleep(0.02)  # the kernel ends the orphaned stage
    assert codes[:-1] == [-signal.SIGKILL] * 4
    assert subprocess.run(command, check=False, env=os.environ).returncode == 0
    assert contents(torn) == contents(tmp_path / "whole")
