"""Exact answers, choices, JSON, form, scores of tasks, and sums of them by name."""

import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.errors import BadRecipe, MissingInput
from crawltalk.rewards import (
    QUICK,
    VERIFIERS,
    Composed,
    Outcome,
    Term,
    Verdict,
    correct,
    each,
    make_judge,
    make_verifier,
    verify,
    wrong,
)
from crawltalk.rewards.pool import Pool
from support.verifiers import moody, problem

RIGHT, WRONG, UNDETERMINED, ERROR = Outcome.CORRECT, Outcome.WRONG, Outcome.UNDETERMINED, Outcome.ERROR


@pytest.mark.parametrize(
    ("name", "answer", "reply", "outcome"),
    [
        ("exact", "Paris", " Paris\n", RIGHT),
        ("exact", "Paris", "<think>France</think>Paris", RIGHT),
        ("exact", "Paris", "The answer is Paris.", RIGHT),
        ("exact", "Paris", "paris", WRONG),
        ("exact", "Paris", "Lyon or Paris", WRONG),
        ("choice", "B", "B", RIGHT),
        ("choice", "B", "(b)", RIGHT),
        ("choice", "(B)", "B. Because of gravity", RIGHT),
        ("choice", "B", "The answer is B", RIGHT),
        ("choice", "B", r"\boxed{\text{B}}", RIGHT),
        ("choice", "B", "A or B", WRONG),
        ("choice", "B", "Because", WRONG),
        ("choice", "B", "A. iron\nB. gold", WRONG),
        ("choice", "B", "A. iron\nB. gold\nThe answer is B.", RIGHT),
        ("choice", "B", "", WRONG),
        ("choice", "Berlin", "B", UNDETERMINED),
        ("schema", '{"type": "integer"}', "5", RIGHT),
        ("schema", '{"type": "integer"}', "```json\n5\n```", RIGHT),
        ("schema", '{"type": "integer"}', '"5"', WRONG),
        ("schema", '{"type": "number"}', "NaN", WRONG),
        ("schema", '{"type": "integer"}', "5 or 6", WRONG),
        ("schema", '{"type": "unheard"}', "5", UNDETERMINED),
        ("schema", "no JSON", "5", UNDETERMINED),
        ("think", "", "<think>So.</think>5", RIGHT),
        ("think", "", "\n<think>\nSo.\n</think>\n5\n", RIGHT),
        ("think", "", "5", WRONG),
        ("think", "", "5 <think>So.</think> 5", WRONG),
        ("think", "", "<think> </think>5", WRONG),
        ("think", "", "<think>So.</think>", WRONG),
        ("think", "", "<think>So.</think><think>So.</think>5", WRONG),
        ("boxed", "", r"It is \boxed{5}", RIGHT),
        ("boxed", "", r"\boxed{5} or \boxed{6}", WRONG),
        ("boxed", "", r"\boxed{}", WRONG),
        ("task", "5", "2 + 3 = 5", UNDETERMINED),
    ],
)
def test_each_verifier_judges_as_it_says(name, answer, reply, outcome):
    assert verify(make_verifier(name), problem(answer), reply).outcome == outcome


def test_the_score_of_a_task_is_its_reward():
    asked = problem("5", "What is 2 + 3?", "arithmetic")
    assert verify(make_verifier("task"), asked, "2 + 3 = 5") == correct(1.0)
    assert verify(make_verifier("task"), asked, "6").outcome == WRONG


def test_schemas_need_their_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema.exceptions", None)
    with pytest.raises(MissingInput, match="crawltalk\\[rewards\\]"):
        verify(make_verifier("schema"), problem(json.dumps({"title": "never seen before"})), "5")


def test_all_names_load():
    assert all(callable(make_verifier(name)) for name in VERIFIERS)


def test_a_sum_of_verifiers_pays_for_each():
    verifier = make_verifier("number + 0.25 * think")
    asked = problem("5")
    assert verify(verifier, asked, "<think>So.</think>5") == Verdict(RIGHT, 1.25)
    assert verify(verifier, asked, "5").reward == 1
    found = verify(verifier, asked, "<think>So.</think>6")
    assert (found.outcome, found.reward, found.reason) == (WRONG, 0.25, "number: 6 is not 5")


def test_ones_own_verifier_is_named_by_its_module():
    assert make_verifier("support.verifiers:moody") is moody
    assert verify(make_verifier("2 * support.verifiers:moody"), problem("5"), "5").reward == 2


@pytest.mark.parametrize(
    "name", ["", "numbr", "nowhere:verifier", "support.verifiers:no_such", "json:__name__", "number +", "a b"]
)
def test_a_name_without_a_verifier_is_refused(name):
    with pytest.raises(BadRecipe):
        make_verifier(name)


def test_a_missing_term_makes_the_sum_undetermined_and_a_failing_one_an_error():
    verifier = make_verifier("support.verifiers:moody + 0.2 * choice")
    assert verify(verifier, problem("5"), "5").outcome == UNDETERMINED
    failing = verify(verifier, problem("5"), "raise")
    assert failing.outcome == ERROR
    assert failing.reward is None
    assert "ZeroDivisionError: no such luck" in failing.reason


def test_only_verifiers_that_may_hang_get_processes():
    for name in ("number", "task + 0.1 * think"):
        with make_judge(name) as judge:
            assert not isinstance(judge, Pool)
    for name in ("math", "number + support.verifiers:moody"):
        with make_judge(name, workers=3, seconds=1) as judge:
            assert isinstance(judge, Pool)
            assert (judge.count, judge.seconds) == (3, 1)


@pytest.mark.parametrize("reward", [math.inf, -math.inf, math.nan, None])
def test_a_reward_that_is_no_finite_number_is_an_error(reward):
    assert verify(lambda asked, reply: correct(reward), problem("5"), "5").outcome == ERROR
    assert (
        verify(Composed([Term("own", lambda asked, reply: wrong(reward))]), problem("5"), "5").outcome
        == ERROR
    )


def test_what_is_no_verdict_is_an_error():
    found = verify(lambda asked, reply: 1.0, problem("5"), "5")  # type: ignore[arg-type,return-value]
    assert (found.outcome, found.reason) == (ERROR, "the verifier returned float, which is no Verdict")


def test_weights_are_finite():
    with pytest.raises(ValueError, match="finite"):
        Composed([Term("own", moody, math.inf)])


@given(st.sampled_from(sorted(QUICK)), st.text())
def test_any_reply_has_a_verdict_of_each(name, reply):
    found = each(make_verifier(name))([problem("5")], [reply])[0]
    assert found.outcome != ERROR
