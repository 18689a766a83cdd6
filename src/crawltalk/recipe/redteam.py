"""The red team: `[redteam]`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Redteam:
    """Attacks on a small assistant of its own, whose policy is ours, and on the run's assistant, with defences."""

    doors: int = 0
    """Locked doors of the house that are attacked, 12 at most; 0: a run has no such stage."""
    searched: int = 4
    """Those of them for which suffixes are searched for by gradients, the slowest attack."""
    secrets: int = 6
    """Secrets that the run's assistant is told to keep."""
    budget: int = 4
    """Attempts of an attack at each of them."""
