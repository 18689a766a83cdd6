"""Rollouts beyond one machine: Ray actors, each with an engine of its own (`pip install ray`).

The weights of a step go into Ray's object store once, from where each machine fetches them. The actors share the
problems. If one dies, Ray starts it anew, and it redoes its share: a reply depends on the seed and on its own numbers,
so a step is the same whoever samples, and however often.

The machines must see the folder of the model under the same path. Their processors should be of one kind: the engine is
compiled for each, and another one may round otherwise.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from crawltalk.core.errors import UserError
from crawltalk.core.types import Problem
from crawltalk.engine import Sampling
from crawltalk.model.lora import merged_weights
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.rollouts import Rollout, Rollouts
from crawltalk.recipe import Machine
from crawltalk.run.ray_cluster import connect

Weights = dict[str, np.ndarray]
RESTARTS = 100
"""How often an actor is started anew, and how often it redoes what it was asked."""


class RayRollouts(Rollouts):
    """Replies by the actors of a cluster; a context manager that is connected to it."""

    def __init__(
        self, own: Rollouts, make: Callable[[], tuple[Rollouts, Transformer]], machine: Machine
    ) -> None:
        """`own`: the same in this process, which is asked what fits. `make` is called in each actor: replies, and a
        model to hold their weights. Raises MissingInput without Ray, or without a cluster at `machine.ray_address`.
        """
        self.own, self.max_tokens = own, own.max_tokens
        self.ray = connect(machine)
        count = max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        actor = self.ray.remote(num_cpus=1, max_restarts=RESTARTS, max_task_retries=RESTARTS)(Worker)
        self.workers = [actor.remote(make) for _ in range(count)]
        self._weights: Any = None
        self._version = 0

    def __enter__(self) -> "RayRollouts":
        return self

    def __exit__(self, *error: object) -> None:
        self.ray.shutdown()

    def update_weights(self, model: Transformer) -> None:
        """Put the weights into the object store."""
        weights = {name: weight.detach().float().cpu().numpy() for name, weight in merged_weights(model)}
        self._weights, self._version = self.ray.put(weights), self._version + 1

    def fits(self, problem: Problem) -> bool:
        """Whether the model can read the problem and has room for a reply."""
        return self.own.fits(problem)

    def sample(
        self, problems: Sequence[Problem], numbers: Sequence[int], samples: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        """See `Rollouts`. Of n actors the first has the problems 0, n, 2n, ... Raises UserError if they die again and
        again.
        """
        count = len(self.workers)
        shares = [
            worker.sample.remote(
                [self._weights],  # in a list: the actor fetches them only if it has others
                self._version,
                list(problems[index::count]),
                list(numbers[index::count]),
                samples,
                sampling,
            )
            for index, worker in enumerate(self.workers)
        ]
        try:
            found = self.ray.get(shares)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except self.ray.exceptions.RayError as error:
            raise UserError(
                f"Ray gave up on rollouts ({type(error).__name__}); checkpoints are kept: run again"
            ) from None
        return [found[index % count][index // count] for index in range(len(problems))]


class Worker:
    """One actor."""

    def __init__(self, make: Callable[[], tuple[Rollouts, Transformer]]) -> None:
        torch.set_num_threads(1)
        self.rollouts, self.model = make()
        self.version = 0

    def sample(
        self,
        weights: Sequence[Any],
        version: int,
        problems: Sequence[Problem],
        numbers: Sequence[int],
        samples: int,
        sampling: Sampling,
    ) -> list[list[Rollout]]:
        """Replies to its share of the problems, by the weights of this version."""
        if version != self.version:
            import ray

            fetched: Weights = ray.get(weights[0])
            self.model.load_state_dict(
                {name: torch.from_numpy(np.array(one)) for name, one in fetched.items()}
            )
            self.rollouts.update_weights(self.model)
            self.version = version
        return self.rollouts.sample(problems, numbers, samples, sampling)
