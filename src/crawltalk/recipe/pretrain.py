"""Next-token prediction: `[pretrain]`."""

from dataclasses import dataclass, field

from crawltalk.recipe.model import Model
from crawltalk.recipe.optim import Optim


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Next-token prediction on the token shards."""

    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    tokens: int | None = None
    """Tokens to train on; 20 per parameter (Hoffmann et al. 2022) if absent."""
    batch_tokens: int = 8192
    """Tokens in one optimizer step, over all ranks."""
    eval_every: int = 100
    """Steps between two evaluations: the validation loss, and a sample of each prompt."""
    save_every: int = 50
    """Steps between two checkpoints to resume from."""
    save_keep: int = 2
    """So many of them, the newest ones, are kept while the training runs."""
    keep_every: int = 0
    """Steps between two models that are kept for good, in pretrain/checkpoints/; 0: none."""
    resume_from: str = ""
    """A checkpoint to go on from, with its optimizer's state and step: one that a training that diverged has
    left behind.
    """
    document_mask: bool = False
    """Attention does not look behind the beginning of a document."""
    prompts: tuple[str, ...] = ()
    """Beginnings that the model continues while it trains."""
