"""Whether a reply to a factual question is right: correct, declined or incorrect, as SimpleQA counts (Wei et al.
2024, section 3). Rules only: texts, numbers, other names of the same.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from crawltalk.tasks.scoring import is_refusal, normalize

Verdict = Literal["correct", "declined", "incorrect"]
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")
YEAR = re.compile(r"[12]\d{3}")


def judge(answer: str, reply: str) -> Verdict:
    """The verdict on a reply, given the right answer. What declines and answers at once declines. Where the answer is a
    number, the reply has to have this number and no other; where it is a year, the first year of the reply counts.
    """
    if is_refusal(reply):
        return "declined"
    if number := NUMBER.fullmatch(answer.strip()):
        said_numbers = NUMBER.findall(reply)
        if YEAR.fullmatch(number[0]):  # "on 20 November 1889"
            said_numbers = [found for found in said_numbers if YEAR.fullmatch(found.rstrip(","))][:1]
        return "correct" if set(map(_value, said_numbers)) == {_value(number[0])} else "incorrect"
    said = f" {normalize(reply)} "
    return "correct" if any(f" {name} " in said for name in aliases(answer)) else "incorrect"


def aliases(answer: str) -> list[str]:
    """The normal forms of an answer: as it is, without what it has in brackets, without its article."""
    forms = [answer, re.sub(r"\s*\([^()]*\)", "", answer)]
    forms += [re.sub(r"^(?:an?|the)\s+", "", form.strip(), flags=re.IGNORECASE) for form in forms]
    return [form for form in dict.fromkeys(map(normalize, forms)) if form]


def agreement(replies: Sequence[str]) -> tuple[str, float]:
    """The most frequent reply, but for case and punctuation, and its share of all (Wang et al. 2023,
    self-consistency). The first of equally frequent ones.
    """
    counts = Counter(map(normalize, replies))
    most, count = max(counts.items(), key=lambda item: item[1])
    return next(reply for reply in replies if normalize(reply) == most), count / len(replies)


def _value(number: str) -> float:
    return float(number.replace(",", ""))
