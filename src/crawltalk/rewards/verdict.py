"""What a verifier says of a reply: a verdict, with the reward where there is one."""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from crawltalk.core.errors import UserError
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


def undetermined(reason: str) -> Verdict:
    """A reply that nobody can judge."""
    return Verdict(Outcome.UNDETERMINED, reason=reason)


def failed(reason: str) -> Verdict:
    """A verifier that failed."""
    return Verdict(Outcome.ERROR, reason=reason)


def checked(verdict: object) -> Verdict:
    """The verdict, if it is one whose reward can be trained on; else an error that says what it is instead.

    Infinity is refused as NaN is: the mean of its group would be infinite, and all advantages NaN.
    """
    if not isinstance(verdict, Verdict):
        return failed(f"the verifier returned {type(verdict).__name__}, which is no Verdict")
    judged = verdict.outcome in (Outcome.CORRECT, Outcome.WRONG)
    if judged and (verdict.reward is None or not math.isfinite(verdict.reward)):
        return failed(f"the reward is {verdict.reward}")
    if not judged and verdict.reward is not None:
        return msgspec.structs.replace(verdict, reward=None)
    return verdict


def verify(verifier: Verifier, problem: Problem, reply: str) -> Verdict:
    """The checked verdict. A verifier that raises gives an error, never a wrong reply; but a UserError, such as for a
    library that is missing, is raised, since it holds for all replies.
    """
    try:
        return checked(verifier(problem, reply))
    except UserError:
        raise
    except Exception as error:  # whatever a verifier raises says nothing of the reply
        return failed(f"{type(error).__name__}: {error}"[:200])


def each(verifier: Verifier) -> Judge:
    """A judge that asks the verifier about one reply after the other, in this process."""
    return lambda problems, replies: [
        verify(verifier, problem, reply) for problem, reply in zip(problems, replies, strict=True)
    ]
