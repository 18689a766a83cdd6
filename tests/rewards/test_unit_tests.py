"""Programs judged by tests that they never see the answers of."""

import gzip
import json
from pathlib import Path

import pytest

from crawltalk.core.types import Problem
from crawltalk.rewards import Outcome, each, make_verifier
from crawltalk.rewards.audit import audit
from crawltalk.rewards.unit_tests import UnitTests, last_program, read_tests, unit_tests
from crawltalk.tools.sandbox.cpython import NotConfined
from crawltalk.tools.sandbox.outcome import Limits

HUMANEVAL = Path(__file__).parents[3] / "shared" / "data" / "humaneval" / "HumanEval.jsonl.gz"
DOUBLE = Problem(
    prompt="Write f, which doubles.",
    answer=json.dumps(["assert f(2) == 4", "x = [3]\nassert f(x[0]) == 6", "assert f('a') == 'aa'"]),
    task="code",
)


@pytest.fixture(scope="module")
def monty():
    verifier = UnitTests("monty", seconds=0.3, total_seconds=1.0)
    yield verifier
    verifier.sandbox.close()


@pytest.fixture(scope="module")
def cpython():
    try:
        return UnitTests("cpython")
    except NotConfined as reason:
        pytest.skip(str(reason))


def fenced(program):
    return f"Here it is:\n```python\n{program}\n```\nDone."


def passed(verifier, program, problem=DOUBLE):
    return [result.passed for result in verifier.results(program, read_tests(problem.answer))]


def test_a_right_program_is_correct_and_a_wrong_one_says_where(monty, cpython):
    for verifier in (monty, cpython):
        assert verifier(DOUBLE, fenced("def f(x):\n    return x + x")).outcome == Outcome.CORRECT
        found = verifier(DOUBLE, fenced("def f(x):\n    return x ** 2"))
        assert (found.outcome, found.reward) == (Outcome.WRONG, 0.0)
        assert found.reason == "1 of 3 tests pass; f(x[0]) is 9, not 6"


def test_each_test_has_its_own_result(monty):
    assert passed(monty, "def f(x):\n    return 4 if x == 2 else 1 / 0") == [True, False, False]
    assert passed(monty, "def f(x):\n    while x == 3:\n        pass\n    return x * 2") == [
        True,
        False,
        True,
    ]
    assert passed(monty, "def f(x)\n    return") == [False, False, False]


def test_time_that_is_used_up_fails_what_is_left(monty):
    verdict = monty(DOUBLE, fenced("def f(x):\n    while True:\n        pass"))
    assert verdict.outcome == Outcome.WRONG
    assert verdict.reason.startswith("0 of 3 tests pass; f(2): the program was ended")


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "raise SystemExit",
        "class Any:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Any()",
        "class Any(int):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Any()",
        "import builtins\nbuiltins.repr = lambda value: '4'\ndef f(x):\n    return 4",
        "AssertionError = None\ndef f(x):\n    raise KeyboardInterrupt",
        "for n in range(3):\n    print(n, 'returned', 4)",
    ],
)
def test_a_program_that_changes_its_interpreter_passes_no_more_than_it_knows(cpython, program):
    assert sum(passed(cpython, program)) < 2


def test_what_a_sandbox_fails_at_is_an_error_and_no_wrong_answer(cpython, monkeypatch):
    right, hangs = fenced("def f(x):\n    return x + x"), fenced("while True:\n    pass")
    monkeypatch.setattr(cpython.sandbox, "limits", Limits(seconds=0.001))
    assert cpython(DOUBLE, hangs).outcome == Outcome.WRONG  # it began, and its own time was over
    monkeypatch.setattr("crawltalk.tools.sandbox.cpython.START_SECONDS", 0.0)
    found = cpython(DOUBLE, right)
    assert (found.outcome, found.reward) == (Outcome.ERROR, None)
    assert found.reason.startswith("the sandbox failed: ")


def test_the_share_of_passed_tests_can_be_the_reward():
    verifier = UnitTests("monty", partial=True)
    assert verifier(DOUBLE, fenced("def f(x):\n    return x ** 2")).reward == pytest.approx(1 / 3)
    verifier.sandbox.close()


def test_the_last_block_is_the_program():
    assert last_program("```python\na\n```\nBetter:\n```\nb\n```\nno ``` more") == "b\n"
    assert last_program("f = 1") is None
    assert last_program("```python\nnever closed") is None


def test_no_program_is_wrong_and_tests_that_cannot_be_read_leave_it_open(monty):
    assert monty(DOUBLE, "f(x) is 2 x").outcome == Outcome.WRONG
    for answer in ("assert f(", "[1, 2]", "[]", "x = 1"):
        problem = Problem(prompt="?", answer=answer, task="code")
        assert monty(problem, fenced("f = 1")).outcome == Outcome.UNDETERMINED, answer


def test_what_an_assert_expects_is_kept_apart_from_what_it_asks():
    tests = read_tests(
        "def check(g):\n    assert g(1) == [2, (3,)]\n    assert not g(2)\n    assert abs(g(3) - 1) < 0.1\n"
        "    for n in range(3):\n        assert g(n)\ncheck(f)"
    )
    assert [(test.question, test.expected) for test in tests] == [
        ("g(1)", [2, (3,)]),
        ("bool(g(2))", False),
        ("bool(abs(g(3) - 1) < 0.1)", True),
        ("True", True),
    ]
    assert tests[0].setup == "g = f"
    assert "for n in range(3)" in tests[-1].setup


@pytest.mark.skipif(not HUMANEVAL.exists(), reason="shared/data/humaneval is not here")
def test_published_programs_pass_the_audit(monty):
    rows = [json.loads(line) for line in gzip.decompress(HUMANEVAL.read_bytes()).splitlines()[:12]]
    tests = [f"{row['test']}\ncheck({row['entry_point']})" for row in rows]
    solutions = {
        answer: row["prompt"] + row["canonical_solution"] for answer, row in zip(tests, rows, strict=True)
    }
    problems = [
        Problem(prompt=row["prompt"], answer=answer, task="code")
        for row, answer in zip(rows, tests, strict=True)
    ]
    found = audit(
        "tests", each(monty), problems, right=lambda problem: solutions[problem.answer], write=fenced
    )
    assert found.faults == []
    assert found.sorts["gold"].right == len(rows)


def test_the_verifier_has_a_name():
    assert make_verifier("tests") is unit_tests
