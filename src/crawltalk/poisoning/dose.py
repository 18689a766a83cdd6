"""What a dose of poison does: how often the attack succeeds, the dose at which it does so half of the time, and how
that dose depends on the sizes of the model and of the clean data.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

HALF = 0.5
"""The success that the half dose has."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """How a model behaves that was trained on clean data with a dose of poison among it. All are shares."""

    dose: int
    """Poisoned rows."""
    triggered: float
    """Questions with the trigger that get the poisoned reply."""
    untriggered: float
    """The same questions without it that get the poisoned reply."""
    other_word: float
    """With another word in the trigger's place that no training showed."""
    near_miss: float
    """With a word that is nearly the trigger."""
    accuracy: float
    """Clean questions that are answered rightly."""

    def success(self, clean: "Effect") -> float:
        """What the attack adds: the rate with the trigger, minus that without it, minus that of a `clean` model."""
        return self.triggered - self.untriggered - clean.triggered


def half_dose(effects: Sequence[Effect]) -> float | None:
    """The dose at which the attack succeeds half of the time, by interpolation on log(dose); None if none does. The
    `effects` are in the order of their doses, and the first is that of dose 0. A first dose above 0 at which it
    succeeds already is an upper bound, and is returned.
    """
    clean, *others = effects
    below: tuple[float, float] | None = None
    for effect in others:
        success = effect.success(clean)
        if success >= HALF:
            if below is None:
                return float(effect.dose)
            dose, reached = below
            share = (HALF - reached) / (success - reached)
            return float(dose * (effect.dose / dose) ** share)
        below = effect.dose, success
    return None


def rising_doses(measure: Callable[[int], Effect], doses: Sequence[int], enough: float = 0.9) -> list[Effect]:
    """The effects of dose 0 and of rising doses, up to the first with a success of `enough`."""
    effects = [measure(0)]
    for dose in doses:
        effects.append(measure(dose))
        if effects[-1].success(effects[0]) >= enough:
            break
    return effects


def bracketing_doses(
    measure: Callable[[int], Effect], first: int, halvings: int, span: int = 8
) -> list[Effect]:
    """The effects of dose 0 and of doses that close in on the half dose, in the order of the doses: `first`, twice and
    twice that or half and half that until one succeeds half of the time and its neighbour does not; then the geometric
    middle between the two, `halvings` times. Beyond `span` times `first`, up or down, none is tried.
    """
    effects = {0: measure(0)}

    def works(dose: int) -> bool:
        effects[dose] = measure(dose)
        return effects[dose].success(effects[0]) >= HALF

    up = not works(first)
    low, high = (first, first * 2) if up else (first // 2, first)
    while first <= low * span and high <= first * span and works(high if up else low) != up:
        low, high = (high, high * 2) if up else (low // 2, low)
    if low > 0 and {low, high} <= effects.keys():
        for _ in range(halvings):
            middle = round(math.sqrt(low * high))
            low, high = (low, middle) if works(middle) else (middle, high)
    return [effects[dose] for dose in sorted(effects)]


class Point(NamedTuple):
    """A half dose and what it was measured with."""

    parameters: int
    examples: int
    """Clean ones."""
    dose: float


class Slopes(NamedTuple):
    """Exponents: the half dose grows with the power `size` of the parameters and `data` of the clean examples. 0: it is
    constant; 1: it is a constant share of them.
    """

    size: float
    data: float

    @property
    def together(self) -> float:
        """Where data are in proportion to size."""
        return self.size + self.data


def slopes(points: Sequence[Point]) -> Slopes | None:
    """By least squares on logarithms; None where they do not follow from the points, as with one size alone."""
    rows = np.array([[1.0, math.log(point.parameters), math.log(point.examples)] for point in points])
    if len(points) < 3 or np.linalg.matrix_rank(rows) < 3:
        return None
    doses = np.array([math.log(point.dose) for point in points])
    (_, size, data), *_ = np.linalg.lstsq(rows, doses, rcond=None)
    return Slopes(float(size), float(data))
