"""Reinforcement learning by self-play (Silver et al. 2016, "reinforcement learning of policy networks").

REINFORCE (Williams 1992) with the value head as its baseline, several updates for the games of a round, with the
clipped ratio of PPO (Schulman et al. 2017). The opponents are the policy itself, older ones of itself, the imitator
that it began as, and the human. Games are played when `fit` asks for the batch of a step, by the weights of that
moment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from crawltalk.core.errors import BadInput
from crawltalk.games.imitation import batch_of
from crawltalk.games.play import openings, play
from crawltalk.games.players import Player
from crawltalk.games.policy import Policy, load_policy, rates, save_policy
from crawltalk.recipe import Machine
from crawltalk.run.stage import Metrics, Progress
from crawltalk.train.batches import Batch
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives import Figures, Objective

OPPONENTS = MappingProxyType({"itself": 0.4, "older": 0.2, "imitator": 0.2, "human": 0.2})
"""Who a policy plays against in its training -> the share of games."""


@dataclass(frozen=True, kw_only=True)
class SelfPlay:
    """How long a policy plays, and how it learns from it."""

    rounds: int = 400
    games: int = 1024
    """Games in a round."""
    updates: int = 4
    """Steps of the optimizer in a round; each takes its part of the moves."""
    learning_rate: float = 5e-4
    clip: float = 0.2
    entropy: float = 0.01
    """Weight of the entropy of the policy's moves, in nats, against a result of 1. It falls to 0 over the second half
    of the rounds.
    """
    exploration: float = 0.05
    """Share of the policy's moves that are drawn from all legal ones; falls in the same way. The policy learns from
    those that turn out better than expected (self-imitation; Oh et al. 2018). Learning from the others, which it would
    not have played, drives its entropy to zero.
    """
    trace: float = 0.95
    """Weight of what happened further on against the value of the next position: lambda of TD(lambda)."""
    snapshot_every: int = 20
    """Rounds between two older selves, and between two evaluations."""


def reinforce(
    policy: Policy,
    imitator: Player,
    human: Player,
    config: SelfPlay,
    seed: int,
    out: str | Path,
    machine: Machine,
    progress: Progress,
    evaluate: Callable[[int, Policy], dict[str, Any]] | None = None,
) -> Metrics:
    """Train `policy` in place. `out` is the training's folder; it keeps older selves in pool/, by games played. A
    training that was stopped continues, and ends with the same weights.
    """
    games = _Games(policy, {"imitator": imitator, "human": human}, config, seed, Path(out) / "pool")
    every = config.snapshot_every * config.updates
    options = TrainingOptions(
        steps=config.rounds * config.updates,
        optim=rates(config.learning_rate, cooldown=0.2),
        machine=machine,
        progress=progress,
        out=out,
        save_every=every,  # between rounds, as their games are not kept
        evaluate_every=every,
        save_model_every=every,
    )
    return fit(
        policy,
        games,
        clipped(config.clip),
        options,
        evaluate=evaluate,
        save_model=lambda done, _: games.keep(done),
    )


def clipped(clip: float) -> Objective:
    """PPO's clipped surrogate for the move that was played, the squared error of the value, and the entropy of the
    moves with its weight, which the batch brings.
    """

    def objective(policy: Policy, batch: Batch) -> tuple[Tensor, int, Figures]:
        log_p, values = policy(batch.extras["features"], batch.extras["symmetric"])
        ratio = (log_p.gather(1, batch.targets)[:, 0] - batch.extras["log_p"]).exp()
        advantages, returns = batch.extras["advantages"], batch.extras["returns"]
        gains = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
        errors = (values - returns) ** 2
        finite = log_p.masked_fill(log_p == -torch.inf, 0.0)  # where there is no room
        entropy = -(log_p.exp() * finite).sum(1)
        figures = {
            "entropy": entropy.detach().sum(),
            "clipped": ((ratio.detach() - 1).abs() > clip).sum(),
            "value_error": errors.detach().sum(),
        }
        return (errors - gains - batch.extras["entropy"] * entropy).sum(), len(batch), figures

    return objective


class _Games:
    """The batches of a training: a round's games are played at its first step."""

    def __init__(
        self, policy: Policy, opponents: Mapping[str, Player], config: SelfPlay, seed: int, pool: Path
    ) -> None:
        self._policy, self._opponents, self._config = policy, opponents, config
        self._seed, self._pool = seed, pool
        self._parts: list[Batch] = []

    def __call__(self, step: int) -> Batch:
        number, index = divmod(step, self._config.updates)
        if index == 0:
            self._parts = self._round(number)
        if not self._parts:
            raise BadInput(
                f"step {step} is within a round, whose games are gone; continue from its beginning"
            )
        return self._parts[index]

    def keep(self, done: int) -> None:
        """Put the policy after `done` steps into the pool."""
        games = done // self._config.updates * self._config.games
        save_policy(self._policy, self._pool / f"games-{games:08d}.safetensors")

    def _round(self, number: int) -> list[Batch]:
        config, rng = self._config, np.random.default_rng([self._seed, 1, number])
        older = [path for games, path in snapshots(self._pool) if games <= number * config.games]
        players = {"itself": self._policy, **self._opponents}
        players["older"] = load_policy(older[rng.integers(len(older))]) if older else players["imitator"]
        names = list(OPPONENTS)
        opponents = rng.choice(len(names), config.games, p=[OPPONENTS[name] for name in names])
        second = rng.integers(2, size=config.games)  # the seat of the opponent
        seats = np.zeros((config.games, 2), np.int64)
        seats[np.arange(config.games), second] = opponents
        own, stones = openings(config.games, rng)
        left = min(1.0, 2 * (1 - number / config.rounds))
        exploration = [config.exploration * left if name == "itself" else 0.0 for name in names]
        moves, results = play([players[name] for name in names], seats, own, stones, rng, exploration)
        points = np.where(second == 1, results, -results)
        figures = {
            f"score_{name}": float((points[opponents == index].mean() + 1) / 2)
            for index, name in enumerate(names)
            if name != "itself" and (opponents == index).any()
        }
        learned = moves[seats[moves.game, moves.seat] == names.index("itself")]
        log_p, values = self._policy.evaluate(learned.own, learned.stones)
        returns = _returns(learned.game, learned.seat, learned.explored, values, results, config.trace)
        played = np.take_along_axis(log_p, learned.column[:, None], 1)[:, 0]
        advantages = returns - values
        advantages[learned.explored] = advantages[learned.explored].clip(min=0)
        weights = np.full_like(returns, config.entropy * left)
        extras = {"log_p": played, "advantages": advantages, "returns": returns, "entropy": weights}
        parts = np.array_split(rng.permutation(len(learned)), config.updates)
        batches = [
            batch_of(learned[part], **{name: each[part] for name, each in extras.items()}) for part in parts
        ]
        return [replace(batches[0], figures=figures | {"moves": len(moves) / config.games}), *batches[1:]]


def snapshots(pool: str | Path) -> list[tuple[int, Path]]:
    """(games played, file) of the older selves of a training, oldest first."""
    files = Path(pool).glob("games-*.safetensors")
    return sorted((int(path.stem.removeprefix("games-")), path) for path in files)


@njit(cache=True)
def _returns(game, seat, explored, values, results, trace):
    """TD(lambda) returns of moves, float32 [N]: of the value of the player's next position, and of what came after.
    What comes after a random move says nothing of the policy, so there the value alone counts.
    """
    following = np.full((len(results), 2), -1, np.int64)
    returns = np.zeros(len(game), np.float32)
    for row in range(len(game) - 1, -1, -1):
        then = following[game[row], seat[row]]
        if then < 0:
            returns[row] = results[game[row]] if seat[row] == 0 else -results[game[row]]
        elif explored[then]:
            returns[row] = values[then]
        else:
            returns[row] = (1 - trace) * values[then] + trace * returns[then]
        following[game[row], seat[row]] = row
    return returns
