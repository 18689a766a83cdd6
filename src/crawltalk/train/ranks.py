"""Several processes that train one model, as torchrun starts them: `torchrun --nproc-per-node 2 -m crawltalk
pretrain small`.

Rank 0 does what a single process does: it alone builds stages, writes files and prints. The other ranks wait for
the jobs that it broadcasts, those of stages that train on all ranks, and run them at the same time.
"""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from crawltalk.recipe import Machine

Value = TypeVar("Value")

_TIMEOUT = timedelta(days=30)
"""How long a rank waits for another one: rank 0 may build other stages first, or validate between two steps.
"""


class Ranks:
    """The processes that train together; by default this one alone. Each has its share of a batch's rows
    (`Batch.share`); gradients are summed over all.
    """

    def __init__(
        self, rank: int = 0, world_size: int = 1, local_rank: int = 0, local_world_size: int = 1
    ) -> None:
        self.rank, self.world_size = rank, world_size
        self.local_rank, self.local_world_size = local_rank, local_world_size
        """This process's number among those on its machine, and how many those are."""

    @classmethod
    def from_environment(cls) -> "Ranks":
        """From the environment variables that torchrun sets."""
        names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        return cls(*(int(os.environ.get(name, default)) for name, default in names.items()))

    @classmethod
    def join(cls, machine: Machine, name: str) -> "Ranks":
        """Join the process group: NCCL between GPUs, gloo between CPUs. `name` is that of the training; the
        ranks find each other under it in torchrun's store, so each training of a command has its own.
        """
        ranks = cls.from_environment()
        if ranks.world_size > 1 and not dist.is_initialized():
            store = dist.PrefixStore(
                f"crawltalk/{name}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", _store()
            )
            backend = "nccl" if machine.device == "cuda" else "gloo"
            dist.init_process_group(
                backend, store=store, rank=ranks.rank, world_size=ranks.world_size, timeout=_TIMEOUT
            )
        return ranks

    def leave(self) -> None:
        """Leave the process group when the training is over."""
        if self.world_size > 1:
            dist.destroy_process_group()

    def device(self, name: str | None) -> torch.device:
        """The device of this rank."""
        return torch.device("cuda", self.local_rank) if name == "cuda" else torch.device(name or "cpu")

    def sum(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, in one all-reduce."""
        if self.world_size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in their order, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: str) -> str:
        """Rank 0's value, on every rank."""
        box = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(box)
        return box[0]


ALONE = Ranks()


class JobBroadcast:
    """The jobs of a whole command, through torchrun's store: rank 0 sends them, the other ranks receive them."""

    def __init__(self) -> None:
        self._store = _store()
        self._count = 0

    def send(self, job: dict[str, Any] | None) -> None:
        """Send a job (see `run.execute.build`) to all other ranks; None: there are no more."""
        self._store.set(f"crawltalk/{self._count}", json.dumps(job))
        self._count += 1

    def receive(self) -> Iterator[dict[str, Any]]:
        """The jobs, as they come; ends when there are no more."""
        while (job := json.loads(self._store.get(f"crawltalk/{self._count}"))) is not None:
            self._count += 1
            yield job


def _store() -> dist.TCPStore:
    """The key-value store that torchrun keeps for all its processes."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(host, port, is_master=False, timeout=_TIMEOUT)
