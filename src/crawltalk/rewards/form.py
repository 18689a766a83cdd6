"""The form of a reply, whatever it says."""

import re

from crawltalk.core.types import Problem
from crawltalk.rewards.answers import boxes
from crawltalk.rewards.verdict import Verdict, correct, wrong

_THOUGHT = re.compile(r"\s*<think>(?P<thought>.*?)</think>(?P<answer>.*)", re.DOTALL)
FORMS = {"boxed": r"\boxed{{{}}}", "think": "<think>So it is.</think>{}"}
"""Verifier -> a reply that has its form; of several the first is the innermost."""
_TAG = re.compile(r"</?think>")


def think(problem: Problem, reply: str) -> Verdict:
    """Whether the reply reasons in one `<think>...</think>` at its beginning, and answers behind it (DeepSeek-AI et al.
    2025, section 2.2.2).
    """
    found = _THOUGHT.fullmatch(reply)
    if not found:
        return wrong(reason="no <think>...</think> at the beginning")
    if _TAG.search(found["thought"]) or _TAG.search(found["answer"]):
        return wrong(reason="more than one <think>")
    if not found["thought"].strip():
        return wrong(reason="nothing is thought")
    return correct() if found["answer"].strip() else wrong(reason="no answer behind </think>")


def boxed(problem: Problem, reply: str) -> Verdict:
    """Whether the reply has one answer in `\\boxed{...}`."""
    found = [content for *_, content in boxes(reply)]
    return correct() if len(found) == 1 and found[0] else wrong(reason=f"{len(found)} boxes")
