"""How far chance moves a mean: the one interval that every share has, and standard errors."""

import math
from collections.abc import Hashable, Sequence

NORMAL = 1.96
"""Standard errors to each side of a mean that hold 95 % of all draws."""


def share_stderr(share: float, trials: int) -> float:
    """Standard error of a share of so many trials (binomial)."""
    return math.sqrt(max(0.0, share * (1 - share)) / max(1, trials))


def mean_stderr(values: Sequence[float], clusters: Sequence[Hashable] = ()) -> tuple[float, float]:
    """The mean of at least one value, and its standard error, from the sample's variance.

    `clusters`: what each value belongs to, such as the subject of a question, where values that belong together may
    resemble each other. Then their deviations are added up before they are squared (Miller 2024, section 2.2).
    """
    mean, count = sum(values) / len(values), len(values)
    sums: dict[Hashable, float] = {}
    for key, value in zip(clusters or range(count), values, strict=True):
        sums[key] = sums.get(key, 0.0) + value - mean
    squares = sum(one * one for one in sums.values())
    if len(sums) < 2:  # values of one cluster say nothing of how clusters differ
        return mean_stderr(values) if clusters else (mean, 0.0)
    return mean, math.sqrt(squares * len(sums) / (len(sums) - 1)) / count


def wilson(successes: float, count: float) -> tuple[float, float]:
    """The interval of a share at 95 % (Wilson 1927), right for few trials and for shares of 0 and 1, too; `count` is
    above 0. Scores from 0 to 1 vary less than successes do, so of their sum it is wide enough.
    """
    share, spread = successes / count, NORMAL * NORMAL / count
    middle = (share + spread / 2) / (1 + spread)
    half = NORMAL / (1 + spread) * math.sqrt(max(0.0, share * (1 - share)) / count + spread / (4 * count))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # against rounding


def interval_of(values: Sequence[float], clusters: Sequence[Hashable] = ()) -> tuple[float, float]:
    """Wilson's interval of scores from 0 to 1: of those that come in clusters with as many independent trials as give
    the clustered standard error, and never more than there are (Korn and Graubard 1998).
    """
    mean, stderr = mean_stderr(values, clusters)
    plain = share_stderr(mean, len(values))
    trials = len(values) * min(1.0, (plain / stderr) ** 2) if clusters and stderr else len(values)
    return wilson(mean * trials, trials)
