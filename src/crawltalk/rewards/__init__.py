"""Rewards: who says how good a reply is, and what that is worth.

A verifier is a function `(problem, reply) -> Verdict`. A new one is a file in this folder and a line in `VERIFIERS`,
or a function of one's own, named `"my_package.module:name"`. Before it rewards, it is audited (`audit.py`).
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import reduce

from crawltalk.core.errors import BadRecipe
from crawltalk.core.objects import load_object
from crawltalk.rewards.composed import Composed, Term
from crawltalk.rewards.form import FORMS
from crawltalk.rewards.pool import SECONDS, Pool
from crawltalk.rewards.verdict import (
    Judge,
    Outcome,
    Verdict,
    Verifier,
    checked,
    correct,
    each,
    failed,
    undetermined,
    verify,
    wrong,
)

VERIFIERS = {
    "number": "crawltalk.rewards.numbers:number",
    "math": "crawltalk.rewards.mathematics:mathematics",
    "exact": "crawltalk.rewards.exact:exact",
    "choice": "crawltalk.rewards.choice:choice",
    "schema": "crawltalk.rewards.schema:schema",
    "think": "crawltalk.rewards.form:think",
    "boxed": "crawltalk.rewards.form:boxed",
    "unit_tests": "crawltalk.rewards.unit_tests:unit_tests",
    "task": "crawltalk.rewards.by_task:by_task",
    "tests": "crawltalk.rewards.unit_tests:unit_tests",
}
"""By name."""
QUICK = {"number", "exact", "choice", "schema", "think", "boxed", "task"}
"""Those that neither take long nor hang."""
OWN = "own"
"""In a name: the verifier that problems bring along, such as that of a generator."""

__all__ = [
    "OWN",
    "VERIFIERS",
    "Composed",
    "Judge",
    "Outcome",
    "Term",
    "Verdict",
    "Verifier",
    "checked",
    "correct",
    "each",
    "failed",
    "form_of",
    "make_judge",
    "make_verifier",
    "undetermined",
    "verify",
    "wrong",
]

_TERM = re.compile(r"(?:([-+]?(?:\d+\.?\d*|\.\d+))\s*\*\s*)?([A-Za-z_][\w.:]*)")


def make_verifier(name: str, own: Verifier | None = None) -> Verifier:
    """A verifier by name, the user's `"my_package.module:name"`, or a sum of them such as `"number + 0.2 * think"`.
    `own` is the one that `own` stands for.

    Raises BadRecipe if there is none.
    """
    terms = [
        Term(term, own if own is not None and term == OWN else _load(term), weight)
        for term, weight in _terms(name)
    ]
    return terms[0].verifier if len(terms) == 1 and terms[0].weight == 1 else Composed(terms)


def make_judge(
    name: str, workers: int = 1, seconds: float = SECONDS, own: Verifier | None = None
) -> AbstractContextManager[Judge]:
    """The verifier `make_verifier(name, own)` for many replies, as a context manager: in this process if it takes
    microseconds, else in processes of its own, with `seconds` for each reply.
    """
    verifier = make_verifier(name, own)
    if all(term in QUICK for term, _ in _terms(name)):
        return nullcontext(each(verifier))
    return Pool(verifier, workers, seconds=seconds)


def form_of(name: str) -> Callable[[str], str]:
    """How a right reply is written, whatever the answer, where a verifier asks for a form, too."""
    named = {term for term, _ in _terms(name)}
    forms = [form for term, form in FORMS.items() if term in named]
    return lambda answer: reduce(lambda written, form: form.format(written), forms, answer)


def _terms(name: str) -> list[tuple[str, float]]:
    """Names and weights."""
    found = [_TERM.fullmatch(part.strip()) for part in name.split(" + ")]
    if not all(found):
        raise BadRecipe(f"{name!r} names no verifier; write one, or a sum such as 'number + 0.2 * think'")
    return [(term[2], float(term[1] or 1)) for term in found if term]


def _load(name: str) -> Verifier:
    try:
        verifier = load_object(VERIFIERS.get(name, name))
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(VERIFIERS)
        raise BadRecipe(f"{name!r} is neither {known} nor a module:name that loads ({error})") from None
    if not callable(verifier):
        raise BadRecipe(
            f"{name!r} is {type(verifier).__name__}, which cannot be called with a problem and a reply"
        )
    return verifier
