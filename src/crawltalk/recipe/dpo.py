"""Direct preference optimization: `[dpo]`."""

import dataclasses
from dataclasses import dataclass, field

from crawltalk.recipe.lora import Lora, lora_optim
from crawltalk.recipe.optim import Optim, derive_optim

MUON_LR, ADAMW_LR, LORA_LR = 0.001, 0.0002, 0.0001
"""Peak learning rates, the first two at a width of 256: a model that answers already is moved a little."""


@dataclass(frozen=True, kw_only=True)
class Dpo:
    """The last assistant learns which of two replies people or a judge prefer (Rafailov et al. 2023)."""

    data: tuple[str, ...] = ()
    """Files of preferences. Without any, a run has no such stage."""
    base: str = ""
    """A model to start from instead of the run's assistant, as `sft.base`."""
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    beta: float = 0.1
    """How much moving away from the model that it starts from costs."""
    label_smoothing: float = 0.0
    """The share of pairs whose preference is taken to be wrong (Mitchell 2023, conservative DPO)."""
    epochs: float = 1.0
    """Passes over the pairs."""
    batch_pairs: int = 16
    """Pairs in one optimizer step."""
    save_every: int = 50
    """Steps between two checkpoints to resume from."""
    resume_from: str = ""
    """A checkpoint to resume from, as `pretrain.resume_from`."""


def derive_dpo(dpo: Dpo, width: int | None) -> Dpo:
    """The section with its learning rates, if the width of the model is known."""
    return dataclasses.replace(dpo, optim=dpo_optim(dpo, width)) if width and not dpo.base else dpo


def dpo_optim(dpo: Dpo, width: int) -> Optim:
    """The section's learning rates for a model of this width."""
    return derive_optim(lora_optim(dpo.optim, dpo.lora, LORA_LR), width, MUON_LR, ADAMW_LR)
