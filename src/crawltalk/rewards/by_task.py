"""The score of the task that a problem belongs to, as a reward."""

from crawltalk.core.types import Problem
from crawltalk.rewards.verdict import Verdict, correct, undetermined, wrong
from crawltalk.tasks import TASK_OF, score


def by_task(problem: Problem, reply: str) -> Verdict:
    """The task's score, correct where it is 1.

    Scores of tasks are made to evaluate, not to reward: several of them find the answer anywhere in a reply, so that
    `5 or 1` scores. The audit says which.
    """
    if problem.task not in TASK_OF:
        return undetermined(f"no task has problems of the kind {problem.task!r}")
    points = score(problem, reply)
    return correct(points) if points >= 1 else wrong(points, f"the task's score is {points:g}")
