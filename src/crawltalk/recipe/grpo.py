"""Reinforcement learning with verifiable rewards: `[grpo]`."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from crawltalk.recipe.lora import Lora, lora_optim
from crawltalk.recipe.optim import Optim, derive_optim

MUON_LR, ADAMW_LR, LORA_LR = 0.001, 0.0005, 0.0002
"""Peak learning rates, the first two at a width of 256."""


@dataclass(frozen=True, kw_only=True)
class Reinforce:
    """How a policy learns from rewards, whatever they reward."""

    steps: int = 100
    """Optimizer steps."""
    groups: int = 16
    """Problems in one step."""
    samples: int = 8
    """Replies to each of them."""
    max_tokens: int = 64
    """Of a reply; one that does not end is cut there."""
    advantage: Literal["dr_grpo", "grpo", "rloo", "reinforce"] = "dr_grpo"
    """What a reward is compared with (`posttraining/advantages.py`)."""
    loss: Literal["token", "sequence", "constant"] = "token"
    """What is averaged: all tokens alike (DAPO), the means of all replies alike (GRPO), or, so that no length is
    favoured, all tokens over the largest number that there could be (Dr. GRPO).
    """
    clip_low: float = 0.2
    clip_high: float = 0.28
    """The ratio of a token's new to its old probability counts between 1 - clip_low and 1 + clip_high."""
    kl: float = 0.0
    """What moving away from the model that it starts from costs, per token and nat."""
    updates: int = 1
    """Optimizer steps on the replies of one sampling; each takes its share of the problems."""
    rounds: int = 1
    """How often more problems are drawn, at most, until `groups` of them have replies of different rewards (DAPO's
    dynamic sampling).
    """
    min_entropy: float = 0.0
    """The training stops with a checkpoint when the mean entropy of a token, in nats, falls below this."""
    max_kl: float | None = None
    """The training stops with a checkpoint when the divergence from the model that it started from exceeds this, in
    nats a token. It takes a `kl` above 0.
    """


@dataclass(frozen=True, kw_only=True)
class Grpo(Reinforce):
    """The last assistant is reinforced on problems whose replies can be verified (DeepSeek-R1; Shao et al. 2024)."""

    tasks: dict[str, float] = field(default_factory=dict)
    """Task -> its share of the problems, in any unit. Without any, a run has no such stage. `factuality` asks about
    pages that the base model was asked about: a right reply is worth 1, one that declines 0, a wrong one -1.
    """
    difficulty: int = 1
    """Of the tasks' problems."""
    precision: Literal["float32", "bfloat16", "int8"] | None = None
    """In which replies are sampled; None: bfloat16, if that changes the log-probabilities of the model's own text by
    0.01 at most in the mean, else float32.
    """
    tools: tuple[str, ...] = ()
    """What the assistant may call in its replies, as `crawltalk chat --tools`: calculator, python, python:monty or
    python:cpython. Their definitions stand in each prompt, and of a reply only what the assistant said is rewarded.
    """
    base: str = ""
    """A model to start from instead of the run's assistant, as `sft.base`."""
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    eval_every: int = 20
    """Steps between two evaluations on problems that are never trained on."""
    problems: int = 100
    """The number of those problems of each task."""
    save_every: int = 20
    """Steps between two checkpoints to resume from."""
    resume_from: str = ""
    """A checkpoint to resume from, as `pretrain.resume_from`."""


def derive_grpo(grpo: Grpo, width: int | None) -> Grpo:
    """The section with its learning rates, if the width of the model is known."""
    return dataclasses.replace(grpo, optim=grpo_optim(grpo, width)) if width and not grpo.base else grpo


def grpo_optim(grpo: Grpo, width: int) -> Optim:
    """The section's learning rates for a model of this width."""
    return derive_optim(lora_optim(grpo.optim, grpo.lora, LORA_LR), width, MUON_LR, ADAMW_LR)
