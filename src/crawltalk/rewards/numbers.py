"""Numbers, compared by their exact value: whole ones, decimals, fractions, money, percentages.

In microseconds and without a library, for arithmetic and GSM8K. Roots, sets and formulas are for `mathematics.py`.
"""

import re
from fractions import Fraction

from crawltalk.core.types import Problem
from crawltalk.rewards.answers import final_answer
from crawltalk.rewards.spelling import plain
from crawltalk.rewards.verdict import Verdict, correct, undetermined, wrong

MAX_DIGITS = 400
"""A longer number is read as none: its value would cost more than it tells."""
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_NUMBER = re.compile(
    r"(?<![\d.^])(?P<sign>[-+]?) ?"
    r"(?:(?P<units>\d+) +(?P<part>\d+)/(?P<parts>\d+)"
    r"|(?P<digits>\d*\.?\d+)(?:[eE](?P<power>[-+]?\d{1,3})(?!\w))?(?: ?/ ?(?P<below>\d+))?)(?!\d|\.\d| ?\^)"
)


def numbers(text: str) -> list[Fraction]:
    """The values of all numbers in a text, in order: `$1,234` is 1234, `3/4` and `.75` are the same, `1e3` is 1000."""
    text = _FRACTION.sub(_with_slash, plain(text))
    return [value for found in _NUMBER.finditer(text) if (value := _value(found)) is not None]


def _with_slash(found: re.Match[str]) -> str:
    above, below = filter(None, found.groups())
    return f" {above}/{below}"


def _value(found: re.Match[str]) -> Fraction | None:
    """None for a number too long, or a fraction of nothing."""
    if len(found[0]) > MAX_DIGITS:
        return None
    above = Fraction(f"{found['part'] or found['digits']}e{found['power'] or 0}")
    below = int(found["parts"] or found["below"] or 1)
    if below == 0:
        return None
    value = int(found["units"] or 0) + above / below
    return -value if found["sign"] == "-" else value


def single(text: str) -> Fraction | None:
    """The value of a text that has one number, or the same number several times."""
    values = set(numbers(text))
    return values.pop() if len(values) == 1 else None


def number(problem: Problem, reply: str) -> Verdict:
    """Whether the final answer of the reply, or what it says behind its last `=`, has one number and this is the
    problem's answer. `5 or 1` is wrong whatever the answer is.
    """
    gold = single(problem.answer)
    if gold is None:
        return undetermined(f"the problem's answer {problem.answer!r} is not one number")
    said = final_answer(reply).rpartition("=")[2]
    found = sorted(set(numbers(said)))
    if len(found) == 1:
        return correct() if found[0] == gold else wrong(reason=f"{found[0]} is not {gold}")
    return wrong(reason=f"{len(found)} numbers in {said[:80]!r}" if found else f"no number in {said[:80]!r}")
