"""Questions about what the base model knows and does not know, as problems."""

import random

from hypothesis import given
from hypothesis import strategies as st

from crawltalk.posttraining.factuality import Question
from crawltalk.posttraining.known import KnownOrNot
from crawltalk.tasks.recall import QUESTIONS, TEST_QUESTIONS


def question(number: int, decision: str, split: str = "train") -> Question:
    return Question(
        id=str(number),
        title=f"Title {number}",
        answer=f"thing of number {number}",
        role="train",
        seen="rarely",
        repeats=1,
        split=split,
        prompt="",
        decision=decision,
    )


ROWS = [
    *(question(number, "answer") for number in range(3)),
    *(question(number, "decline") for number in range(3, 9)),
    *(question(number, "none", "test") for number in range(9, 12)),
]


@given(st.integers(0, 2**32))
def test_the_training_asks_about_what_is_taught_and_the_test_about_what_is_not(seed):
    asked = KnownOrNot(ROWS)
    train = list(asked.problems(random.Random(seed), "train", 40))
    test = list(asked.problems(random.Random(seed), "test", 40))
    assert len(train) == len(test) == 40
    assert {problem.prompt.lower() for problem in train}.isdisjoint(
        problem.prompt.lower() for problem in test
    )
    numbers = {int(problem.answer.rpartition(" ")[2]) for problem in train}
    assert numbers <= set(range(9))
    assert {int(problem.answer.rpartition(" ")[2]) for problem in test} <= {0, 1, 2, 9, 10, 11}
    assert all(any(problem.prompt.startswith(form.split("{")[0]) for form in QUESTIONS) for problem in train)
    assert all(
        any(problem.prompt.startswith(form.split("{")[0]) for form in TEST_QUESTIONS) for problem in test
    )


def test_what_is_known_is_asked_about_as_often_as_what_is_not():
    problems = list(KnownOrNot(ROWS).problems(random.Random(0), "train", 400))
    known = sum(int(problem.answer.rpartition(" ")[2]) < 3 for problem in problems)
    assert 160 < known < 240


def test_where_nothing_is_known_all_questions_are_about_the_unknown():
    rows = [row for row in ROWS if row.decision != "answer"]
    assert len(list(KnownOrNot(rows).problems(random.Random(0), "train", 10))) == 10
    assert not list(KnownOrNot([]).problems(random.Random(0), "train", 10))
