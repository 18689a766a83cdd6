"""The audit finds what a policy would find."""

import json
import random
from pathlib import Path

import pytest

from crawltalk.core.errors import BadRecipe
from crawltalk.core.types import Problem
from crawltalk.rewards import Outcome, correct, each, make_verifier, undetermined, verify, wrong
from crawltalk.rewards.audit import audit, require, table
from crawltalk.rewards.problems import read_problems
from support.verifiers import generous, moody, problem

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_gsm8k = pytest.mark.skipif(not (SHARED / "gsm8k").exists(), reason="shared/data/gsm8k is not here")
PROBLEMS = [problem(str(n * n), f"What is {n} times {n}?") for n in range(2, 12)]


@pytest.mark.parametrize("name", ["number", "exact"])
def test_a_sound_verifier_may_reward(name):
    found = audit(name, each(make_verifier(name)), PROBLEMS)
    assert found.faults == []
    require(found)
    assert found.sorts["gold"].right == 10


def test_the_form_of_a_reply_may_be_part_of_what_is_paid():
    verifier = make_verifier("number + 0.2 * think")
    assert audit("sum", each(verifier), PROBLEMS, write="<think>So.</think>{}".format).faults == []
    assert (
        audit(
            "sum", each(make_verifier("number + 3 * think")), PROBLEMS, write="<think>So.</think>{}".format
        ).faults
        == []
    )


def test_a_verifier_that_finds_the_answer_anywhere_is_refused():
    found = audit("generous", each(generous), PROBLEMS)
    with pytest.raises(BadRecipe, match=r"may not reward: .*hedge") as error:
        require(found)
    assert " or " in str(error.value)


def test_who_takes_the_last_of_two_answers_is_told_from_who_takes_both():
    problems = [problem(str(n + 3), f"What is {n} + 3?", "arithmetic") for n in range(1, 21)]
    found = audit("task", each(make_verifier("task")), problems)
    assert found.faults == []
    assert found.sorts["hedge"].right == 0
    assert found.sorts["1 of 2"].right == 80  # those with the gold at the end
    assert audit("number", each(make_verifier("number")), problems).sorts["1 of 2"].right == 0


@pytest.mark.parametrize(
    ("verifier", "fault"),
    [
        (lambda asked, reply: correct(), "it accepts"),
        (lambda asked, reply: wrong(), "it refuses 10 of 10 golds"),
        (lambda asked, reply: undetermined("no"), "it refuses 10 of 10 golds"),
        (
            lambda asked, reply: correct() if reply == asked.answer else wrong(1.0),
            "it pays 1 for the sort foreign",
        ),
        (
            lambda asked, reply: (
                correct() if reply == asked.answer else wrong(0.5 * (asked.answer in reply.split()))
            ),
            "it pays 0.5 for the sort hedge, and 0 for a wrong answer",
        ),
        (lambda asked, reply: correct(float("nan")), "the reward is nan"),
        (
            lambda asked, reply: moody(asked, reply if reply.strip() else "raise"),
            "it fails on 30 of 120 of the sort nothing",
        ),
    ],
)
def test_every_fault_is_named(verifier, fault):
    assert fault in "; ".join(audit("own", each(verifier), PROBLEMS).faults)


def test_the_same_answer_in_another_spelling_is_not_foreign():
    problems = [problem("30"), problem(r"30^\circ"), problem(r"\frac{60}{2}"), problem("31")]
    assert audit("number", each(make_verifier("number")), problems[:3]).sorts.keys() == {
        "gold",
        "words",
        "nothing",
        "question",
    }
    assert audit("math", each(make_verifier("number")), problems).faults == []


def test_no_problems_are_no_reason_to_trust():
    assert audit("number", each(make_verifier("number")), []).faults == ["it has no golds"]


def test_the_table_has_a_line_for_each():
    lines = table([audit("number", each(make_verifier("number")), PROBLEMS)]).splitlines()
    assert lines[-1] == "| number | 10 | 10/10 | 0/30 | 0/50 | 0/120 | 0/10 | 0/70 | 0/70 | 0 | yes |"
    assert len({line.count("|") for line in lines}) == 1


@needs_gsm8k
@pytest.mark.parametrize("file", ["train", "test"])
def test_golds_of_gsm8k_verify_against_themselves_and_against_their_solutions(file):
    path = SHARED / "gsm8k" / f"{file}.jsonl"
    problems, left_out = read_problems(path)
    solutions = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert left_out == []
    assert len(problems) == {"train": 7473, "test": 1319}[file]
    judge = each(make_verifier("number"))
    for replies in ([asked.answer for asked in problems], solutions):
        assert {verdict.outcome for verdict in judge(problems, replies)} == {Outcome.CORRECT}


@needs_gsm8k
def test_published_solutions_are_judged_as_they_are_marked():
    verifier, count = make_verifier("number"), 0
    for line in (SHARED / "gsm8k" / "example_model_solutions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        asked = Problem(
            prompt=row["question"], answer=row["ground_truth"].rpartition("A:")[2].strip(), task="gsm8k"
        )
        for solution in (value for value in row.values() if isinstance(value, dict)):
            found = verify(verifier, asked, solution["solution"]).outcome == Outcome.CORRECT
            assert found == solution["is_correct"], solution
            count += 1
    assert count == 5276


@pytest.mark.skipif(not (SHARED / "math_eval").exists(), reason="shared/data/math_eval is not here")
def test_golds_of_math_500_verify_against_themselves():
    pytest.importorskip("math_verify", reason="math-verify is not installed (the extra rewards)")
    problems, left_out = read_problems(SHARED / "math_eval" / "data" / "math_oai" / "test.jsonl")
    assert (len(problems), left_out) == (500, [])
    judge = each(make_verifier("math"))
    assert {verdict.outcome for verdict in judge(problems, [asked.answer for asked in problems])} == {
        Outcome.CORRECT
    }
    some = random.Random(0).sample(problems, 40)
    respelt = [
        asked.answer.replace(r"\frac", r"\dfrac").replace(r"\left", "").replace(r"\right", "")
        for asked in some
    ]
    assert {
        verdict.outcome for verdict in judge(some, [rf"It is $\boxed{{{text}}}$." for text in respelt])
    } == {Outcome.CORRECT}
