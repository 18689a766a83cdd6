"""Several processes that train one model, as torchrun starts them: `torchrun --nproc-per-node 2 -m crawltalk
pretrain small`.

Rank 0 is crawltalk as ever. It alone builds, writes and talks; the others wait for the orders that it shares,
those of stages that train on all ranks, and perform them beside it.
"""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from crawltalk.recipe import Machine

Order = dict[str, Any]
"""What a child process needs to run a stage."""
_TIMEOUT = timedelta(days=30)
"""How long a rank waits for another one: rank 0 may build other stages first, or validate between two steps.
"""


class Ranks:
    """The processes that train together; by default this one alone. Each has its share of a batch's rows
    (`Batch.share`); gradients are summed over all.
    """

    def __init__(self, rank: int = 0, world: int = 1, local: int = 0, neighbours: int = 1) -> None:
        self.rank, self.world = rank, world
        self.local, self.neighbours = local, neighbours
        """The number of this process on its machine, and how many there are."""

    @classmethod
    def from_environment(cls) -> "Ranks":
        """What torchrun says of this process."""
        names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        return cls(*(int(os.environ.get(name, usual)) for name, usual in names.items()))

    @classmethod
    def join(cls, machine: Machine, name: str) -> "Ranks":
        """Meet the others: NCCL between GPUs, gloo between CPUs. `name` is that of the training, another for
        each that one torchrun runs: they meet in its store under this name.
        """
        ranks = cls.from_environment()
        if ranks.world > 1 and not dist.is_initialized():
            store = dist.PrefixStore(
                f"crawltalk/{name}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", _store()
            )
            backend = "nccl" if machine.device == "cuda" else "gloo"
            dist.init_process_group(
                backend, store=store, rank=ranks.rank, world_size=ranks.world, timeout=_TIMEOUT
            )
        return ranks

    def leave(self) -> None:
        """Part from the others when the training is over."""
        if self.world > 1:
            dist.destroy_process_group()

    def device(self, name: str | None) -> torch.device:
        """The device of this rank."""
        return torch.device("cuda", self.local) if name == "cuda" else torch.device(name or "cpu")

    def sum(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks; they travel as one."""
        if self.world == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def broadcast(self, value: str) -> str:
        """The value that rank 0 has."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box)
        return box[0]


ALONE = Ranks()


class Orders:
    """The orders of a whole command, in the store that torchrun keeps: rank 0 gives them, the others follow."""

    def __init__(self) -> None:
        self._store = _store()
        self._count = 0

    def give(self, order: Order | None) -> None:
        """Share an order; None: there are no more."""
        self._store.set(f"crawltalk/{self._count}", json.dumps(order))
        self._count += 1

    def follow(self) -> Iterator[Order]:
        """The orders, as they come."""
        while (order := json.loads(self._store.get(f"crawltalk/{self._count}"))) is not None:
            self._count += 1
            yield order


def _store() -> dist.TCPStore:
    """The store that torchrun keeps for all its processes."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(host, port, is_master=False, timeout=_TIMEOUT)
