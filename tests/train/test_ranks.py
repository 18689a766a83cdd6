"""Training on several ranks, as torchrun starts them, on CPUs."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crawltalk.core.objects import load_object
from crawltalk.pipeline import stages
from crawltalk.posttraining.reinforce import ROLLOUTS, reinforce
from crawltalk.recipe.machine import derive_machine
from crawltalk.run.folder import RunFolder
from crawltalk.run.stage import Job, Progress
from support.rank_of_training import TRAININGS
from support.reinforcements import CONFIG, even, options, policy, problems
from support.trainings import FP32, rows_of, train

SCRIPT = Path(__file__).parents[1] / "support" / "rank_of_training.py"
pytestmark = pytest.mark.slow
WAYS = pytest.mark.parametrize("way", ["copy", "shard"])


def torchrun(*words: str, code: int = 0) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode == 0) == (code == 0), done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder of all trainings on two ranks. Two of them were interrupted before; what was there then is in
    killed-copy-before and killed-shard-before."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(str(SCRIPT), str(folder), "kill", code=1)
    for way in ("copy", "shard"):
        shutil.copytree(folder / f"killed-{way}", folder / f"killed-{way}-before")
    torchrun(str(SCRIPT), str(folder))
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def column(folder: Path, name: str) -> list[float]:
    return [row[name] for row in rows_of(folder)]


@WAYS
@pytest.mark.parametrize("what", ["whole", "last-block", "adapters", "pairs"])
def test_two_ranks_learn_what_one_learns(what, way, trained, tmp_path):
    settings = dict(TRAININGS[f"{what}-{way}"][1])
    train(settings.pop("make")(), tmp_path, machine=FP32, **settings)
    two = trained / f"{what}-{way}"
    assert column(two, "loss") == pytest.approx(column(tmp_path, "loss"), abs=1e-5)
    assert column(two, "norm") == pytest.approx(column(tmp_path, "norm"), rel=1e-4)
    if what == "pairs":
        assert column(two, "accuracy") == pytest.approx(column(tmp_path, "accuracy"))
    first, second = weights(two / "rank-0.pt"), weights(two / "rank-1.pt")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not list(two.glob("*1.jsonl"))


@WAYS
@pytest.mark.parametrize("what", ["last-block", "adapters"])
def test_frozen_weights_stay_on_all_ranks(what, way, trained):
    before = TRAININGS[f"{what}-{way}"][1]["make"]()
    after = weights(trained / f"{what}-{way}" / "rank-0.pt")
    for name, weight in before.named_parameters():
        assert torch.equal(weight, after[name]) != weight.requires_grad, name


@WAYS
def test_two_ranks_that_are_killed_and_resumed_end_bit_for_bit_as_if_they_had_not_been(way, trained):
    before = (trained / f"killed-{way}-before" / "log.jsonl").read_text().splitlines()
    assert 3 <= json.loads(before[-1])["step"] < 6  # behind a checkpoint, before the end
    whole, resumed = (weights(trained / f"{what}-{way}" / "rank-0.pt") for what in ("whole", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert rows_of(trained / f"whole-{way}") == rows_of(trained / f"killed-{way}")


def test_a_training_that_shared_its_weights_goes_on_on_one_rank(trained, tmp_path):
    shutil.copytree(trained / "killed-shard-before", tmp_path / "out")
    settings = dict(TRAININGS["killed-shard"][1])
    train(settings.pop("make")(), tmp_path / "out", machine=FP32, **settings)
    assert column(tmp_path / "out", "loss") == pytest.approx(
        column(trained / "whole-shard", "loss"), abs=1e-5
    )


def test_two_ranks_that_each_sample_a_share_of_the_replies_learn_what_one_learns(trained, tmp_path):
    model, rollouts = policy()
    reinforce(model, rollouts, problems, even, CONFIG, options(tmp_path), 7)
    two = trained / "reinforced"
    assert (two / ROLLOUTS).read_bytes() == (tmp_path / ROLLOUTS).read_bytes()
    for name in ("loss", "reward", "entropy"):
        assert column(two, name) == pytest.approx(column(tmp_path, name), abs=1e-5)
    first, second = weights(two / "rank-0.pt"), weights(two / "rank-1.pt")
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(first[name], weight, atol=1e-4, rtol=0)


def test_stages_train_on_two_ranks_from_the_command_line(nano, tmp_path):
    run = tmp_path / "nano"
    shutil.copytree(nano, run)
    flags = ["--pretrain.tokens", "16384", "--sft.epochs", "0.2", "--machine.dtype", "float32"]
    for stage in ("pretrain", "factuality", "sft"):
        torchrun("-m", "crawltalk", stage, str(run), *flags)
    folder = RunFolder(run)
    recipe = folder.recipe()
    machine = dataclasses.replace(derive_machine(recipe.machine), workers=1)
    journey = {stage.name: stage for stage in stages(recipe)}
    for stage in ("pretrain", "sft"):
        inputs = {name: folder.folder(name) for name in journey[stage].inputs}
        models = {name: kind for name in inputs if (kind := journey[name].makes)}
        (tmp_path / stage).mkdir()
        job = Job(getattr(recipe, stage), inputs, tmp_path / stage, recipe.seed, machine, Progress(), models)
        load_object(journey[stage].function)(job)
        one, two = rows_of(tmp_path / stage), rows_of(run / stage)
        losses = [[row["loss"] for row in rows if "loss" in row] for rows in (one, two)]
        assert len(losses[0]) > 2
        assert losses[1] == pytest.approx(losses[0], abs=1e-5)
        assert not list((run / stage).glob("rank*"))
