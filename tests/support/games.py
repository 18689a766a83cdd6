"""Connect four on a plain grid, and games at random."""

import random
from collections.abc import Iterable

from crawltalk.games.board import COLUMN, HEIGHT, WIDTH, Position

DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1))


def position_after(columns: Iterable[int]) -> Position:
    """The position after moves from the empty board."""
    position = Position(0, 0)
    for column in columns:
        position = position.play(column)
    return position


def has(stones: int, column: int, height: int) -> bool:
    """Whether a cell of the board has one of the stones."""
    inside = 0 <= column < WIDTH and 0 <= height < HEIGHT
    return inside and bool(stones >> (COLUMN * column + height) & 1)


def wins_on(own: int, column: int, height: int) -> bool:
    """Whether a further stone on a cell completes four in a row."""
    for right, up in DIRECTIONS:
        length = 1
        for sign in (1, -1):
            steps = 1
            while has(own, column + sign * steps * right, height + sign * steps * up):
                steps += 1
            length += steps - 1
        if length >= 4:
            return True
    return False


def grid_of(position: Position) -> list[list[bool]]:
    """The columns, each with its stones from below."""
    return [
        [True for height in range(HEIGHT) if has(position.stones, column, height)] for column in range(WIDTH)
    ]


def random_game(seed: int, fewest: int = 0, most: int = 30) -> list[int]:
    """The moves of a game at random, up to some number of them or its end."""
    rng = random.Random(seed)
    position, columns = Position(0, 0), list[int]()
    for _ in range(rng.randint(fewest, most)):
        if position.over:
            break
        columns.append(rng.choice(position.legal()))
        position = position.play(columns[-1])
    return columns


def undecided(seed: int, fewest: int, most: int) -> Position:
    """A position of a game that goes on, with so many stones, at random."""
    rng = random.Random(seed)
    wanted = rng.randint(fewest, most)
    while True:
        position = Position(0, 0)
        while position.stones.bit_count() < wanted:
            after = [position.play(column) for column in position.legal()]
            going = [one for one in after if not one.over]
            if not going:
                break
            position = rng.choice(going)
        else:
            return position


def brute_force(position: Position) -> int:
    """The score of a position by trying everything: see `crawltalk.games.solver`."""
    if position.over:
        empty = WIDTH * HEIGHT - position.stones.bit_count()
        return -(empty // 2 + 1) if position.won else 0
    return max(-brute_force(position.play(column)) for column in position.legal())
