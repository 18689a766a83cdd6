"""The reward model: `[reward]`."""

import dataclasses
from dataclasses import dataclass, field

from crawltalk.recipe.lora import Lora, lora_optim
from crawltalk.recipe.optim import Optim, derive_optim

MUON_LR, ADAMW_LR, LORA_LR = 0.002, 0.0005, 0.0003
"""Peak learning rates, the first two at a width of 256."""


@dataclass(frozen=True, kw_only=True)
class Reward:
    """The last assistant becomes a model that scores replies as people or a judge prefer them (Ouyang et al. 2022)."""

    data: tuple[str, ...] = ()
    """Files of preferences. Without any, a run has no such stage."""
    base: str = ""
    """A model to start from instead of the run's assistant, as `sft.base`."""
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    centering: float = 0.0
    """How much scores that are not around 0 cost (Eisenstein et al. 2023), such as 0.01."""
    held_out: float = 0.1
    """Share of the prompts (where there are fewer than 20: of the pairs) that are kept out, to measure on."""
    label_noise: float | None = None
    """The share of the preferences that is known to be wrong. Estimated from pairs that were judged twice, if there
    are enough of them, if absent.
    """
    epochs: float = 1.0
    """Passes over the pairs: after the first one a reward model learns them by heart (Ouyang et al. 2022, C.2)."""
    batch_pairs: int = 32
    """Pairs in one optimizer step."""
    save_every: int = 50
    """Steps between two checkpoints to resume from."""
    resume_from: str = ""
    """A checkpoint to resume from, as `pretrain.resume_from`."""


def derive_reward(reward: Reward, width: int | None) -> Reward:
    """The section with its learning rates, if the width of the model is known."""
    return (
        dataclasses.replace(reward, optim=reward_optim(reward, width))
        if width and not reward.base
        else reward
    )


def reward_optim(reward: Reward, width: int) -> Optim:
    """The section's learning rates for a model of this width."""
    return derive_optim(lora_optim(reward.optim, reward.lora, LORA_LR), width, MUON_LR, ADAMW_LR)
