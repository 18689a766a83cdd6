"""Which of two decimal numbers is larger: 9.11 or 9.9? Each pair is asked in both orders."""

import random
import re
from typing import ClassVar

from crawltalk.core.types import Problem
from crawltalk.evals.batteries.battery import Battery, Call, Worked, answered
from crawltalk.evals.batteries.functions import CALCULATOR
from crawltalk.tasks.scoring import numbers
from crawltalk.tasks.task import Split, kept_for

_COMPARED = re.compile(r"(\d+\.\d+)(?:\s+is)?\s+(?:the\s+)?(?:larger|bigger|greater)\b")


def larger(problem: Problem, reply: str) -> float:
    """1 if the reply names the answer: as the only number, as the one that it calls larger, or as the last one."""
    said = answered(reply)
    named = _COMPARED.findall(said) or [str(value) for value in numbers(said)]
    return float(bool(named) and numbers(named[-1]) == numbers(problem.answer))


class Decimals(Battery):
    """Pairs of numbers with one and two digits behind the point."""

    name = "decimals"
    about: ClassVar = {
        "longer_is_smaller": "9.11 or 9.9: the one with more digits is the smaller one",
        "longer_is_larger": "9.91 or 9.1: the one with more digits is the larger one",
    }
    functions: ClassVar = (CALCULATOR,)
    form = "Answer with the number only."
    score = staticmethod(larger)

    def draw(self, rng: random.Random, kind: str, split: Split) -> list[Worked]:
        """The two numbers decide the split, whatever their order."""
        while True:
            whole, tenths, hundredths = rng.randint(1, 99), rng.randint(1, 9), rng.randint(10, 98)
            longer_is_smaller = hundredths < 10 * tenths
            pair = f"{whole}.{hundredths} and {whole}.{tenths}"
            if (
                hundredths % 10
                and longer_is_smaller == (kind == "longer_is_smaller")
                and kept_for(pair) == split
            ):
                break
        long, short = f"{whole}.{hundredths}", f"{whole}.{tenths}"
        answer = short if longer_is_smaller else long
        steps = f"{short} is {short}0. " + (
            f"{short}0 > {long}." if longer_is_smaller else f"{long} > {short}0."
        )
        return [
            Worked(
                Problem(
                    prompt=f"Which is larger, {first} or {second}?",
                    answer=answer,
                    task=f"{self.name}.{kind}",
                ),
                steps,
                (
                    Call(
                        "calculator",
                        {"expression": f"{first} > {second}"},
                        "true" if answer == first else "false",
                    ),
                ),
                pair,
            )
            for first, second in ((long, short), (short, long))
        ]
