"""What an experiment is: a claim with its source, what is expected, a function that measures it for one seed, and the
rule, fixed before the first run, by which the figures of all seeds are judged.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from crawltalk.recipe import Machine
from crawltalk.run.stage import Progress

Figures = dict[str, Any]
"""What one seed measured: anything that JSON holds."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Everything that one run of an experiment gets."""

    seed: int
    out: Path
    """A folder of its own, which exists. It survives an interruption: the same trial finds its partial work there."""
    progress: Progress
    machine: Machine
    """Resolved: workers and device are set."""


Verdict = Literal["confirmed", "partly", "not at this scale"]


def verdict_of(clear: Sequence[bool], confirmed: bool = True) -> Verdict:
    """Confirmed if the figures of every seed are clear and what else is asked holds; partly, if those of some are."""
    return "confirmed" if all(clear) and confirmed else "partly" if any(clear) else "not at this scale"


def means_of(figures: Sequence[Figures], names: Sequence[str] | None = None) -> dict[str, float]:
    """The mean over the seeds of each figure that is a number, all of them if no names are given."""
    return {name: sum(row[name] for row in figures) / len(figures) for name in names or figures[0]}


Range = tuple[float, float]
"""The least and the most of something over the seeds."""


def ranges_of(
    judge: "Callable[[Sequence[Figures]], Judgement]", figures: Sequence[Figures]
) -> dict[str, Range]:
    """Of each effect the least and the most that one seed alone gives: with three seeds that says more than an
    interval that assumes a distribution. What counts seeds lies outside of these, and has none.
    """
    together, alone = judge(figures).effect, [judge([one]).effect for one in figures]
    found = {}
    for name, value in together.items():
        each = [effect[name] for effect in alone if name in effect]
        if len(each) == len(alone) and min(each) <= value <= max(each):
            found[name] = (min(each), max(each))
    return found


class Judgement(msgspec.Struct, kw_only=True, frozen=True):
    """What the figures of all seeds say of the claim."""

    verdict: Verdict
    effect: Mapping[str, float]
    """How large it is: a few numbers by name, means over the seeds unless the name says otherwise."""
    summary: str
    """One or two sentences for people, with the figures."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A claim, and how it is tested."""

    name: str
    claim: str
    """One sentence that the figures can refute."""
    source: str
    """Who says so: a talk, a paper with its section."""
    prediction: str
    """What is expected, and the thresholds of the verdict, written down before the first run."""
    method: str
    """What is trained and measured, its sizes, and the controls."""
    run: Callable[[Trial], Figures]
    """Measure one seed. Equal trials give equal figures, interrupted or not."""
    judge: Callable[[Sequence[Figures]], Judgement]
    """The verdict on the figures of all seeds, in their order."""
    figure: Callable[[Sequence[Figures]], str]
    """The same as a chart: SVG text (`core.charts`)."""
    seeds: int = 3
    shared: str = ""
    """The folder beside its own that it builds or reads, if several experiments do: `journeys`, `readers`."""
