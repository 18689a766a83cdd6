"""One rank of small trainings, for torchrun: `rank_of_training.py FOLDER` goes through all of `TRAININGS`, each in
FOLDER/NAME, then reinforces a policy in FOLDER/reinforced; `rank_of_training.py FOLDER kill` interrupts two of them at
step 6, the second by the death of rank 0."""

import dataclasses
import os
import sys
from pathlib import Path

import torch

from crawltalk.posttraining.reinforce import reinforce
from crawltalk.recipe import Machine
from crawltalk.train.batches import Batch
from crawltalk.train.ranks import Ranks
from support.reinforcements import CONFIG, even, options, policy, problems
from support.trainings import (
    FP32,
    adapters_only,
    batches,
    fresh,
    last_block_only,
    pairs,
    preference,
    train,
)

COPY = dataclasses.replace(FP32, workers=2)
SHARD = dataclasses.replace(COPY, shard=True)


class Interrupted(Exception):
    """Stops a training on all ranks."""


def uneven(step: int) -> Batch:
    """Once no row is left for the second rank, and never as many as the first has."""
    return batches(step)[: 1 if step == 1 else 7]


TRAININGS = {
    f"{what}-{way}": (machine, settings)
    for way, machine in (("copy", COPY), ("shard", SHARD))
    for what, settings in {
        "whole": {"make": fresh, "source": uneven},
        "killed": {"make": fresh, "source": uneven},
        "last-block": {"make": last_block_only, "source": uneven, "steps": 4},
        "adapters": {"make": adapters_only, "source": uneven, "steps": 4},
        "pairs": {
            "make": fresh,
            "source": lambda step: pairs(step)[:7],
            "objective": preference,
            "steps": 4,
        },
    }.items()
}


def run(name: str, folder: Path, machine: Machine, settings: dict) -> None:
    """Each training meets in the store anew, as the stages of a run do."""
    ranks = Ranks.join(machine, name)
    settings = dict(settings)
    model = settings.pop("make")()
    train(model, folder / name, machine=machine, ranks=ranks, **settings)
    torch.save(model.state_dict(), folder / name / f"rank-{ranks.rank}.pt")
    ranks.leave()


def reinforced(folder: Path) -> None:
    """Each rank samples its share of the replies."""
    ranks = Ranks.join(COPY, "reinforced")
    model, rollouts = policy()
    reinforce(model, rollouts, problems, even, CONFIG, options(folder, machine=COPY), 7, ranks=ranks)
    torch.save(model.state_dict(), folder / f"rank-{ranks.rank}.pt")
    ranks.leave()


def kill(folder: Path) -> None:
    def stopping(step: int) -> Batch:
        if step == 6:
            raise Interrupted
        return uneven(step)

    def dying(step: int) -> Batch:
        if step == 6 and os.environ["RANK"] == "0":
            os._exit(1)
        return uneven(step)

    for name, machine, source in (("killed-copy", COPY, stopping), ("killed-shard", SHARD, dying)):
        try:
            run(name, folder, machine, {"make": fresh, "source": source})
        except Interrupted:
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[2:] == ["kill"]:
        kill(Path(sys.argv[1]))
    else:
        for name, (machine, settings) in TRAININGS.items():
            run(name, Path(sys.argv[1]), machine, settings)
        reinforced(Path(sys.argv[1]) / "reinforced")
    sys.stdout.flush()
    os._exit(0)  # as a stage's process ends (run/child.py)
