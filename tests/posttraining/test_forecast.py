"""Before a reinforcement: will replies grow?"""

import random

import pytest

from crawltalk.posttraining.forecast import length_forecast


def replies(accuracy_long: float, accuracy_short: float, share: float) -> tuple[list, list]:
    """Groups of eight replies of 33 or of 2 tokens."""
    rng = random.Random(1)
    lengths = [[33 if rng.random() < share else 2 for _ in range(8)] for _ in range(200)]
    rewards = [
        [float(rng.random() < (accuracy_long if length == 33 else accuracy_short)) for length in group]
        for group in lengths
    ]
    return lengths, rewards


@pytest.mark.parametrize("share", [0.03, 0.5])
def test_replies_grow_where_longer_ones_are_worth_more_and_shrink_where_they_are_not(share):
    grows, shrinks = (length_forecast(*replies(*both, share)) for both in ((0.8, 0.2), (0.1, 0.5)))
    assert grows.pull > 2 > -2 > shrinks.pull
    assert "RL will lengthen answers here" in str(grows)
    assert "RL will shorten answers here" in str(shrinks)
    assert grows.longer == pytest.approx(share, abs=0.04)
    assert (grows.reward_longer, grows.reward_shorter) == pytest.approx((0.8, 0.2), abs=0.12)


def test_equal_worth_is_no_reason_to_change_and_equal_length_no_way_to():
    assert "no clear reason" in str(length_forecast(*replies(0.4, 0.4, 0.5)))
    assert "one length" in str(length_forecast([[5, 5], [5, 5]], [[0.0, 1.0], [1.0, 1.0]]))


def test_hard_problems_with_long_replies_are_no_reason_to_shorten():
    lengths, rewards = [[2, 2, 2], [30, 30, 40]], [[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    assert length_forecast(lengths, rewards).pull > 0


def test_replies_without_a_reward_do_not_count():
    known = length_forecast([[2, 9], [3, 8]], [[0.0, 1.0], [0.0, 1.0]])
    assert length_forecast([[2, 9, 50], [3, 8, 1]], [[0.0, 1.0, None], [0.0, 1.0, None]]) == known
