"""Many games at once, the human and its blind spot, ratings."""

import numpy as np
import pytest

from crawltalk.games.board import EDGES, HIGH, Position, mirror, playable, winning_cells
from crawltalk.games.elo import MatchResult, ratings
from crawltalk.games.play import match, openings, play
from crawltalk.games.players import BLIND_SPOTS, Greedy, Human, Random, columns_of
from support.games import position_after, random_game


def test_every_move_is_allowed_and_results_are_those_of_the_rules():
    rng = np.random.default_rng(0)
    own, stones = openings(200, rng)
    seats = np.repeat([[0, 1], [1, 0]], 100, axis=0)
    moves, results = play([Random(), Human()], seats, own, stones, rng)
    for game in range(200):
        rows = np.flatnonzero(moves.game == game)
        position = Position(int(own[game]), int(stones[game]))
        for row in rows:
            assert (position.own, position.stones) == (moves.own[row], moves.stones[row])
            position = position.play(int(moves.column[row]))
        assert position.over
        last = 1 if moves.seat[rows[-1]] == 0 else -1
        assert results[game] == (last if position.won else 0)


def test_openings_have_up_to_six_stones_and_decide_nothing():
    own, stones = openings(500, np.random.default_rng(1))
    counts = [int(each).bit_count() for each in stones]
    assert set(counts) == set(range(7))
    assert not any(winning_cells(a ^ b, b) & ~b & b for a, b in zip(own, stones, strict=True))


def test_games_depend_on_the_seed_alone():
    first, second = (match(Human(), Random(), 60, np.random.default_rng(3)) for _ in range(2))
    assert first == second > 0.9


@pytest.mark.parametrize("blind", [EDGES, HIGH])
def test_a_human_plays_into_its_blind_spot_only_to_win_to_prevent_a_win_or_for_want_of_another_move(blind):
    rng = np.random.default_rng(2)
    own, stones = openings(300, rng)
    moves, _ = play([Human(4, blind)], np.zeros((300, 2), np.int64), own, stones, rng)
    blindly = 0
    for mine, both, column in zip(
        moves.own.tolist(), moves.stones.tolist(), moves.column.tolist(), strict=True
    ):
        free = playable(both)
        cell = free & (0b11111 << (6 * column))
        loud = (winning_cells(mine, both) | winning_cells(both ^ mine, both)) & free
        assert not cell & blind or loud & cell or not free & ~blind
        blindly += bool(cell & blind)
    assert blindly > 100


def test_a_human_wins_at_once_and_blocks():
    human = Human(4, BLIND_SPOTS["edges"])
    wins, blocks = position_after([0, 2, 0, 2, 0, 3]), position_after([0, 2, 0, 2, 0])
    for position in (wins, blocks):
        probabilities = human.probabilities(np.array([position.own]), np.array([position.stones]))
        assert probabilities[0].tolist() == [1, 0, 0, 0, 0, 0]


def test_a_human_sees_no_difference_between_left_and_right():
    positions = [position_after(random_game(seed, 0, 24)) for seed in range(300)]
    going = [one for one in positions if not one.over]
    own, stones = (np.array([getattr(one, name) for one in going]) for name in ("own", "stones"))
    turned_own, turned_stones = (np.array([mirror(int(each)) for each in these]) for these in (own, stones))
    for player in (Human(), Random()):
        straight = player.probabilities(own, stones)
        assert (player.probabilities(turned_own, turned_stones)[:, ::-1] == straight).all()
        assert not straight[~columns_of(np.array([playable(int(each)) for each in stones]))].any()


def test_who_looks_further_ahead_is_stronger_and_blindness_costs_points():
    rng = np.random.default_rng(4)
    assert match(Human(4, 0), Human(1, 0), 600, rng) > 0.6
    assert match(Human(4, 0), Human(4, EDGES), 600, rng) > 0.6
    assert match(Greedy(Human(4, 0)), Random(), 200, rng) > 0.95


def test_elo_says_what_share_of_points_to_expect():
    results = [MatchResult("a", "b", 100_000, 0.75), MatchResult("b", "c", 100_000, 0.75)]
    elo = ratings(results, "b")
    assert (
        elo["b"] == 0
        and elo["a"] == pytest.approx(190.8, abs=0.2)
        and elo["c"] == pytest.approx(-190.8, abs=0.2)
    )
    assert ratings([MatchResult("a", "b", 10, 1.0)], "b")["a"] > 400
