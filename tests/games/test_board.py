"""The rules on bitboards equal those on a plain grid."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.games.board import (
    BOARD,
    COLUMN,
    HEIGHT,
    WIDTH,
    Position,
    key_of,
    keys,
    mirror,
    playable,
    winning_cells,
)
from crawltalk.games.players import columns_of
from support.games import grid_of, position_after, random_game, wins_on

quick = settings(deadline=None, max_examples=60)  # the first example compiles
GAMES = st.integers(0, 10**9).map(random_game)


@quick
@given(GAMES)
def test_a_move_is_allowed_where_a_column_has_room(columns):
    position = position_after(columns)
    grid = grid_of(position)
    room = [column for column in range(WIDTH) if len(grid[column]) < HEIGHT]
    assert columns_of(_array(playable(position.stones)))[0].nonzero()[0].tolist() == room
    assert position.legal() == ([] if position.over else room)


@quick
@given(GAMES)
def test_the_winning_cells_are_those_that_complete_four_in_a_row(columns):
    position = position_after(columns)
    expected = 0
    for column in range(WIDTH):
        for height in range(HEIGHT):
            cell = 1 << (COLUMN * column + height)
            if not position.stones & cell and wins_on(position.own, column, height):
                expected |= cell
    assert winning_cells(position.own, position.stones) == expected


@quick
@given(GAMES)
def test_a_position_and_its_mirror_image_have_one_key_and_no_other_position_has_it(columns):
    one = position_after(columns)
    other = position_after([WIDTH - 1 - column for column in columns])
    assert (mirror(one.own), mirror(one.stones)) == (other.own, other.stones)
    assert keys(_array(one.own), _array(one.stones)) == keys(_array(other.own), _array(other.stones))
    later = one if one.over else one.play(one.legal()[0])
    assert later is one or key_of(later.own, later.stones) != key_of(one.own, one.stones)


def test_a_game_ends_with_four_in_a_row():
    position = position_after([0, 1, 0, 1, 0, 1, 0])
    assert (position.over, position.won, position.legal()) == (True, True, [])
    with pytest.raises(BadInput, match="the game is over"):
        position.play(2)


def test_a_full_column_and_one_that_is_not_there_are_refused():
    full = position_after([0] * HEIGHT)
    for column in (0, -1, WIDTH):
        with pytest.raises(BadInput, match="columns with room are"):
            full.play(column)


def test_a_full_board_without_four_in_a_row_is_a_draw():
    position = Position(0, 0)
    for column in [0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 2, 3, 2, 3, 3, 2, 3, 2, 2, 3, 4, 5, 4, 5, 5, 4, 5, 4, 4, 5]:
        position = position.play(column)
    assert (position.over, position.won, position.stones) == (True, False, BOARD)


def _array(number):
    import numpy as np

    return np.array([number], np.int64)
