"""Elo ratings from the results of matches: the Bradley-Terry model, a draw as half a win."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class MatchResult:
    """How a match ended."""

    first: str
    second: str
    games: int
    score: float
    """Share of points of `first`."""


def ratings(results: Sequence[MatchResult], anchor: str) -> dict[str, float]:
    """The Elo of all who played, `anchor`'s being 0, by minorisation-maximisation (Hunter 2004).

    Each match counts one more draw than was played, so that who always wins has a rating, too. All must be connected
    by matches.
    """
    points = dict.fromkeys((name for one in results for name in (one.first, one.second)), 0.0)
    for one in results:
        points[one.first] += one.games * one.score + 0.5
        points[one.second] += one.games * (1 - one.score) + 0.5
    strength = dict.fromkeys(points, 1.0)
    for _ in range(10_000):
        expected = dict.fromkeys(points, 0.0)
        for one in results:
            share = (one.games + 1) / (strength[one.first] + strength[one.second])
            expected[one.first] += share
            expected[one.second] += share
        updated = {name: points[name] / expected[name] for name in points}
        unit = updated[anchor]
        updated = {name: value / unit for name, value in updated.items()}
        change = max(abs(math.log(updated[name] / strength[name])) for name in points)
        strength = updated
        if change < 1e-6:
            break
    return {name: 400 * math.log10(value) for name, value in strength.items()}
