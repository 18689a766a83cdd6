"""One rank of a small training, for torchrun: `rank_of_training.py OUT STEPS STOP copy|shard`.

Rank 0 dies before step STOP, if that is not 0."""

import os
import sys
from pathlib import Path

import torch

from crawltalk.recipe import Machine
from crawltalk.train.ranks import Ranks
from support.trainings import batches, fresh, train


def main(out: Path, steps: int, stop: int, *, shard: bool) -> None:
    machine = Machine(workers=2, device="cpu", dtype="float32", shard=shard)
    ranks = Ranks.join(machine)

    def source(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        if stop and step == stop:
            os._exit(1)
        tokens, targets = batches(step)
        return (
            (tokens[:1], targets[:1]) if step == 1 else (tokens[:7], targets[:7])
        )  # once no row is left for the second rank

    model = fresh()
    train(model, out, steps=steps, machine=machine, source=source, ranks=ranks)
    torch.save(model.state_dict(), out / f"rank-{ranks.rank}.pt")
    ranks.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), shard=sys.argv[4:] == ["shard"])
