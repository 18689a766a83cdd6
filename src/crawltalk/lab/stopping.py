"""When to stop an optimisation against a learned reward, without ever seeing what people really think: rules that
choose among the looks at a policy (`lab.joking.optimise`).
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from crawltalk.lab.jokes import PLACES, prefers

ASKED, PATIENCE = 200, 3
"""Fresh comparisons at a look, and looks in a row without progress after which rules stop."""
BUDGET = 5.0
"""Nats a joke that the third rule allows."""

Rows = Sequence[Mapping[str, Any]]
"""Looks at a policy, in the order of the steps."""


def fresh_preferences(rows: Rows, rng: random.Random) -> Mapping[str, Any]:
    """The look that this rule keeps: people compare jokes of each look with those of the best so far, which it
    replaces if it wins by two standard errors.
    """
    needed = ASKED / 2 + ASKED**0.5
    best, lost = rows[0], 0
    for row in rows[1:]:
        won = 0
        for number in range(ASKED):
            place = PLACES[number % len(PLACES)]
            one, other = (rng.choice(look["jokes"][place]) for look in (row, best))
            won += prefers(place, one, other, rng)
        best, lost = (row, 0) if won > needed else (best, lost + 1)
        if lost == PATIENCE:
            break
    return best


def second_model(rows: Rows) -> Mapping[str, Any]:
    """The look at which a reward model that was trained on other comparisons liked the jokes best."""
    best, lost = rows[0], 0
    for row in rows[1:]:
        best, lost = (row, 0) if row["others"][0] > best["others"][0] else (best, lost + 1)
        if lost == PATIENCE:
            break
    return best


def budget(rows: Rows) -> Mapping[str, Any]:
    """The last look before the divergence exceeds `BUDGET`."""
    over = next((index for index, row in enumerate(rows) if row["kl"] > BUDGET), len(rows))
    return rows[max(0, over - 1)]
