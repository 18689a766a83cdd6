"""The search for replies that a reward model overrates."""

import random

from crawltalk.rewards.nonsense import climb, repetitions

TOKENS = range(5, 15)


def sevens(replies):
    """A reward that is hacked by saying 7 over and over."""
    return [float(sum(token == 7 for token in reply)) for reply in replies]


def test_repetitions_come_best_first():
    found = repetitions(sevens, TOKENS, 3)
    assert (found[0].reply, found[0].score) == ([7, 7, 7], 3.0)
    assert len(found) == len(TOKENS)


def test_a_climb_finds_what_the_reward_likes_within_the_length_and_is_the_same_again():
    found = climb(sevens, [5, 6], TOKENS, random.Random(0), longest=8)
    assert found.score == found.reply.count(7) >= 7
    assert len(found.reply) <= 8
    assert found == climb(sevens, [5, 6], TOKENS, random.Random(0), longest=8)


def test_a_climb_never_ends_below_its_start():
    found = climb(
        lambda replies: [-float(len(reply)) for reply in replies], [5], TOKENS, random.Random(1), rounds=3
    )
    assert (found.reply, found.score) == ([5], -1.0)
