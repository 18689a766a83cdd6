"""A reward for the truth: a right reply is worth 1, one that declines 0, and a wrong one -1, so that guessing pays only
where it is right more often than wrong (TruthRL; Wei et al. 2025).
"""

from crawltalk.core.types import Problem
from crawltalk.rewards.verdict import Verdict, correct, wrong
from crawltalk.tasks.judging import judge
from crawltalk.tasks.scoring import spoken


def truthful(problem: Problem, reply: str) -> Verdict:
    """The verdict of `crawltalk.tasks.judging` on a factual reply, as a ternary reward."""
    said = judge(problem.answer, spoken(reply))
    if said == "correct":
        return correct()
    return wrong(0.0, "declined") if said == "declined" else wrong(-1.0, "made up")
