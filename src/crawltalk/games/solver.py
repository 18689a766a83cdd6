"""The exact value of every move, by negamax with alpha-beta over bitboards (Pons, "Solving Connect 4").

A score says who wins and how soon: the player to move who wins with the last stone has 1, one who wins a move sooner
2; negative if the opponent wins; 0 for a draw. Bounds that were found stay in a table, so positions of one game, or of
many, help each other.
"""

import numpy as np
from numba import njit

from crawltalk.games.board import (
    CELLS,
    COLUMN,
    ONE_COLUMN,
    WIDTH,
    drop,
    key_of,
    mirror,
    playable,
    popcount,
    winning_cells,
)

BEST = (CELLS + 1) // 2
"""No score is higher."""
ILLEGAL = -127
"""Stands for a score where no move is allowed."""
TABLE = 4_194_301
"""Places of a solver's table, a prime; 10 bytes each."""


class Solver:
    """Scores of positions; one thread at a time."""

    def __init__(self, places: int = TABLE) -> None:
        self._keys = np.zeros(places, np.int64)
        self._bounds = np.zeros((places, 2), np.int8)

    def scores(self, own: int, stones: int) -> np.ndarray:
        """The score of each move, int8 [6]; ILLEGAL for columns that are full."""
        positions = np.array([own], np.int64), np.array([stones], np.int64)
        return _move_scores(*positions, BEST, self._keys, self._bounds)[0]

    def outcomes(self, own: np.ndarray, stones: np.ndarray) -> np.ndarray:
        """What each move of many positions leads to, int8 [N, 6]: 1 if it wins, 0 draws, -1 loses; ILLEGAL for
        columns that are full. Ten times faster than how soon.
        """
        return _move_scores(own, stones, 1, self._keys, self._bounds)


@njit(cache=True)
def _move_scores(own, stones, bound, keys, bounds):
    scores = np.full((len(own), WIDTH), ILLEGAL, np.int8)
    for row in range(len(own)):
        count = popcount(stones[row])
        wins = winning_cells(own[row], stones[row])
        for column in range(WIDTH):
            if not playable(stones[row]) & (ONE_COLUMN << (COLUMN * column)):
                continue
            cell = drop(stones[row], column)
            if wins & cell:
                scores[row, column] = min(bound, (CELLS + 1 - count) // 2)
            elif count == CELLS - 1:
                scores[row, column] = 0
            else:
                opponent = stones[row] ^ own[row]
                scores[row, column] = -_score(opponent, stones[row] | cell, -bound, bound, keys, bounds)
    return scores


@njit(cache=True)
def _score(own, stones, alpha, beta, keys, bounds):
    """The score of a position, cut off at `alpha` and `beta`: found by asking whether it is above one value or
    another, which is fast (Pons, part 8).
    """
    count = popcount(stones)
    if winning_cells(own, stones) & playable(stones):
        return min(beta, (CELLS + 1 - count) // 2)
    low, high = max(alpha, -((CELLS - count) // 2)), min(beta, (CELLS - 1 - count) // 2)
    while low < high:
        middle = low + (high - low) // 2
        if middle <= 0 and low // 2 < middle:
            middle = low // 2
        elif middle >= 0 and high // 2 > middle:
            middle = high // 2
        found = _negamax(own, stones, count, middle, middle + 1, keys, bounds)
        if found <= middle:
            high = found
        else:
            low = found
    return min(beta, max(alpha, low))


@njit(cache=True)
def _negamax(own, stones, count, alpha, beta, keys, bounds):
    """The score where it is between `alpha` and `beta`, else a bound of it. The player to move cannot win at once."""
    opponent = stones ^ own
    moves = playable(stones)
    threats = winning_cells(opponent, stones)
    forced = moves & threats
    lost = -((CELLS - count) // 2)
    if forced:
        if forced & (forced - 1):
            return lost
        moves = forced
    moves &= ~(threats >> 1)  # below a cell where the opponent wins
    if not moves:
        return lost
    if count >= CELLS - 2:
        return 0
    alpha = max(alpha, -((CELLS - 2 - count) // 2))
    beta = min(beta, (CELLS - 1 - count) // 2)
    if alpha >= beta:
        return alpha
    key = key_of(own, stones)
    if count < 12:
        key = min(key, key_of(mirror(own), mirror(stones)))
    place = key % len(keys)
    known = keys[place] == key
    if known:
        alpha, beta = max(alpha, bounds[place, 0]), min(beta, bounds[place, 1])
        if alpha >= beta:
            return bounds[place, 0] if bounds[place, 0] >= beta else bounds[place, 1]
    first = alpha
    # moves by how many cells they would win at next; the middle first among equals. One byte a column.
    order = 0
    for column in range(WIDTH):
        cell = moves & (ONE_COLUMN << (COLUMN * column))
        if cell:
            middle = min(column, WIDTH - 1 - column)
            promise = 1 + 4 * popcount(winning_cells(own | cell, stones | cell)) + middle
            order |= promise << (8 * column)
    best = -BEST
    while order:
        chosen, most = 0, 0
        for column in range(WIDTH):
            promise = (order >> (8 * column)) & 255
            if promise > most:
                chosen, most = column, promise
        order &= ~(255 << (8 * chosen))
        cell = moves & (ONE_COLUMN << (COLUMN * chosen))
        score = -_negamax(opponent, stones | cell, count + 1, -beta, -alpha, keys, bounds)
        best = max(best, score)
        alpha = max(alpha, score)
        if alpha >= beta:
            break
    if keys[place] != key:  # also if a deeper position has taken the place meanwhile
        keys[place] = key
        bounds[place, 0], bounds[place, 1] = -BEST, BEST
    if best > first:
        bounds[place, 0] = max(bounds[place, 0], best)
    if best < beta:
        bounds[place, 1] = min(bounds[place, 1], best)
    return best
