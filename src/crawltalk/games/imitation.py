"""Imitation: a policy learns to predict the moves of players from their games (Silver et al. 2016, "supervised
learning of policy networks").
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crawltalk.games.board import WIDTH
from crawltalk.games.play import Moves, openings, play
from crawltalk.games.players import Player
from crawltalk.games.policy import Policy, features_of, load_policy, rates, save_policy
from crawltalk.recipe import Machine
from crawltalk.run.stage import Progress
from crawltalk.train.batches import Batch, Batches
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives import Figures

POSITIONS = 1024
"""Positions in a step."""
LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class Record:
    """Games to learn from."""

    moves: Moves
    returns: np.ndarray
    """float32 [N]: the result of each move's game for who moves."""

    def first(self, games: int) -> "Record":
        """The moves of the first games only."""
        rows = self.moves.game < games
        return Record(self.moves[rows], self.returns[rows])


def record_games(player: Player, games: int, rng: np.random.Generator) -> Record:
    """Games that a player plays against itself."""
    moves, results = play([player], np.zeros((games, 2), np.int64), *openings(games, rng), rng)
    return Record(moves, (results[moves.game] * (1 - 2 * moves.seat)).astype(np.float32))


def imitate(
    record: Record, epochs: float, seed: int, out: str | Path, machine: Machine, progress: Progress
) -> Policy:
    """A policy that was trained on each move of a record `epochs` times. `out` is the training's folder, which keeps
    the policy as policy.safetensors; a training that was stopped continues.
    """
    path = Path(out) / "policy.safetensors"
    if not path.exists():
        torch.manual_seed(seed)
        policy = Policy()
        steps = max(20, round(epochs * len(record.moves) / POSITIONS))
        options = TrainingOptions(
            steps=steps,
            optim=rates(LEARNING_RATE, cooldown=0.5),
            machine=machine,
            progress=progress,
            out=out,
            save_every=1000,
        )
        fit(policy, shuffled(record, seed), prediction, options)
        save_policy(policy, path)
    return load_policy(path)


def shuffled(record: Record, seed: int) -> Batches:
    """Batches that take each move once an epoch, in a new order."""
    moves, returns = record.moves, record.returns
    count = min(POSITIONS, len(moves))
    per_epoch = len(moves) // count
    order: dict[int, np.ndarray] = {}

    def batch(step: int) -> Batch:
        epoch, index = divmod(step, per_epoch)
        if epoch not in order:
            order.clear()
            order[epoch] = np.random.default_rng([seed, 3, epoch]).permutation(len(moves))
        rows = order[epoch][index * count : (index + 1) * count]
        return batch_of(moves[rows], returns=returns[rows])

    return batch


def batch_of(moves: Moves, **extras: np.ndarray) -> Batch:
    """A row a move: `tokens` are the position, [N, 2], and `targets` the column on the board that the policy sees,
    [N, 1].
    """
    features, turned, symmetric = features_of(moves.own, moves.stones)
    columns = np.where(turned, WIDTH - 1 - moves.column, moves.column)
    tensors = {name: torch.from_numpy(values) for name, values in extras.items()}
    return Batch(
        torch.from_numpy(np.stack((moves.own, moves.stones), 1)),
        torch.from_numpy(columns[:, None]),
        extras={"features": torch.from_numpy(features), "symmetric": torch.from_numpy(symmetric), **tensors},
    )


def prediction(policy: Policy, batch: Batch) -> tuple[Tensor, int, Figures]:
    """Cross entropy of the moves that were played, in nats, and the squared error of the value."""
    log_p, values = policy(batch.extras["features"], batch.extras["symmetric"])
    played = log_p.gather(1, batch.targets)
    agreed = (log_p.argmax(1, keepdim=True) == batch.targets).sum()
    errors = ((values - batch.extras["returns"]) ** 2).sum()
    return errors - played.sum(), len(batch), {"accuracy": agreed, "value_error": errors.detach()}


def accuracy(policy: Policy, moves: Moves) -> dict[str, Any]:
    """How often the policy's favourite is the move that was played, and its cross entropy in nats."""
    log_p, _ = policy.evaluate(moves.own, moves.stones)
    played = np.take_along_axis(log_p, moves.column[:, None], 1)
    return {
        "accuracy": float((log_p.argmax(1) == moves.column).mean()),
        "cross_entropy": float(-played.mean()),
    }
