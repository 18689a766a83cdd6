"""Further stages: `[stages.NAME]`, each a kind of stage once more, such as a second fine-tuning."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FurtherStage:
    """A kind of stage once more, from another model and with values of its own."""

    kind: str
    """The section whose stage is repeated, such as sft."""
    model: str
    """The stage whose model it starts from."""
    config: Any = None
    """Values of that section that are other than in the section itself. Resolved: the whole section."""
