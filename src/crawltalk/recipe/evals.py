"""What the models can do: `[evals]`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Evals:
    """What the models can do, measured."""

    problems: int = 100
    """Problems of each kind, at most."""
    max_tokens: int = 64
    """Longest reply, in tokens."""
    battery_problems: int = 8
    """Problems of each kind of the batteries (word problems, letters, dots, decimals); 0 for none."""
    context_pages: int = 6
    """Pages for each number of repeats that are asked from memory and with pages in context; 0 for none."""
    beside: tuple[str, ...] = ()
    """Other models that are put to these two: imported ones such as smollm2, or folders. One of 135 M parameters takes
    some 200 CPU seconds, most of them for pages in context.
    """
