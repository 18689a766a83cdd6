"""The answer letter by letter."""

from crawltalk.core.types import Problem
from crawltalk.rewards.answers import final_answer, spoken
from crawltalk.rewards.verdict import Verdict, correct, wrong


def exact(problem: Problem, reply: str) -> Verdict:
    """Whether the reply, or its final answer, is the answer but for white space at its ends. Reasoning in
    `<think>...</think>` is no part of the reply.
    """
    answer = problem.answer.strip()
    if spoken(reply).strip() == answer or final_answer(reply) == answer:
        return correct()
    return wrong(reason=f"{final_answer(reply)[:80]!r} is not {answer[:80]!r}")
