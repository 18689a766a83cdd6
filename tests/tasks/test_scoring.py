"""Scores of replies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.types import Problem
from crawltalk.tasks import score
from crawltalk.tasks.scoring import contains, exact, last_number, refuses, spoken


@pytest.mark.parametrize(
    ("verifier", "answer", "reply", "value"),
    [
        (contains, "Chemical element (Dy)", "Dysprosium: chemical element, Dy.", 1.0),
        (contains, "element", "elements", 0.0),
        (contains, "element", "I don't know that element.", 0.0),
        (contains, "(...)", "", 0.0),
        (refuses, "", "I'm sorry, I don't know about that.", 1.0),
        (refuses, "", "I cannot say.", 1.0),
        (refuses, "", "I don’t know.", 1.0),
        (refuses, "", "It is a metal that I know.", 0.0),
        (last_number, "12", "5 + 7 = 12", 1.0),
        (last_number, "12", "12 is not 13", 0.0),
        (last_number, "-3", "It is -3.", 1.0),
        (last_number, "12", "no idea", 0.0),
        (exact, "a-b", " a-b\n", 1.0),
        (exact, "a-b", "a-b-c", 0.0),
    ],
)
def test_a_verifier_tells_right_from_wrong(verifier, answer, reply, value):
    assert verifier(Problem(prompt="", answer=answer, task=""), reply) == value


@given(st.sampled_from([contains, refuses, last_number, exact]), st.text(), st.text())
def test_any_reply_scores_0_or_1(verifier, answer, reply):
    assert verifier(Problem(prompt="", answer=answer, task=""), reply) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("12", "12"),
        ("<think>7 5\n12 0</think>7 + 5 = 12", "7 + 5 = 12"),
        ("<think>12", ""),
        ("<think>12</think>", ""),
        ("7 5</think>12", "12"),
        ("<think>1</think>12<think>3</think>5", "5"),
    ],
)
def test_what_is_thought_is_not_said(reply, said):
    assert spoken(reply) == said


@given(st.text(), st.text(alphabet="0123456789 =+"))
def test_no_thought_changes_a_score(thought, said):
    problem = Problem(prompt="", answer="12", task="arithmetic")
    assert score(problem, f"<think>{thought}</think>{said}") == score(problem, said)
    assert score(problem, f"<think>{thought.replace('</think>', '')} 12") == 0
