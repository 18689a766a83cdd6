"""The calculator, against Python's fractions, decimal and math."""

import decimal
import math
import string
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.tools.calculator import MAX_BITS, Calculator, Number, calculate

decimals = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1000, max_value=1000)


def expressions(depth: int = 3):
    """(text, value) of random expressions without a division by zero."""
    leaf = decimals.map(lambda number: (f"({number})" if number < 0 else f"{number}", Fraction(number)))
    return st.recursive(
        leaf,
        lambda inner: st.builds(joined, inner, st.sampled_from("+-*/"), inner, st.booleans()),
        max_leaves=8,
    )


def joined(left, mark, right, spaced):
    a, b = left[1], right[1]
    if mark == "/" and b == 0:
        mark = "+"
    value = {"+": a + b, "-": a - b, "*": a * b}.get(mark) if mark != "/" else a / b
    blank = " " if spaced else ""
    return f"({left[0]}{blank}{mark}{blank}{right[0]})", value


@given(expressions())
@settings(deadline=None)
def test_sums_and_products_are_exact(expression):
    text, value = expression
    assert calculate(text) == Number(value)


@given(
    st.lists(
        st.tuples(st.sampled_from(["+", "-", "*", "/", "//", "%", "**"]), st.integers(1, 9)), max_size=8
    ),
    st.integers(0, 9),
)
@settings(deadline=None)
def test_operators_bind_as_in_python(rest, first):
    text = str(first)
    powers = 0
    for mark, number in rest:
        powers = powers + 1 if mark == "**" else 0
        assume(powers < 2)
        text += f" {mark} {number}"
    try:
        expected = eval(_as_fractions(text), {"F": Fraction})
    except ZeroDivisionError:
        with pytest.raises(BadInput, match="division by zero"):
            calculate(text)
        return
    assert calculate(text).value == expected


def _as_fractions(text: str) -> str:
    return " ".join(word if not word.isdigit() else f"F({word})" for word in text.split())


@given(decimals)
def test_an_exact_decimal_is_shown_with_all_its_digits(number):
    shown = str(calculate(f"{number} + 0"))
    assert decimal.Decimal(shown) == number and "E" not in shown


@given(st.integers(-(10**40), 10**40), st.integers(1, 10**20))
def test_what_does_not_end_is_shown_to_twelve_digits(up, down):
    value = Fraction(up, down)
    shown = Fraction(str(calculate(f"({up}) / {down}")))
    assert shown == value or abs(shown - value) <= abs(value) * Fraction(1, 10**11)


@pytest.mark.parametrize(
    "name", ["sqrt", "exp", "ln", "log2", "log10", "sin", "cos", "atan", "degrees", "radians"]
)
@given(number=st.floats(0.001, 100))
@settings(max_examples=30)
def test_functions_agree_with_the_standard_library(name, number):
    expected = getattr(math, {"ln": "log"}.get(name, name))(number)
    found = float(calculate(f"{name}({decimal.Decimal(number):f})").value)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-14)


@given(st.integers(0, 10**60))
def test_a_root_of_a_square_is_exact(number):
    assert calculate(f"sqrt({number * number})") == Number(Fraction(number))


@given(st.text(string.digits + string.ascii_lowercase[:8] + "+-*/%^!(), .=<>é\n", max_size=60))
@settings(deadline=2000, max_examples=300)
def test_any_text_is_an_expression_or_says_in_one_line_what_is_wrong(text):
    try:
        assert str(calculate(text))
    except BadInput as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.1 + 0.2", "0.3"),
        ("1/3", "0.333333333333"),
        ("-2 ** 2", "-4"),
        ("2 ** -1", "0.5"),
        ("2 ** 3 ** 2", "512"),
        ("2^10", "1024"),
        ("7 × 8 − 6 ÷ 2", "53"),
        ("10!", "3628800"),
        ("3!!", "720"),
        ("round(2.5)", "3"),
        ("round(-1.005, 2)", "-1.01"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("max(1, 2, 3) - min(4, 5)", "-1"),
        ("gcd(12, 18) + lcm(4, 6)", "18"),
        ("log(8, 2)", "3"),
        ("sin(pi)", "0"),
        ("1e3", "1000"),
        ("2 ** 0.5", "1.41421356237"),
        ("37 * 24 = 854", "888"),
        ("2000!", str(Number(Fraction(math.factorial(2000))))),
    ],
)
def test_results_are_shown_as_people_write_them(text, shown):
    assert str(calculate(text)) == shown


def test_comparisons_are_true_or_false():
    assert calculate("9.11 > 9.9") is False and calculate("9.90 == 9.9") is True
    assert calculate("1/3 != 0.333") is True and calculate("2 <= 1 + 1") is True
    assert Calculator().call({"expression": "9.11 < 9.9"}).text.shown == "true"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "empty"),
        ("1,000 + 1", "write 1000, not 1,000"),
        ("(1,000)", "write 1000, not 1,000"),
        ("2 x 3", "operator is missing before 'x'"),
        ("x + 1", "x is no number"),
        ("__import__('os')", "no part of an expression"),
        ("open(1)", "no function open"),
        ("(1", "closing parenthesis is missing"),
        ("1 +", "number is missing at the end"),
        ("1 / 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("sqrt(-1)", "no square root"),
        ("(-8) ** (1/3)", "negative number"),
        ("9 ** 9 ** 9", "too large"),
        ("1e9999", "too large"),
        ("1e99999", "operator is missing"),
        ("99999!", "too large"),
        ("exp(99999)", "too large"),
        ("2.5!", "factorial"),
        ("ln(0)", "logarithm"),
        ("gcd(1.5, 2)", "whole numbers"),
        ("(" * 100 + "1", "nested"),
        ("-" * 2000, "characters"),
        ("1 < 2 < 3", "operator is missing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text, wrong):
    with pytest.raises(BadInput, match=wrong) as refused:
        calculate(text)
    assert "\n" not in str(refused.value)


def test_numbers_are_bounded_however_they_grow():
    for text in (
        "*".join(["2000!"] * 9),
        "10**3000 * 10**3100",
        "1 / 3 ** 12000 / 3 ** 12000",
        "lcm(2**10000, 3**9000)",
    ):
        with pytest.raises(BadInput, match="6,000 digits"):
            calculate(text)
    assert calculate("2 ** 19999").value.numerator.bit_length() == MAX_BITS
