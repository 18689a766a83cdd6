"""Training on several ranks, as torchrun starts them, on CPUs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.trainings import rows_of

RANK = Path(__file__).parents[1] / "support" / "rank_of_training.py"


def torchrun(ranks: int, *words: str, code: int = 0) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(ranks),
        *words,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode == 0) == (code == 0), done.stderr


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("way", ["copy", "shard"])
def test_two_ranks_learn_what_one_learns(way, tmp_path):
    for ranks in (1, 2):
        torchrun(ranks, str(RANK), str(tmp_path / f"{ranks}"), "12", "0", way)
    ours, theirs = rows_of(tmp_path / "2"), rows_of(tmp_path / "1")
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], abs=1e-5)
    assert [row["norm"] for row in ours] == pytest.approx([row["norm"] for row in theirs], rel=1e-4)
    first, second = weights(tmp_path / "2" / "rank-0.pt"), weights(tmp_path / "2" / "rank-1.pt")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not list((tmp_path / "2").glob("*1.jsonl"))


@pytest.mark.parametrize("way", ["copy", "shard"])
def test_two_ranks_that_are_killed_and_resumed_end_bit_for_bit_as_if_they_had_not_been(way, tmp_path):
    torchrun(2, str(RANK), str(tmp_path / "whole"), "12", "0", way)
    torchrun(2, str(RANK), str(tmp_path / "killed"), "12", "6", way, code=1)
    assert json.loads((tmp_path / "killed" / "log.jsonl").read_text().splitlines()[-1])["step"] == 3
    torchrun(2, str(RANK), str(tmp_path / "killed"), "12", "0", way)
    whole, resumed = weights(tmp_path / "whole" / "rank-0.pt"), weights(tmp_path / "killed" / "rank-0.pt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "killed")


def test_a_training_that_shared_its_weights_goes_on_on_one_rank(tmp_path):
    torchrun(2, str(RANK), str(tmp_path / "whole"), "12", "0", "shard")
    torchrun(2, str(RANK), str(tmp_path / "killed"), "12", "6", "shard", code=1)
    torchrun(1, str(RANK), str(tmp_path / "killed"), "12", "0", "shard")
    two, one = ([row["loss"] for row in rows_of(tmp_path / name)] for name in ("whole", "killed"))
    assert one == pytest.approx(two, abs=1e-5)


@pytest.mark.slow
def test_a_stage_trains_on_two_ranks_from_the_command_line(nano, tmp_path):
    run = tmp_path / "nano"
    shutil.copytree(nano, run)
    shutil.rmtree(run / "pretrain")
    flags = ["--pretrain.tokens", "16384", "--machine.dtype", "float32"]
    torchrun(2, "-m", "crawltalk", "pretrain", str(run), *flags)
    two = [row["loss"] for row in rows_of(run / "pretrain") if "loss" in row]
    shutil.rmtree(run / "pretrain")
    subprocess.run(
        [sys.executable, "-m", "crawltalk", "pretrain", str(run), *flags], check=True, capture_output=True
    )
    one = [row["loss"] for row in rows_of(run / "pretrain") if "loss" in row]
    assert len(one) == 8
    assert two == pytest.approx(one, abs=1e-5)
