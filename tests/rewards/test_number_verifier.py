"""Numbers by their value."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.rewards import Outcome
from crawltalk.rewards.numbers import number, numbers
from support.verifiers import problem


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("$1,234", [1234]),
        ("3/4", [Fraction(3, 4)]),
        (".75", [Fraction(3, 4)]),
        ("1e3", [1000]),
        ("1 3/4", [Fraction(7, 4)]),
        (r"1\frac{3}{4}", [Fraction(7, 4)]),
        (r"-\frac{35}{9}", [Fraction(-35, 9)]),
        (r"\frac34", [Fraction(3, 4)]),
        ("-$7", [-7]),
        ("42.00", [42]),
        ("5-7", [5, 7]),
        ("5or1", [5, 1]),
        ("1,2", [1, 2]),
        ("15 cm^2", [15]),
        ("10^2", []),
        ("1/0", []),
        ("...", []),
        ("9" * 5000, []),
        ("1e999999999", [1, 999999999]),
    ],
)
def test_numbers_are_read_as_people_write_them(text, values):
    assert numbers(text) == values


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_is_read_back(value):
    assert numbers(str(value)) == [value]


@given(st.integers())
def test_an_integer_is_right_with_commas_and_as_a_decimal(value):
    asked = problem(str(value))
    for reply in (str(value), f"{value:,}", f"{value}.0", f"It is {value}.", f"#### {value:,}"):
        assert number(asked, reply).outcome == Outcome.CORRECT
    assert number(asked, str(value + 1)).outcome == Outcome.WRONG


@given(st.integers(0, 99), st.integers(0, 99))
def test_a_hedge_is_wrong_whichever_is_right(left, right):
    if left != right:
        for answer in (left, right):
            assert number(problem(str(answer)), f"{left} or {right}").outcome == Outcome.WRONG


def test_what_stands_behind_the_last_equals_sign_counts():
    assert number(problem("15"), "12 + 3 = 15").outcome == Outcome.CORRECT
    assert number(problem("15"), "12 + 3 =").outcome == Outcome.WRONG


def test_a_problem_without_one_number_is_undetermined():
    assert number(problem("red"), "5").outcome == Outcome.UNDETERMINED
    assert number(problem("1, 2"), "1").outcome == Outcome.UNDETERMINED


@given(st.text())
def test_any_reply_has_a_verdict(reply):
    assert number(problem("5"), reply).outcome in (Outcome.CORRECT, Outcome.WRONG)
