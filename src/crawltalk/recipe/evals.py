"""What the models can do: `[evals]`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Evals:
    """What the models can do, measured."""

    problems: int = 100
    """Problems of each kind, at most."""
    max_tokens: int = 64
    """Longest reply, in tokens."""
