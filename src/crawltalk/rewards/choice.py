"""Multiple choice: one letter, and no other."""

import re

from crawltalk.core.types import Problem
from crawltalk.rewards.answers import final_answer, spoken, stated
from crawltalk.rewards.verdict import Verdict, correct, undetermined, wrong

_LETTER = re.compile(r"(?<![A-Za-z0-9'’])\(?([A-Z])\)?(?![A-Za-z0-9'’])")
_LISTED = re.compile(r"^\W*([A-Z])[.):]\s", re.MULTILINE)
_LETTER_FIRST = re.compile(r"\(?([A-Za-z])(?:\)|[.:]?$|[.:)]\s)")


def choice(problem: Problem, reply: str) -> Verdict:
    """Whether the final answer names the problem's letter and no other: `B`, `(b)`, `B. because ...`, `The answer is
    B`. `A or B` is wrong, and so is a list of choices without a word on which it is. In a sentence, only a capital that
    stands alone is a letter.
    """
    gold = problem.answer.strip().strip("().").upper()
    if not re.fullmatch(r"[A-Z]", gold):
        return undetermined(f"the problem's answer {problem.answer!r} is not a letter")
    said = re.sub(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}", r"\1", final_answer(reply)).strip()
    first = _LETTER_FIRST.match(said)
    named = {first[1].upper()} if first else set()
    named |= set(_LETTER.findall(said[first.end() :] if first else said))
    if stated(reply) is None:
        named |= set(_LISTED.findall(spoken(reply)))
    if named == {gold}:
        return correct()
    return wrong(
        reason=f"{' and '.join(sorted(named))} for {gold}" if named else f"no letter in {said[:80]!r}"
    )
