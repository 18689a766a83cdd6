"""A calculator: a parser of its own, exact where numbers are, and bounded. Nothing is ever handed to `eval`.

    expression = sum [("<" | "<=" | ">" | ">=" | "==" | "!=") sum]
    sum        = product {("+" | "-") product}
    product    = unary {("*" | "/" | "//" | "%") unary}
    unary      = ("+" | "-") unary | power
    power      = postfix [("**" | "^") unary]
    postfix    = atom {"!"}
    atom       = number | name | name "(" expression {"," expression} ")" | "(" expression ")"

Numbers are fractions: 0.1 + 0.2 is 0.3. Roots, logarithms and the like have 30 digits (sine and its kin 15), and what
is computed from them is shown with 12.
"""

import decimal
import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from crawltalk.core.errors import BadInput
from crawltalk.tools.tool import Tool, ToolResult, texts

MAX_CHARACTERS = 1000
MAX_BITS = 20_000
"""Of a numerator or a denominator: 6,000 digits."""
MAX_DEPTH = 60
"""Parentheses within each other."""
_SHOWN_DIGITS = 12
"""Of a number that is not exact or does not end."""
_CONTEXT = decimal.Context(prec=30, Emax=10_000, Emin=-10_000)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4}(?![0-9A-Za-z_]))?)"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<mark>\*\*|//|<=|>=|==|!=|[-+*/%^!(),<>]))"
)
_SAME = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "≤": "<=", "≥": ">=", "≠": "!="})


class Number(NamedTuple):
    """A value, and whether it is the exact one."""

    value: Fraction
    exact: bool = True

    def __str__(self) -> str:
        """All digits of an exact number that ends within 60; else the first 12."""
        number = self.value
        if self.exact and number.denominator == 1:
            return _integer(number.numerator)
        if self.exact and (digits := _ending(number)) is not None and digits <= 60:
            scaled = _integer(abs(number.numerator) * 10**digits // number.denominator).zfill(digits + 1)
            return f"{'-' if number < 0 else ''}{scaled[:-digits]}.{scaled[-digits:]}"
        with decimal.localcontext(prec=_SHOWN_DIGITS, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN):
            rounded = Decimal(number.numerator) / Decimal(number.denominator)
        plain = -7 < rounded.adjusted() < 15
        text = f"{rounded:f}" if plain else f"{rounded}"
        return text.rstrip("0").rstrip(".") if plain and "." in text else text


def _integer(number: int) -> str:
    """Its digits, however many: `str` refuses those of more than 4,300."""
    with decimal.localcontext(prec=MAX_BITS, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN):
        return f"{Decimal(number):f}"


def _ending(number: Fraction) -> int | None:
    """How many digits a number has after its point; None if they never end."""
    rest, twos, fives = number.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def calculate(expression: str) -> Number | bool:
    """The value of an expression, or the truth of a comparison. Raises BadInput, which says what is wrong, for what is
    none, for division by zero, and for numbers beyond MAX_BITS.
    """
    if len(expression) > MAX_CHARACTERS:
        raise BadInput(f"the expression has more than {MAX_CHARACTERS} characters; compute it in parts")
    return _Parser(_tokens(expression.translate(_SAME))).whole()


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each token."""
    found, at = [], 0
    text = re.split(r"(?<![<>=!])=(?!=)", text)[0].strip()  # what is claimed to be the result
    if not text:
        raise BadInput("the expression is empty; write one such as 2 * (3 + 4.5)")
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadInput(f"{text[at:].lstrip()[:1]!r} is no part of an expression such as 2 * (3 + 4.5)")
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    return [*found, ("end", "")]


class _Parser:
    """Recursive descent; computes as it reads."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens, self.at, self.depth = tokens, 0, 0

    def whole(self) -> Number | bool:
        left = self.sum()
        if (compare := _COMPARISONS.get(self.text)) is not None:
            self.at += 1
            right = self.sum()
            self.end()
            return compare(left.value, right.value)
        self.end()
        return left

    @property
    def text(self) -> str:
        return self.tokens[self.at][1]

    def end(self) -> None:
        if self.tokens[self.at][0] == "end":
            return
        if self.text == ",":
            raise BadInput("a comma only separates arguments, as in max(1, 2): write 1000, not 1,000")
        raise BadInput(f"an operator is missing before {self.text!r}")

    def accept(self, *marks: str) -> str | None:
        """The next token, if it is one of these marks."""
        kind, text = self.tokens[self.at]
        if kind != "mark" or text not in marks:
            return None
        self.at += 1
        return text

    def sum(self) -> Number:
        value = self.product()
        while mark := self.accept("+", "-"):
            value = _binary(mark, value, self.product())
        return value

    def product(self) -> Number:
        value = self.unary()
        while mark := self.accept("*", "/", "//", "%"):
            value = _binary(mark, value, self.unary())
        return value

    def unary(self) -> Number:
        negative = False
        while mark := self.accept("+", "-"):
            negative ^= mark == "-"
        value = self.power()
        return Number(-value.value, value.exact) if negative else value

    def power(self) -> Number:
        value = self.postfix()
        if self.accept("**", "^"):
            self.deeper()
            value = _power(value, self.unary())
            self.depth -= 1
        return value

    def postfix(self) -> Number:
        value = self.atom()
        while self.accept("!"):
            value = _factorial(value)
        return value

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise BadInput(f"the expression is nested more than {MAX_DEPTH} deep; compute it in parts")

    def atom(self) -> Number:
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return _bounded(Fraction(text) if "e" not in text.lower() else _scientific(text))
        if kind == "name":
            return self.named(text.lower())
        if text == "(":
            [value] = self.arguments(1)
            return value
        raise BadInput(f"a number is missing {f'before {text!r}' if text else 'at the end'}")

    def named(self, name: str) -> Number:
        if self.accept("("):
            if name not in _FUNCTIONS:
                raise BadInput(f"there is no function {name}; there are {', '.join(sorted(_FUNCTIONS))}")
            least, most, function = _FUNCTIONS[name]
            values = self.arguments(most)
            if len(values) < least:
                raise BadInput(f"{name} takes {least} numbers")
            return function(*values)
        if name not in _CONSTANTS:
            raise BadInput(f"{name} is no number: write numbers, pi, e, and functions as in sqrt(2)")
        return _CONSTANTS[name]

    def arguments(self, most: int) -> list[Number]:
        """What stands up to the closing parenthesis."""
        self.deeper()
        values = [self.sum()]
        while self.accept(","):
            values.append(self.sum())
        if not self.accept(")"):
            raise BadInput(
                f"a closing parenthesis is missing {f'before {self.text!r}' if self.text else 'at the end'}"
            )
        if len(values) > most:
            raise BadInput(
                f"{len(values)} numbers stand between parentheses where {most} may: write 1000, not 1,000"
            )
        self.depth -= 1
        return values


def _scientific(text: str) -> Fraction:
    digits, power = re.split("[eE]", text)
    if abs(int(power)) > MAX_BITS // 4:
        raise _too_large()
    return Fraction(digits) * Fraction(10) ** int(power)


def _too_large() -> BadInput:
    return BadInput("the number is too large: it would have more than 6,000 digits")


def _bounded(value: Fraction, exact: bool = True) -> Number:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise _too_large()
    return Number(value, exact)


def _binary(mark: str, left: Number, right: Number) -> Number:
    a, b, exact = left.value, right.value, left.exact and right.exact
    if mark in ("/", "//", "%") and b == 0:
        raise BadInput("a division by zero has no result")
    match mark:
        case "+":
            return _bounded(a + b, exact)
        case "-":
            return _bounded(a - b, exact)
        case "*":
            return _bounded(a * b, exact)
        case "/":
            return _bounded(a / b, exact)
        case "//":
            return _bounded(Fraction(a // b), exact)
    return _bounded(a % b, exact)


def _power(base: Number, exponent: Number) -> Number:
    a, b = base.value, exponent.value
    if a == 0 and b < 0:
        raise BadInput("zero to a negative power is a division by zero")
    if b.denominator == 1:
        if a in (0, 1, -1):
            return Number(a ** (b.numerator % 2 if a == -1 else min(abs(b.numerator), 1)), base.exact)
        bits = max(a.numerator.bit_length(), a.denominator.bit_length()) - 1
        if bits * abs(b.numerator) > MAX_BITS or abs(b.numerator) > MAX_BITS:
            raise _too_large()
        return _bounded(a**b.numerator, base.exact and exponent.exact)
    if a < 0:
        raise BadInput("a negative number has no such power among the real numbers")
    if b == Fraction(1, 2):
        return _root(base)
    return _decimal(lambda: _CONTEXT.power(_as_decimal(a), _as_decimal(b)))


def _factorial(number: Number) -> Number:
    value = number.value
    if value.denominator != 1 or value < 0:
        raise BadInput("a factorial is that of 0, 1, 2, ...")
    if value > 2000:
        raise _too_large()
    return _bounded(Fraction(math.factorial(value.numerator)))


def _as_decimal(value: Fraction) -> Decimal:
    return _CONTEXT.divide(Decimal(value.numerator), Decimal(value.denominator))


def _decimal(function: Callable[[], Decimal]) -> Number:
    """A result with 30 digits."""
    try:
        return _bounded(Fraction(function()), exact=False)
    except decimal.Overflow:
        raise _too_large() from None
    except (decimal.InvalidOperation, decimal.DivisionByZero):
        raise BadInput("this has no result among the real numbers") from None


def _root(number: Number) -> Number:
    value = number.value
    if value < 0:
        raise BadInput("a negative number has no square root among the real numbers")
    up, down = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if up * up == value.numerator and down * down == value.denominator:
        return Number(Fraction(up, down), number.exact)
    return _decimal(lambda: _CONTEXT.sqrt(_as_decimal(value)))


def _logarithm(number: Number, base: Number | None = None) -> Number:
    """Natural, unless there is a base."""
    if number.value <= 0 or (base is not None and (base.value <= 0 or base.value == 1)):
        raise BadInput("a logarithm is that of a number above 0, to a base above 0 other than 1")
    over = Decimal(1) if base is None else _CONTEXT.ln(_as_decimal(base.value))
    return _decimal(lambda: _CONTEXT.divide(_CONTEXT.ln(_as_decimal(number.value)), over))


def _float(function: Callable[[float], float]) -> Callable[[Number], Number]:
    """A function of the standard library, whose result has 15 digits, and no more of them after the point."""

    def call(number: Number) -> Number:
        try:
            return _bounded(Fraction(round(function(float(number.value)), 15)), exact=False)
        except (OverflowError, ValueError):
            raise BadInput("this has no result among the real numbers, or too large a one") from None

    return call


def _whole(function: Callable[..., int], *numbers: Number) -> Number:
    """A function of whole numbers."""
    if any(number.value.denominator != 1 for number in numbers):
        raise BadInput("this function takes whole numbers")
    return _bounded(Fraction(function(*(number.value.numerator for number in numbers))))


def _round(number: Number, digits: Number | None = None) -> Number:
    """Halves go away from zero, as in school."""
    digits = digits or Number(Fraction(0))
    if digits.value.denominator != 1 or abs(digits.value) > 1000:
        raise BadInput("round takes a whole number of digits, at most 1000")
    scale = Fraction(10) ** digits.value.numerator
    scaled = abs(number.value) * scale
    rounded = Fraction(math.floor(scaled + Fraction(1, 2))) / scale
    return _bounded(rounded if number.value >= 0 else -rounded)


_MANY = 50
_FUNCTIONS: dict[str, tuple[int, int, Callable[..., Number]]] = {
    "abs": (1, 1, lambda number: Number(abs(number.value), number.exact)),
    "floor": (1, 1, lambda number: Number(Fraction(math.floor(number.value)))),
    "ceil": (1, 1, lambda number: Number(Fraction(math.ceil(number.value)))),
    "round": (1, 2, _round),
    "min": (1, _MANY, lambda *numbers: min(numbers)),
    "max": (1, _MANY, lambda *numbers: max(numbers)),
    "gcd": (1, _MANY, lambda *numbers: _whole(math.gcd, *numbers)),
    "lcm": (1, _MANY, lambda *numbers: _whole(math.lcm, *numbers)),
    "factorial": (1, 1, _factorial),
    "sqrt": (1, 1, _root),
    "exp": (1, 1, lambda number: _decimal(lambda: _CONTEXT.exp(_as_decimal(number.value)))),
    "ln": (1, 1, _logarithm),
    "log": (1, 2, _logarithm),
    "log2": (1, 1, lambda number: _logarithm(number, Number(Fraction(2)))),
    "log10": (1, 1, lambda number: _logarithm(number, Number(Fraction(10)))),
    **{
        name: (1, 1, _float(getattr(math, name)))
        for name in ("sin", "cos", "tan", "asin", "acos", "atan", "degrees", "radians")
    },
}
"""Name -> how many numbers it takes, from and to, and the function."""
_CONSTANTS = {
    "pi": Number(Fraction("3.14159265358979323846264338328"), exact=False),
    "e": Number(Fraction("2.71828182845904523536028747135"), exact=False),
}
_COMPARISONS: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


class Calculator(Tool):
    """`calculate` as a tool."""

    name = "calculator"
    description = "Computes an expression."
    parameters = texts("expression")
    outside = False

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        """The value; `true` or `false` of a comparison."""
        value = calculate(arguments["expression"])
        return ToolResult.of(str(value).lower() if isinstance(value, bool) else str(value), self.name)
