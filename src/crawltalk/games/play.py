"""Many games at once, between any players, from random openings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from crawltalk.games.board import BOARD, COLUMN, ONE_COLUMN, WIDTH, drop, playable, winning_cells
from crawltalk.games.players import Player

MAX_OPENING = 6
"""Random moves at most before players take over."""


@dataclass(frozen=True)
class Moves:
    """What was played, one row a move, in the order of the games' moves."""

    game: np.ndarray
    """int64: the game's number."""
    own: np.ndarray
    """int64: the stones of who moves."""
    stones: np.ndarray
    """int64: all stones."""
    seat: np.ndarray
    """int64: 0 if who moves is the one who moved first, else 1."""
    column: np.ndarray
    """int64"""
    explored: np.ndarray
    """bool: whether the move was drawn from all legal ones, to explore."""

    def __len__(self) -> int:
        return len(self.game)

    def __getitem__(self, rows: np.ndarray) -> "Moves":
        return Moves(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @classmethod
    def joined(cls, parts: "Sequence[Moves]") -> "Moves":
        """The rows of all parts, in their order."""
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__)
        )


def openings(games: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions after 0 to 6 random moves that decide nothing, each with the same chance: (own, stones), int64."""
    return _openings(rng.integers(MAX_OPENING + 1, size=games), rng.random((games, MAX_OPENING)))


def play(
    players: Sequence[Player],
    seats: np.ndarray,
    own: np.ndarray,
    stones: np.ndarray,
    rng: np.random.Generator,
    exploration: Sequence[float] = (),
) -> tuple[Moves, np.ndarray]:
    """Play games to their ends. `seats`: int64 [N, 2], the numbers of the players who move first and second;
    `exploration`: the share of random moves of each player, if any.

    Returns all moves, and the results, int64 [N]: 1 if who moved first won, -1 if the other, 0 for a draw.
    """
    own, stones = own.copy(), stones.copy()
    results, turn = np.zeros(len(own), np.int64), 0
    shares = np.array(exploration or [0.0] * len(players))
    going, played = np.arange(len(own)), []
    while len(going):
        mover, columns = seats[going, turn], np.zeros(len(going), np.int64)
        draws, explores = rng.random(len(going)), rng.random(len(going)) < shares[mover]
        for number, player in enumerate(players):
            rows = np.flatnonzero(mover == number)
            if len(rows):
                at = going[rows]
                probabilities = player.probabilities(own[at], stones[at])
                columns[rows] = _draw(probabilities, stones[at], draws[rows], explores[rows])
        played.append(Moves(going, own[going], stones[going], np.full(len(going), turn), columns, explores))
        over = _advance(own, stones, going, columns, results, 1 - 2 * turn)
        going, turn = going[~over], 1 - turn
    return Moves.joined(played), results


def match(first: Player, second: Player, games: int, rng: np.random.Generator) -> float:
    """The share of points (a draw is half of one) that `first` takes from `second`, each opening played twice with
    seats changed.
    """
    own, stones = openings(games // 2, rng)
    own, stones = np.tile(own, 2), np.tile(stones, 2)
    seats = np.repeat([[0, 1], [1, 0]], games // 2, axis=0)
    _, results = play([first, second], seats, own, stones, rng)
    return float((np.where(seats[:, 0] == 0, results, -results).mean() + 1) / 2)


@njit(cache=True)
def _openings(lengths, draws):
    games = len(lengths)
    own, stones = np.zeros(games, np.int64), np.zeros(games, np.int64)
    for game in range(games):
        for move in range(lengths[game]):
            wins = winning_cells(own[game], stones[game]) & playable(stones[game])
            cell = drop(stones[game], _pick(playable(stones[game]), draws[game, move]))
            if cell & wins:
                break
            own[game] ^= stones[game]
            stones[game] |= cell
    return own, stones


@njit(cache=True)
def _pick(cells, draw):
    """A column with one of the cells, each with the same chance; `draw` is in [0, 1)."""
    count = 0
    for column in range(WIDTH):
        count += (cells & (ONE_COLUMN << (COLUMN * column))) != 0
    number = int(draw * count)
    for column in range(WIDTH):
        if cells & (ONE_COLUMN << (COLUMN * column)):
            if number == 0:
                return column
            number -= 1
    return -1


@njit(cache=True)
def _draw(probabilities, stones, draws, explores):
    columns = np.zeros(len(draws), np.int64)
    for row in range(len(draws)):
        free = playable(stones[row])
        if explores[row]:
            columns[row] = _pick(free, draws[row])
            continue
        rest = draws[row] * probabilities[row].sum()
        for column in range(WIDTH):
            if free & (ONE_COLUMN << (COLUMN * column)) and probabilities[row, column] > 0:
                columns[row] = column  # the last possible one, should sums be rounded
                if rest < probabilities[row, column]:
                    break
                rest -= probabilities[row, column]
    return columns


@njit(cache=True)
def _advance(own, stones, going, columns, results, sign):
    """Play a move in each game that goes on. Returns which of them are over."""
    over = np.zeros(len(going), np.bool_)
    for row in range(len(going)):
        game = going[row]
        cell = drop(stones[game], columns[row])
        won = (winning_cells(own[game], stones[game]) & cell) != 0
        own[game] ^= stones[game]
        stones[game] |= cell
        if won:
            results[game] = sign
        over[row] = won or stones[game] == BOARD
    return over
