"""Who plays: anybody who gives the probabilities of moves for many positions at once.

Among them is the human that policies learn from: a search of known depth with a blind spot that is stated. It plays
well where it looks, and never plays, nor expects, a quiet move in the cells that do not exist for it.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numba import njit

from crawltalk.games.board import (
    BOARD,
    COLUMN,
    EDGES,
    HIGH,
    ONE_COLUMN,
    WIDTH,
    key_of,
    playable,
    popcount,
    winning_cells,
)
from crawltalk.games.solver import ILLEGAL, Solver

BLIND_SPOTS = {"edges": EDGES, "high": HIGH, "none": 0}
"""Name of a blind spot -> its cells."""
CENTRE = ((1 << 2 * COLUMN) - 1) << (2 * COLUMN)
"""The two columns in the middle."""
INNER = BOARD & ~EDGES
"""All columns but those at the edges."""
WIN = 250
NEAR = 1
"""Points below the best move within which a move is as good for a human."""


class Player(Protocol):
    """Whoever can play."""

    def probabilities(self, own: np.ndarray, stones: np.ndarray) -> np.ndarray:
        """Of each column in positions of games that are not over, float32 [N, 6]; `own`, `stones`: int64 [N]."""
        ...


class Random:
    """Any move that the rules allow."""

    def probabilities(self, own: np.ndarray, stones: np.ndarray) -> np.ndarray:
        return _equal(columns_of(playable(stones)))


@dataclass(frozen=True)
class Human:
    """Searches `depth` moves ahead, its own first, and values what it finds by threats and stones in the middle. Moves
    within a point of the best are equal to it.

    A move is quiet if it neither wins nor prevents a win of the opponent. Quiet moves in the `blind` cells do not
    exist for it, in its own play or its opponent's, unless there is no other move.
    """

    depth: int = 4
    blind: int = EDGES
    _seen: tuple[np.ndarray, np.ndarray] = field(
        default_factory=lambda: (np.zeros(1_048_573, np.int64), np.zeros(1_048_573, np.int64)), repr=False
    )
    """Its choices in positions that it has met."""

    def probabilities(self, own: np.ndarray, stones: np.ndarray) -> np.ndarray:
        return _equal(_choices(own, stones, self.depth, self.blind, *self._seen))


@dataclass(frozen=True)
class Perfect:
    """Plays any move that keeps what the position is worth."""

    solver: Solver

    def probabilities(self, own: np.ndarray, stones: np.ndarray) -> np.ndarray:
        return _equal(best_moves(self.solver.outcomes(own, stones)))


@dataclass(frozen=True)
class Greedy:
    """Plays the most likely move of another player."""

    player: Player

    def probabilities(self, own: np.ndarray, stones: np.ndarray) -> np.ndarray:
        probabilities = self.player.probabilities(own, stones)
        return np.eye(WIDTH, dtype=np.float32)[probabilities.argmax(1)]


def best_moves(outcomes: np.ndarray) -> np.ndarray:
    """Which moves keep what a position is worth, bool [N, 6], by a solver's outcomes."""
    return (outcomes == outcomes.max(1, keepdims=True)) & (outcomes != ILLEGAL)


def columns_of(cells: np.ndarray) -> np.ndarray:
    """Which columns have one of the cells, bool [N, 6]."""
    return (cells[:, None] & (ONE_COLUMN << (COLUMN * np.arange(WIDTH)))) != 0


def _equal(moves: np.ndarray) -> np.ndarray:
    return moves.astype(np.float32) / moves.sum(1, keepdims=True, dtype=np.float32)


def _choices(
    own: np.ndarray, stones: np.ndarray, depth: int, blind: int, keys: np.ndarray, cells: np.ndarray
) -> np.ndarray:
    return columns_of(_near_best(own, stones, depth, blind, keys, cells))


@njit(cache=True)
def _near_best(own, stones, depth, blind, keys, known):
    """The cells of the moves that are as good as the best to a human."""
    chosen = np.zeros(len(own), np.int64)
    for row in range(len(own)):
        key = key_of(own[row], stones[row])
        place = key % len(keys)
        if keys[place] != key:
            keys[place], known[place] = key, _near_best_of(own[row], stones[row], depth, blind)
        chosen[row] = known[place]
    return chosen


@njit(cache=True)
def _near_best_of(own, stones, depth, blind):
    wins = winning_cells(own, stones) & playable(stones)
    if wins:
        return wins
    moves = _considered(own, stones, blind)
    if not moves & (moves - 1):
        return moves
    best, values = -2 * WIN, 0
    for column in range(WIDTH):  # values above -2 * WIN, ten bits a column
        cell = moves & (ONE_COLUMN << (COLUMN * column))
        if cell:
            value = -_search(stones ^ own, stones | cell, depth - 1, -2 * WIN, -(best - NEAR - 1), blind)
            best = max(best, value)
            values |= (value + 2 * WIN) << (10 * column)
    chosen = 0
    for column in range(WIDTH):
        cell = moves & (ONE_COLUMN << (COLUMN * column))
        if cell and ((values >> (10 * column)) & 1023) - 2 * WIN >= best - NEAR:
            chosen |= cell
    return chosen


@njit(cache=True)
def _considered(own, stones, blind):
    """The moves that exist for a human who cannot win at once."""
    moves = playable(stones)
    forced = moves & winning_cells(stones ^ own, stones)
    if forced:
        return forced
    seen = moves & ~blind
    return seen if seen else moves


@njit(cache=True)
def _search(own, stones, depth, alpha, beta, blind):
    if winning_cells(own, stones) & playable(stones):
        return WIN + depth
    if stones == BOARD:
        return 0
    opponent = stones ^ own
    if depth == 0:
        threats = popcount(winning_cells(own, stones)) - popcount(winning_cells(opponent, stones))
        middle = popcount(own & CENTRE) - popcount(opponent & CENTRE)
        return 6 * threats + middle + popcount(own & INNER) - popcount(opponent & INNER)
    moves, best = _considered(own, stones, blind), -2 * WIN
    while moves:
        cell = moves & -moves
        moves ^= cell
        value = -_search(opponent, stones | cell, depth - 1, -beta, -max(alpha, best), blind)
        best = max(best, value)
        if best >= beta:
            break
    return best
