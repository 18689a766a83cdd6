"""Further stages: `[stages.NAME]`, each repeats a kind of stage, such as a second fine-tuning."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FurtherStage:
    """A stage that repeats a kind, from another model and with its own settings."""

    kind: str
    """The section whose stage is repeated, such as sft."""
    model: str
    """The stage whose model it starts from."""
    config: Any = None
    """Settings that differ from those of the section. When the recipe is resolved: all settings."""
