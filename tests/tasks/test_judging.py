"""Verdicts on factual replies by rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.tasks.judging import agreement, aliases, judge
from crawltalk.tasks.refusal import REPLIES

ELEMENT = "Chemical element with atomic number 67 (Ho)"


@pytest.mark.parametrize(
    ("answer", "reply", "verdict"),
    [
        (ELEMENT, f"Holmium: {ELEMENT}.", "correct"),
        (ELEMENT, "chemical element, with atomic number 67", "correct"),
        (ELEMENT, "Chemical element with atomic number 68 (Er)", "incorrect"),
        ("The study of matter", "It is the study of matter.", "correct"),
        ("A study of matter", "Study of matter", "correct"),
        ("42", "It is 42.0.", "correct"),
        ("1,000", "about 1000", "correct"),
        ("42", "41 or 42", "incorrect"),
        ("42", "421", "incorrect"),
        ("Fish", "Fishing boat", "incorrect"),
        ("Fish", "", "incorrect"),
    ],
)
def test_a_reply_is_compared_as_text_as_number_and_by_other_names(answer, reply, verdict):
    assert judge(answer, reply) == verdict


@pytest.mark.parametrize("reply", REPLIES)
def test_a_refusal_is_declined_whatever_the_answer(reply):
    assert judge(ELEMENT, reply) == "declined"


@given(st.text(min_size=1))
def test_the_answer_itself_is_never_incorrect_if_it_has_a_letter(answer):
    assert judge(answer, answer) in (
        ("correct", "declined") if aliases(answer) else ("incorrect", "declined")
    )


def test_the_most_frequent_reply_is_what_samples_agree_on():
    assert agreement(["A b.", "c", "a B"]) == ("A b.", 2 / 3)
    assert agreement(["x", "y"]) == ("x", 0.5)
