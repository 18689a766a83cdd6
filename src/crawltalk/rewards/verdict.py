"""What a verifier says of a reply: a verdict, with the reward where there is one."""

from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from crawltalk.core.types import Problem


class Outcome(StrEnum):
    """What a verdict says. A reply that could not be judged is never a wrong one."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNDETERMINED = "undetermined"
    """The verifier cannot tell: the problem has no readable answer, or a term of the reward is missing."""
    ERROR = "error"
    """The verifier itself failed: it raised, took too long, or returned no finite number."""


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The judgement of one reply."""

    outcome: Outcome
    reward: float | None = None
    """Finite where the outcome is correct or wrong; else None, and the reply takes no part in the training."""
    reason: str = ""
    """Why, for people; of an error or an undetermined reply always."""


Verifier = Callable[[Problem, str], Verdict]
"""(problem, reply) -> verdict."""
Judge = Callable[[Sequence[Problem], Sequence[str]], list[Verdict]]
"""The same for many replies at once, such as by a reward model or a pool of processes."""


def correct(reward: float = 1.0, reason: str = "") -> Verdict:
    """A right reply."""
    return Verdict(Outcome.CORRECT, reward, reason)


def wrong(reward: float = 0.0, reason: str = "") -> Verdict:
    """A wrong reply."""
    return Verdict(Outcome.WRONG, reward, reason)
