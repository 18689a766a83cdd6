"""Reinforcement learning from human feedback: `[rlhf]`."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from crawltalk.recipe.grpo import ADAMW_LR, LORA_LR, MUON_LR, Reinforce
from crawltalk.recipe.lora import Lora, lora_optim
from crawltalk.recipe.optim import Optim, derive_optim


@dataclass(frozen=True, kw_only=True)
class Rlhf(Reinforce):
    """The last assistant is reinforced by a reward model (Ouyang et al. 2022, section 3.5)."""

    prompts: tuple[str, ...] = ()
    """Files of preferences or conversations, of which the prompts are taken. Without any, a run has no such stage."""
    reward: str = ""
    """The folder of a reward model, ours or another classifier with one label, instead of the run's own."""
    base: str = ""
    """A model to start from instead of the run's assistant, as `sft.base`."""
    kl: float = 0.05
    """What moving away from the model that it starts from costs, per token and nat: without a price the reward model
    is hacked.
    """
    precision: Literal["float32", "bfloat16", "int8"] | None = None
    """In which replies are sampled, as `grpo.precision`."""
    held_out: float = 0.1
    """Share of the prompts that are only measured on."""
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    eval_every: int = 10
    """Steps between two evaluations on the held-out prompts."""
    save_every: int = 20
    """Steps between two checkpoints to resume from."""
    resume_from: str = ""
    """A checkpoint to resume from, as `pretrain.resume_from`."""


def derive_rlhf(rlhf: Rlhf, width: int | None) -> Rlhf:
    """The section with its learning rates, if the width of the model is known."""
    return dataclasses.replace(rlhf, optim=rlhf_optim(rlhf, width)) if width and not rlhf.base else rlhf


def rlhf_optim(rlhf: Rlhf, width: int) -> Optim:
    """The section's learning rates for a model of this width."""
    return derive_optim(lora_optim(rlhf.optim, rlhf.lora, LORA_LR), width, MUON_LR, ADAMW_LR)
