r"""Fractions, roots, sets, intervals, vectors and formulas in LaTeX, compared by their value, with math-verify.

What math-verify is not asked:

- to find the answer in a reply: it joins near boxes into a set, so that a corrected answer is wrong, and takes money's
  `$` for LaTeX;
- to read a gold or an answer as it stands: bare ones are misread (`1,-2` as -2), so both go into a box;
- to read expressions that are no LaTeX: for these sympy evaluates the reply as Python;
- to tell one answer from several: it drops what it takes for a unit, so that `5 \text{ cents} or 3` is 5 cents;
- to compare numbers with a base: it drops the base, so that 52_8 is 52_7;
- to compare plain numbers: it rounds to six decimals, so that .0000672 is 0.0000671;
- to keep time: its alarms raise in threads. So use this verifier in a `pool`, whose processes can be killed.

Its reader needs ANTLR's runtime, of which sympy's own LaTeX reader wants another version: use one of the two.
"""

import logging
import re
from functools import lru_cache
from typing import Any

from crawltalk.core.errors import MissingInput
from crawltalk.core.types import Problem
from crawltalk.rewards.answers import boxes, final_answer
from crawltalk.rewards.numbers import single
from crawltalk.rewards.spelling import latex
from crawltalk.rewards.verdict import Verdict, correct, undetermined, wrong

MAX_CHARACTERS = 400
"""A longer answer is no answer: it takes sympy seconds to read."""
MAX_WORDS = 4
"""More of them are a sentence, and whatever mathematics is in it, it may be the question's."""
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_SEVERAL = re.compile(r"[,;]|\bor\b|\band\b")
_GROUP = re.compile(r"[(\[{][^()\[\]{}]*[)\]}]")
_NUMBER = re.compile(r"[-+]? ?(?:\d+(?:\.\d*)?|\.\d+)(?: ?/ ?\d+)?")
_BASED = re.compile(r"([0-9A-Z]+)_\{?(\d+)\}?")
_EQUALS = re.compile(r"(?<![\\<>!])=")


class Mathematics:
    """The verifier `math`."""

    def __call__(self, problem: Problem, reply: str) -> Verdict:
        """Whether the final answer of the reply has the value of the problem's answer."""
        gold, said = _content(problem.answer), _content(final_answer(reply))
        if fault := _fault(gold, said):
            return wrong(reason=fault)
        same = _same(gold, said)
        if same is None:
            return undetermined(f"the problem's answer {problem.answer!r} cannot be read")
        return correct() if same else wrong(reason=f"{said} is not {gold}")

    def warm_up(self) -> None:
        """Load what reads LaTeX, which takes seconds the first time."""
        _equal(_read(r"\frac{\pi}{2}"), r"\sqrt{2}")


mathematics = Mathematics()


def _content(answer: str) -> str:
    """An answer in one spelling, without a box around it."""
    found = boxes(answer)
    return latex(found[-1][2] if found else answer)


def _fault(gold: str, said: str) -> str:
    """Why an answer is none, whatever its value; empty if it is one."""
    if not said or len(said) > MAX_CHARACTERS:
        return f"an answer of {len(said)} characters" if said else "no answer"
    if len(_WORD.findall(said)) > max(MAX_WORDS, len(_WORD.findall(gold))):
        return f"a sentence: {said[:80]!r}"
    if _several(said) and not re.search(r"[,;]|\\pm|\\cup|\bor\b|\band\b", gold):
        return f"several answers: {said[:80]!r}"
    return ""


def _same(gold: str, said: str) -> bool | None:
    """Whether the values are equal; None if the gold's cannot be read."""
    if said == gold:
        return True
    if _is_number(gold) and _is_number(said):
        return single(gold) == single(said)
    if (based := _BASED.fullmatch(gold)) or _BASED.fullmatch(said):
        # an answer need not repeat the base that the problem asks for
        return bool(based) and _BASED.sub(r"\1_\2", said) in (based[1], f"{based[1]}_{based[2]}")
    values = _read(gold)
    return all(_equal(values, part) for part in _parts(said)) if values else None


def _is_number(text: str) -> bool:
    """Whether a text is a plain number and nothing else."""
    return bool(_NUMBER.fullmatch(text)) and single(text) is not None


def _several(said: str) -> bool:
    """Whether an answer has `or`, `and` or a comma outside of all brackets."""
    said = re.sub(r"\\(?:text|mbox|mathrm|textbf)\s*\{\s*(or|and)\s*\}", r" \1 ", said)
    while (outside := _GROUP.sub(" ", said)) != said:
        said = outside
    return bool(_SEVERAL.search(said))


def _parts(said: str) -> list[str]:
    """What has to be equal to the gold: the answer, and each part of it if it is an equation between numbers. So
    `5 = 1` is not 1.
    """
    parts = [part.strip() for part in _EQUALS.split(said)]
    letters = re.search(r"[A-Za-z]", re.sub(r"\\[a-z]+", "", parts[0]))
    return [said] if len(parts) == 1 or letters else parts


@lru_cache(maxsize=4096)
def _read(content: str) -> list[Any]:
    """What math-verify reads in a box with this content; nothing if it cannot read it."""
    try:
        from math_verify import LatexExtractionConfig, parse
    except ImportError:
        raise MissingInput("the verifier math needs math-verify; pip install 'crawltalk[rewards]'") from None
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that somebody else keeps time
    config = LatexExtractionConfig(boxed_match_priority=0)
    return parse(
        rf"\boxed{{{content}}}", [config], fallback_mode="no_fallback", parsing_timeout=0, raise_on_error=True
    )


def _equal(gold: list[Any], said: str) -> bool:
    from math_verify import verify

    return verify(gold, _read(said), timeout_seconds=0, raise_on_error=True)
