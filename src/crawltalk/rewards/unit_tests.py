"""Programs, judged by the problem's tests in the sandbox (`tools/sandbox`).

A policy finds whatever a test pays for, and a program can change the interpreter that it runs in: its equality, its
exceptions, its exit code. So a test `assert f(2) == 4` becomes the question what `f(2)` is. What it should be never
enters the sandbox, and the two are compared outside. A test whose expected value can only be computed with the program
itself, such as `assert f(g(x)) == x` or `assert abs(f(2) - 1) < 0.1`, is asked for its truth: it is as strong as the
program is honest.
"""

import ast
import copy
import json
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from crawltalk.core.types import Problem
from crawltalk.rewards.verdict import Verdict, correct, failed, undetermined, wrong
from crawltalk.tools.python import Python, Tier
from crawltalk.tools.sandbox.cpython import NotConfined
from crawltalk.tools.sandbox.outcome import Limits

SECONDS, PATIENCE = 2.0, 2.0
"""Of one run in the sandbox, from its start; and how many times as long it may wait for its turn."""
TOTAL_SECONDS = 5.0
"""After so long no further run begins: tests that are left have not passed."""
_FENCED = re.compile(
    r"^```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE
)
_BROKEN = ("Internal error in monty",)
"""What a sandbox says when it has failed itself."""
_PLAIN = """
def _plain(value):
    for kind in (bool, int, float, str, bytes, list, tuple, set, frozenset, dict):
        if isinstance(value, kind):
            if kind is dict:
                return {_plain(key): _plain(one) for key, one in value.items()}
            return kind([_plain(one) for one in value]) if kind in (list, tuple, set, frozenset) else kind(value)
    return value
"""
"""Subclasses are shown as what they are a kind of: a Counter as a dict."""


@dataclass(frozen=True)
class Test:
    """What is run, and what comes of it if the program is right."""

    setup: str
    """Statements before the question."""
    question: str
    """An expression."""
    expected: Any
    """Its value."""


@dataclass(frozen=True)
class TestResult:
    """Whether a program passed a test; if not, why, in one line."""

    passed: bool
    reason: str = ""


class SandboxFailed(Exception):
    """The sandbox itself did not work; nothing is known of the program."""


class UnitTests:
    """A `Verifier`: the last fenced block of a reply is the program, `Problem.answer` has the tests: Python with
    asserts, or a JSON list of such texts.
    """

    def __init__(
        self,
        tier: Tier | None = None,
        *,
        seconds: float = SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        partial: bool = False,
    ) -> None:
        """`tier` as in `tools.python.Python`. `partial`: the reward is the share of passed tests; else only all of them
        are worth something. Raises NotConfined as `Python` does.
        """
        self.sandbox = Python(tier, Limits(seconds=seconds, patience=PATIENCE, output=1 << 17)).sandbox
        self.total_seconds, self.partial = total_seconds, partial

    def __call__(self, problem: Problem, reply: str) -> Verdict:
        """Correct if all tests pass. A program that raises, hangs or is killed is wrong; a sandbox that fails is an
        error; tests that are no Python leave it undetermined.
        """
        try:
            tests = read_tests(problem.answer)
        except ValueError as error:
            return undetermined(f"the problem's tests cannot be read: {error}")
        program = last_program(reply)
        if program is None:
            return wrong(reason="no program between ``` and ```")
        try:
            results = self.results(program, tests)
        except SandboxFailed as error:
            return failed(f"the sandbox failed: {error}")
        passed = sum(result.passed for result in results)
        if passed == len(results):
            return correct()
        first = next(result.reason for result in results if not result.passed)
        reason = f"{passed} of {len(results)} tests pass; {first}"[:200]
        return wrong(passed / len(results) if self.partial else 0.0, reason)

    def results(self, program: str, tests: Sequence[Test]) -> list[TestResult]:
        """The result of each test. A test that ends the program or its time costs itself alone: the others are run
        once more without it. Raises SandboxFailed.
        """
        results: list[TestResult] = []
        began = time.monotonic()
        while len(results) < len(tests):
            if results and time.monotonic() - began > self.total_seconds:
                left = len(tests) - len(results)
                return results + [TestResult(False, f"not run after {self.total_seconds:g} s")] * left
            results += self._run(program, tests[len(results) :])
        return results

    def _run(self, program: str, tests: Sequence[Test]) -> list[TestResult]:
        """The results of one run, up to the test that ended it."""
        mark = secrets.token_hex(8)
        text = "\n".join([program, _PLAIN, *(_asking(test, index, mark) for index, test in enumerate(tests))])
        try:
            outcome = self.sandbox.run(f"{text}\nNone")
        except (NotConfined, OSError) as error:
            raise SandboxFailed(str(error)) from None
        if any(sign in outcome.problem for sign in _BROKEN):
            raise SandboxFailed(outcome.problem)
        results = []
        for index, test in enumerate(tests):
            found = re.search(rf"^{mark} {index} (returned|raised) (.*)$", outcome.output, re.MULTILINE)
            if found is None:
                reason = outcome.problem or "the program ended before the test did"
                return [*results, TestResult(False, f"{test.question}: {reason}")]
            results.append(_judged(test, found[1], found[2]))
        return results


def _asking(test: Test, index: int, mark: str) -> str:
    lines = [*test.setup.splitlines(), f"print('\\n{mark} {index} returned', repr(_plain({test.question})))"]
    body = "\n".join(f"    {line}" for line in lines)
    raised = f"    print('\\n{mark} {index} raised', type(error).__name__, str(error).split('\\n')[0])"
    return f"try:\n{body}\nexcept BaseException as error:\n{raised}"


def _judged(test: Test, what: str, text: str) -> TestResult:
    if what == "raised":
        return TestResult(False, f"{test.question} raised {text}")
    try:  # a literal is data and brings no __eq__ of its own; how long it may be is the sandbox's limit of output
        right = ast.literal_eval(text) == test.expected
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # no plain value
        right = False
    return (
        TestResult(True) if right else TestResult(False, f"{test.question} is {text}, not {test.expected!r}")
    )


def last_program(reply: str) -> str | None:
    """What stands in the last block of Python between ``` and ```; None without one."""
    blocks = _FENCED.findall(reply)
    return blocks[-1] if blocks else None


@lru_cache(maxsize=1024)
def read_tests(text: str) -> tuple[Test, ...]:
    """The tests of a problem. Raises ValueError if the text is no Python, or has none."""
    try:
        given = json.loads(text)
    except ValueError:
        given = text
    texts = given if isinstance(given, list) else [text]
    if not texts or not all(isinstance(one, str) for one in texts):
        raise ValueError("neither Python nor a list of it")
    try:
        tests = tuple(test for one in texts for test in _tests(ast.parse(one).body))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not tests:
        raise ValueError("there is no assert")
    return tests


def _tests(statements: Sequence[ast.stmt]) -> Iterator[Test]:
    """A test for each assert, after the statements before it that are none. Asserts within others, such as in a loop,
    are one test together.
    """
    before: list[ast.stmt] = []
    asked = 0
    for statement in _unrolled(statements):
        if not isinstance(statement, ast.Assert):
            before.append(statement)
            continue
        asked = len(before)
        yield Test(_source(before), *_question(statement.test))
    if any(isinstance(node, ast.Assert) for one in before[asked:] for node in ast.walk(one)):
        yield Test(_source(before), "True", True)


def _unrolled(statements: Sequence[ast.stmt]) -> Sequence[ast.stmt]:
    """What a last call of a function with one argument does, as statements: `def check(candidate): ...`, `check(f)`."""
    match statements:
        case [*before, ast.Expr(ast.Call(ast.Name(called), [ast.Name() as argument], []))]:
            for index, one in enumerate(before):
                if isinstance(one, ast.FunctionDef) and one.name == called and len(one.args.args) == 1:
                    given = ast.Assign([ast.Name(one.args.args[0].arg, ast.Store())], argument)
                    return [*before[:index], *before[index + 1 :], given, *one.body]
    return statements


def _question(condition: ast.expr) -> tuple[str, Any]:
    """What to ask instead of a condition, and what it should be."""
    match condition:
        case ast.Compare(left, [ast.Eq()], [right]):
            try:
                return ast.unparse(left), ast.literal_eval(right)
            except ValueError:
                pass
        case ast.UnaryOp(ast.Not(), operand):
            return f"bool({ast.unparse(operand)})", False
    return f"bool({ast.unparse(condition)})", True


def _source(statements: Sequence[ast.stmt]) -> str:
    module = ast.Module(copy.deepcopy([*statements]), [])
    return ast.unparse(ast.fix_missing_locations(module))


@lru_cache(maxsize=1)
def _default() -> UnitTests:
    return UnitTests()


def unit_tests(problem: Problem, reply: str) -> Verdict:
    """`UnitTests` with its defaults, in the strongest sandbox that this system has."""
    return _default()(problem, reply)
