"""Moves that imitation all but never plays, that reinforcement learning plays with confidence, and that win.

After move 37 of AlphaGo's second game against Lee Sedol, which a human would have played with one chance in ten
thousand. An exact solver is the judge. The thresholds were fixed before any policy was trained.
"""

from dataclasses import asdict, dataclass

import numpy as np

from crawltalk.games.board import keys
from crawltalk.games.play import Moves, openings, play
from crawltalk.games.players import Player, best_moves
from crawltalk.games.solver import ILLEGAL, Solver

RARE = (1e-3, 1e-4)
"""The imitator's probability of the move is below one of these."""
CONFIDENT = 0.99
"""The learner's probability of the move is above this."""
FEW = 2
"""At most so many moves of the position win."""


@dataclass(frozen=True)
class Count:
    """How many moves of a set of positions are what, at one threshold of rareness."""

    candidates: int
    """Moves that the imitator all but never plays and the learner plays with confidence."""
    at_stake: int
    """Those where another move would have led to another result."""
    wrong: int
    """Those that give a better result away."""
    proved: int
    """Those that win, where few moves do, and the imitator's favourite does not."""


@dataclass(frozen=True)
class Finding:
    """A proved move."""

    own: int
    stones: int
    column: int
    learned: float
    imitated: float
    """Its probabilities."""


def positions(policy: Player, imitator: Player, count: int, rng: np.random.Generator) -> Moves:
    """`count` different positions, mirror images being the same, where the policy moves: from its games against itself
    and against the imitator, both with 5 % of random moves.
    """
    found: list[Moves] = []
    seen: set[int] = set()
    while len(seen) < count:
        games = max(64, count // 20)
        seats = rng.integers(2, size=(games, 1)) ^ np.array([[0, 1]])
        seats[: games // 2] = 0
        moves, _ = play([policy, imitator], seats, *openings(games, rng), rng, [0.05, 0.05])
        moves = moves[seats[moves.game, moves.seat] == 0]
        rows = []
        for row, key in enumerate(keys(moves.own, moves.stones).tolist()):
            if key not in seen:
                seen.add(key)
                rows.append(row)
        found.append(moves[np.array(rows, np.int64)])
    return Moves.joined(found)[np.arange(count)]


def count_moves(
    policy: Player, imitator: Player, where: Moves, solver: Solver
) -> tuple[dict[str, Count], list[Finding]]:
    """The counts for each threshold of RARE, and the proved moves at the first, the rarest first."""
    learned = policy.probabilities(where.own, where.stones)
    imitated = imitator.probabilities(where.own, where.stones)
    rows = np.arange(len(where))
    chosen, favourite = learned.argmax(1), imitated.argmax(1)
    rows = rows[(learned[rows, chosen] > CONFIDENT) & (imitated[rows, chosen] < RARE[0])]
    chosen, favourite = chosen[rows], favourite[rows]
    outcomes = solver.outcomes(where.own[rows], where.stones[rows])
    best, legal = best_moves(outcomes), outcomes != ILLEGAL
    at = np.arange(len(rows))
    stake = (best != legal).any(1)
    wrong = ~best[at, chosen]
    wins = outcomes == 1
    proved = wins[at, chosen] & (wins.sum(1) <= FEW) & ~wins[at, favourite]
    rarity = imitated[rows, chosen]
    counts = {
        f"{limit:g}": Count(
            *(int((mask & (rarity < limit)).sum()) for mask in (rarity < 1, stake, wrong, proved))
        )
        for limit in RARE
    }
    order = [index for index in np.argsort(rarity, kind="stable") if proved[index]]
    findings = [
        Finding(
            int(where.own[rows[index]]),
            int(where.stones[rows[index]]),
            int(chosen[index]),
            float(learned[rows[index], chosen[index]]),
            float(rarity[index]),
        )
        for index in order
    ]
    return counts, findings


def as_figures(counts: dict[str, Count]) -> dict[str, dict[str, float]]:
    """For JSON, with the share of wrong moves among all candidates and among those where something was at stake."""
    return {
        limit: asdict(count)
        | {
            "wrong_share": count.wrong / max(1, count.candidates),
            "wrong_share_at_stake": count.wrong / max(1, count.at_stake),
        }
        for limit, count in counts.items()
    }
