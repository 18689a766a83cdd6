"""The solver is exact."""

from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.games.board import WIDTH, mirror
from crawltalk.games.players import Perfect, best_moves
from crawltalk.games.solver import ILLEGAL, Solver
from support.games import brute_force, undecided

quick = settings(deadline=None, max_examples=60)  # the first example compiles


@cache
def solver() -> Solver:
    return Solver(100_003)


def arrays(*numbers):
    return [np.array([number], np.int64) for number in numbers]


@quick
@given(st.integers(0, 10**9))
def test_scores_are_those_of_brute_force(seed):
    position = undecided(seed, 22, 29)
    expected = [ILLEGAL] * WIDTH
    for column in position.legal():
        expected[column] = -brute_force(position.play(column))
    scores = solver().scores(position.own, position.stones)
    assert scores.tolist() == expected


@quick
@given(st.integers(0, 10**9))
def test_outcomes_are_the_signs_of_scores_and_those_of_a_solver_that_has_seen_nothing(seed):
    position = undecided(seed, 14, 29)
    outcomes = solver().outcomes(*arrays(position.own, position.stones))
    scores = solver().scores(position.own, position.stones)
    legal = scores != ILLEGAL
    assert (outcomes[0][legal] == np.sign(scores[legal])).all() and (outcomes[0][~legal] == ILLEGAL).all()
    assert (Solver(1009).outcomes(*arrays(position.own, position.stones)) == outcomes).all()


@quick
@given(st.integers(0, 10**9))
def test_a_mirrored_position_has_mirrored_scores(seed):
    position = undecided(seed, 12, 29)
    mirrored = solver().scores(mirror(position.own), mirror(position.stones))
    assert mirrored[::-1].tolist() == solver().scores(position.own, position.stones).tolist()


def test_a_perfect_player_never_gives_a_result_away():
    positions = [undecided(seed, 14, 26) for seed in range(200)]
    own, stones = (np.array([getattr(one, name) for one in positions]) for name in ("own", "stones"))
    best = best_moves(solver().outcomes(own, stones))
    probabilities = Perfect(solver()).probabilities(own, stones)
    assert np.allclose(probabilities.sum(1), 1) and not probabilities[~best].any()
