"""A search on top of a policy."""

import numpy as np
import torch

from crawltalk.games.board import WIDTH, Position, playable
from crawltalk.games.play import match, openings
from crawltalk.games.players import Greedy, columns_of
from crawltalk.games.policy import Policy
from crawltalk.games.search import Searching
from support.games import position_after


def untrained() -> Policy:
    torch.manual_seed(0)
    return Policy().eval()


def test_it_sees_a_win_and_what_would_lose():
    threat = position_after([0, 1, 0, 1, 0])  # three of the opponent in column 0
    double = position_after([2, 0, 3, 0])  # a stone in column 4 threatens to win on either side
    for position, good in ((threat, {0}), (double, {4})):
        found = Searching(untrained(), 200).probabilities(
            np.array([position.own]), np.array([position.stones])
        )
        assert int(found[0].argmax()) in good


def test_simulations_are_shared_among_allowed_moves_and_positions_do_not_disturb_each_other():
    own, stones = openings(30, np.random.default_rng(0))
    player = Searching(untrained(), 16)
    found = player.probabilities(own, stones)
    assert np.allclose(found.sum(1), 1) and found.shape == (30, WIDTH)
    assert not (found[~columns_of(playable(stones))] > 0).any()
    assert (player.probabilities(own[7:8], stones[7:8]) == found[7]).all()


def test_what_it_tells_of_a_lost_and_a_drawn_end_is_so():
    """With one cell left there is one move, whatever the network says."""
    position = Position(0, 0)
    for column in (0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 2, 3, 2, 3, 3, 2, 2, 3, 2, 3, 4, 5, 4, 5, 5, 4, 4, 5, 4):
        position = position.play(column)
    assert position.legal() == [5] and not position.over
    found = Searching(untrained(), 8).probabilities(np.array([position.own]), np.array([position.stones]))
    assert found[0].tolist() == [0, 0, 0, 0, 0, 1]


def test_it_plays_better_than_its_policy():
    policy = untrained()
    rng = np.random.default_rng(0)
    assert match(Greedy(Searching(policy, 32)), Greedy(policy), 40, rng) > 0.75
