"""Supervised fine-tuning: `[sft]`."""

from dataclasses import dataclass, field

from crawltalk.recipe.optim import Optim


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Supervised fine-tuning on conversations made from the documents; the loss counts assistant tokens only."""

    optim: Optim = field(default_factory=Optim)
    epochs: float = 3.0
    """Passes over the conversations."""
    batch_tokens: int = 4096
    """Positions in one optimizer step, padding included."""
    arithmetic: int = 3000
    """Arithmetic conversations."""
    spelling: int = 1000
    """Spelling conversations."""
    identity: int = 300
    """Conversations about who the assistant is."""
    refusals: int = 400
    """Titles never trained on that the assistant learns to decline politely."""
    name: str = "Crawly"
    """How the assistant calls itself."""
    save_every: int = 50
    start: str = ""
    """As `pretrain.start`."""
