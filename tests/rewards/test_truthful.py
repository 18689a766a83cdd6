"""The ternary reward for the truth."""

import pytest

from crawltalk.core.types import Problem
from crawltalk.rewards.truthful import truthful
from crawltalk.rewards.verdict import Outcome

QUESTION = Problem(prompt="What is gold?", answer="Chemical element (Au)", task="factuality")


@pytest.mark.parametrize(
    ("reply", "outcome", "reward"),
    [
        ("Gold: Chemical element (Au).", Outcome.CORRECT, 1.0),
        ("I'm sorry, I don't know about that.", Outcome.WRONG, 0.0),
        ("I don't know, but it is a chemical element.", Outcome.WRONG, 0.0),
        ("Gold: a river.", Outcome.WRONG, -1.0),
        ("", Outcome.WRONG, -1.0),
        ("<think>Chemical element</think>Gold: a river.", Outcome.WRONG, -1.0),
    ],
)
def test_the_truth_is_worth_more_than_silence_and_silence_more_than_a_guess(reply, outcome, reward):
    verdict = truthful(QUESTION, reply)
    assert (verdict.outcome, verdict.reward) == (outcome, reward)
