"""Supervised fine-tuning: `[sft]`."""

import dataclasses
from dataclasses import dataclass, field

from crawltalk.recipe.lora import Lora, lora_optim
from crawltalk.recipe.optim import Optim, derive_optim

TASKS = {"refusal": 400, "identity": 300, "arithmetic": 3000, "spelling": 1000}
"""Defaults of `sft.tasks`. A recipe may change some of them and keep the others."""
MUON_LR = 0.005
"""Muon's peak learning rate at a width of 256."""
LORA_LR = 0.001
"""AdamW's peak learning rate for adapters."""


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Supervised fine-tuning on conversations made from the documents; the loss counts assistant tokens only."""

    base: str = ""
    """A model to start from instead of the run's own: an imported one, such as smollm2, another run, or a folder in
    Hugging Face's layout; with its tokenizer and chat format.
    """
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    epochs: float = 3.0
    """Passes over the conversations."""
    batch_tokens: int = 4096
    """Positions in one optimizer step; conversations share rows."""
    tasks: dict[str, int] = field(default_factory=lambda: dict(TASKS))
    """Conversations of each task, by its name in `crawltalk.tasks`. `refusal` is a number of titles that were
    never trained on and that the assistant learns to decline, half of the held-out ones in any case;
    `flagship` is a number of pages, all if absent.
    """
    name: str = "Crawly"
    """The name that the assistant gives itself."""
    save_every: int = 50
    """Steps between two checkpoints to resume from."""
    resume_from: str = ""
    """A checkpoint to resume from, as `pretrain.resume_from`."""


def derive_sft(sft: Sft, width: int | None) -> Sft:
    """The recipe's tasks over the usual ones, in one order whatever the order in the files; and the learning
    rates, if the width of the model is known.
    """
    tasks = TASKS | dict(sorted(sft.tasks.items()))
    optim = sft_optim(sft, width) if width and not sft.base else sft.optim
    return dataclasses.replace(sft, tasks=tasks, optim=optim)


def sft_optim(sft: Sft, width: int) -> Optim:
    """The section's learning rates for a model of this width."""
    return derive_optim(lora_optim(sft.optim, sft.lora, LORA_LR), width, MUON_LR)
