"""Verifiers that go wrong in every way, and problems for them; importable by the processes of a pool."""

import os
import time

from crawltalk.core.types import Problem
from crawltalk.rewards.numbers import number
from crawltalk.rewards.verdict import Verdict, correct, wrong


def problem(answer: str, prompt: str = "?", task: str = "own") -> Problem:
    return Problem(prompt=prompt, answer=answer, task=task)


def moody(asked: Problem, reply: str) -> Verdict:
    """Does what the reply says."""
    if reply == "raise":
        raise ZeroDivisionError("no such luck")
    if reply == "die":
        os._exit(3)
    if reply == "use all memory":
        bytearray(1 << 40)
    if reply == "infinity":
        return correct(float("inf"))
    while reply == "compute":
        pass
    if reply.startswith("sleep"):
        time.sleep(float(reply.split()[1]))
        return correct()
    return number(asked, reply)


def generous(asked: Problem, reply: str) -> Verdict:
    """Pays whatever has the answer anywhere in it."""
    return correct() if asked.answer in reply else wrong()


class Broken:
    """Cannot be made ready."""

    def __call__(self, asked: Problem, reply: str) -> Verdict:
        return correct()

    def warm_up(self) -> None:
        raise OSError("its table is not here")
