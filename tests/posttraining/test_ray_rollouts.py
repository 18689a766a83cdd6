"""Replies by the actors of a real Ray cluster on this machine, one of which is killed while it samples."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crawltalk.core.errors import BadRecipe
from crawltalk.model.hf import save_model
from crawltalk.posttraining.grpo import sampler
from crawltalk.posttraining.reinforce import ROLLOUTS, reinforce
from crawltalk.recipe import Grpo, Machine
from crawltalk.run.stage import Job, Progress
from crawltalk.train.ranks import Ranks
from support.reinforcements import CONFIG, even, options, policy, problems

ON_RAY = """
import json, os, sys
from pathlib import Path
import torch
from crawltalk.posttraining.ray_rollouts import RayRollouts
from crawltalk.posttraining.reinforce import reinforce
from crawltalk.recipe import Machine
from support.reinforcements import CONFIG, Mortal, even, options, policy, problems

out = Path(sys.argv[1])
model, own = policy()
with RayRollouts(own, Mortal.maker(out / "killed"), Machine(workers=2, device="cpu", executor="ray")) as rollouts:
    reinforce(model, rollouts, problems, even, CONFIG, options(out / "run"), 7)
    # Into a file: Ray prints what it has to say of a killed actor to stdout, whenever it hears of it.
    (out / "actors.json").write_text(json.dumps(len(rollouts.workers)))
torch.save(model.state_dict(), out / "weights.pt")
"""


@pytest.mark.slow
def test_two_actors_of_which_one_is_killed_sample_what_one_process_samples(tmp_path: Path):
    pytest.importorskip("ray", reason="Ray is not installed")
    (tmp_path / "on_ray.py").write_text(ON_RAY)
    words = [sys.executable, str(tmp_path / "on_ray.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "actors.json").read_text()) == 2
    assert (tmp_path / "killed").exists()
    model, rollouts = policy()
    reinforce(model, rollouts, problems, even, CONFIG, options(tmp_path / "local"), 7)
    local, remote = (tmp_path / name / ROLLOUTS for name in ("local", "run"))
    assert local.read_bytes() == remote.read_bytes()
    after = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(torch.equal(weight, after[name]) for name, weight in model.state_dict().items())


def test_replies_come_from_ranks_or_from_a_cluster(tmp_path: Path):
    model, rollouts = policy()
    rollouts.engine.tokenizer.save(tmp_path)
    save_model(model, tmp_path, eos=0)
    job = Job(Grpo(), {}, tmp_path, 0, Machine(workers=1, executor="ray"), Progress())
    ranks = Ranks(0, 2)
    with (
        pytest.raises(BadRecipe, match="ranks of torchrun or from a Ray"),
        sampler(job, tmp_path, model, ranks),
    ):
        pass
