"""Batteries: problems made by rules that show where a model's ability ends. Seeded, with a split that is kept for the
test by construction. Any model can be asked them; none has to be taught them.

A new battery is a file in this folder and a name in `BATTERIES`.
"""

from crawltalk.evals.batteries.battery import Battery, Worked
from crawltalk.evals.batteries.decimals import Decimals
from crawltalk.evals.batteries.dots import Dots
from crawltalk.evals.batteries.letters import Letters
from crawltalk.evals.batteries.word_problems import WordProblems

BATTERIES: dict[str, Battery] = {
    battery.name: battery for battery in (WordProblems(), Letters(), Dots(), Decimals())
}
"""By name, in the order of the report."""

__all__ = ["BATTERIES", "Battery", "Worked"]
