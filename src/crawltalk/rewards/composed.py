"""A reward of several terms, such as a right answer and the form of the reply."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crawltalk.core.types import Problem
from crawltalk.rewards.verdict import Outcome, Verdict, Verifier, failed, undetermined, verify


@dataclass(frozen=True)
class Term:
    """A part of a reward."""

    name: str
    verifier: Verifier
    weight: float = 1.0


class Composed:
    """The verifier whose reward is the weighted sum of its terms' rewards, and whose outcome is that of the first."""

    def __init__(self, terms: Sequence[Term]) -> None:
        """Raises ValueError without terms, or for a weight that is no number."""
        if not terms or not all(math.isfinite(term.weight) for term in terms):
            raise ValueError("a composed reward has terms with finite weights")
        self.terms = tuple(terms)

    def __call__(self, problem: Problem, reply: str) -> Verdict:
        """An error if one of the terms fails, undetermined if one is missing: a sum without it would be another
        reward.
        """
        verdicts = [verify(term.verifier, problem, reply) for term in self.terms]
        reasons = "; ".join(
            f"{term.name}: {verdict.reason}"
            for term, verdict in zip(self.terms, verdicts, strict=True)
            if verdict.reason
        )
        outcomes = {verdict.outcome for verdict in verdicts}
        if Outcome.ERROR in outcomes:
            return failed(reasons)
        if Outcome.UNDETERMINED in outcomes:
            return undetermined(reasons)
        rewards = [verdict.reward or 0.0 for verdict in verdicts]
        total = math.fsum(term.weight * reward for term, reward in zip(self.terms, rewards, strict=True))
        return Verdict(verdicts[0].outcome, total, reasons)

    def warm_up(self) -> None:
        """Let each term load what it needs."""
        for term in self.terms:
            getattr(term.verifier, "warm_up", lambda: None)()
