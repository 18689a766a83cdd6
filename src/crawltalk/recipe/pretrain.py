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
    """Tokens to train on. If absent: what `flop` pays for, or 20 per parameter (Hoffmann et al. 2022)."""
    flop: float | None = None
    """What the training may cost, in floating-point operations. If absent, and the size of the model or of the
    vocabulary is to follow from the corpus: a few minutes of this machine, when the recipe is first resolved.
    """
    batch_tokens: int = 8192
    """Tokens in one optimizer step, over all ranks."""
    eval_every: int = 100
    """Steps between two evaluations: the validation loss, and a sample of each prompt."""
    save_every: int = 50
    """Steps between two checkpoints to resume from."""
    save_keep: int = 2
    """How many of these checkpoints, the newest ones, are kept while the training runs."""
    keep_every: int = 0
    """Steps between two models that are kept permanently, in pretrain/checkpoints/. 0: none."""
    resume_from: str = ""
    """A checkpoint to resume from, with its optimizer state and step, such as the one that is saved when a
    training diverges.
    """
    document_mask: bool = False
    """Attention does not cross the boundaries of documents."""
    prompts: tuple[str, ...] | None = None
    """Prompts that the model continues at each evaluation. If absent: the titles of three flagships."""
