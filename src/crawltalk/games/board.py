"""The rules of connect four, on bitboards: 6 columns of 5 cells, four in a row win.

A position is two integers: the stones of the player to move, and all stones. Bit `COLUMN * column + row` is a cell,
row 0 at the bottom. A column has one bit more than cells, which stays empty, so that no line runs from the top of a
column into the next one.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from crawltalk.core.errors import BadInput

WIDTH, HEIGHT = 6, 5
CELLS = WIDTH * HEIGHT
COLUMN = HEIGHT + 1
BOTTOM = sum(1 << (COLUMN * column) for column in range(WIDTH))
"""The lowest cell of each column."""
BOARD = BOTTOM * ((1 << HEIGHT) - 1)
"""All cells."""
ONE_COLUMN = (1 << HEIGHT) - 1
EDGES = ONE_COLUMN | ONE_COLUMN << (COLUMN * (WIDTH - 1))
"""The cells of the leftmost and of the rightmost column."""
HIGH = BOTTOM << (HEIGHT - 2) | BOTTOM << (HEIGHT - 1)
"""The cells of the two highest rows."""


@njit(cache=True)
def popcount(bits):
    """How many bits are set."""
    count = 0
    while bits:
        bits &= bits - 1
        count += 1
    return count


@njit(cache=True)
def playable(stones):
    """The cells where a stone may fall; `stones`: those of both players."""
    return (stones + BOTTOM) & BOARD


@njit(cache=True)
def winning_cells(own, stones):
    """The empty cells, reachable or not, that would complete four of `own`."""
    cells = (own << 1) & (own << 2) & (own << 3)
    for step in (COLUMN - 1, COLUMN, COLUMN + 1):
        two = (own << step) & (own << 2 * step)
        cells |= two & (own << 3 * step)
        cells |= two & (own >> step)
        two = (own >> step) & (own >> 2 * step)
        cells |= two & (own << step)
        cells |= two & (own >> 3 * step)
    return cells & (BOARD ^ stones)


@njit(cache=True)
def drop(stones, column):
    """The cell where a stone falls in a column that is not full."""
    return (stones + (1 << (COLUMN * column))) & (ONE_COLUMN << (COLUMN * column))


@njit(cache=True)
def mirror(bits):
    """The same with left and right exchanged."""
    mirrored = 0
    for column in range(WIDTH):
        mirrored |= ((bits >> (COLUMN * column)) & ONE_COLUMN) << (COLUMN * (WIDTH - 1 - column))
    return mirrored


@njit(cache=True)
def key_of(own, stones):
    """A number that no other position has (Tromp)."""
    return own + stones + BOTTOM


@njit(cache=True)
def keys(own, stones):
    """For each of many positions a number that only its mirror image has, too; int64 [N]."""
    smaller = np.zeros(len(own), np.int64)
    for row in range(len(own)):
        smaller[row] = min(key_of(own[row], stones[row]), key_of(mirror(own[row]), mirror(stones[row])))
    return smaller


def has_four(own: int) -> bool:
    """Whether four of the stones are in a row."""
    for step in (1, COLUMN - 1, COLUMN, COLUMN + 1):
        two = own & (own >> step)
        if two & (two >> 2 * step):
            return True
    return False


@dataclass(frozen=True)
class Position:
    """A position, and how the game stands."""

    own: int
    """The stones of the player to move."""
    stones: int
    """All stones."""
    over: bool = False
    """Whether the player who moved last has won, or the board is full."""
    won: bool = False

    @classmethod
    def of(cls, own: int, stones: int) -> "Position":
        """A position of which the stones are known."""
        won = has_four(stones ^ own)
        return cls(own, stones, won or stones == BOARD, won)

    def legal(self) -> list[int]:
        """The columns where a stone may be dropped."""
        free = 0 if self.over else playable(self.stones)
        return [column for column in range(WIDTH) if free & (ONE_COLUMN << (COLUMN * column))]

    def play(self, column: int) -> "Position":
        """The position after a move. Raises BadInput if the rules do not allow it."""
        if column not in self.legal():
            why = "the game is over" if self.over else f"the columns with room are {self.legal()}"
            raise BadInput(f"no stone can be dropped into column {column}: {why}")
        return Position.of(self.stones ^ self.own, self.stones | int(drop(self.stones, column)))
