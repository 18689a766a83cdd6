"""Reinforcement learning with verifiable rewards: `[grpo]`."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

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
class ProblemSource:
    """Problems of a file, of a generator of reasoning-gym, or of an environment: one of the three."""

    path: str = ""
    """JSONL, JSON or Parquet, compressed or not: rows as in GSM8K, MATH or verl, or any with a question and an answer.
    """
    prompt: str | None = None
    """The column with the question, `a.b` for a nested one; recognised if absent."""
    answer: str | None = None
    """The column with what the verifier compares a reply with, in the same way."""
    test: str = ""
    """A file of the problems that are never trained on, such as GSM8K's test.jsonl; if absent, a share of `path`."""
    generator: str = ""
    """A generator of reasoning-gym, such as basic_arithmetic."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the generator, such as `max_digits = 2`."""
    environment: str = ""
    """`my_package.module:name`: a taskset of `verifiers`, or a function without arguments that makes one."""
    size: int = 1000
    """Problems that the generator makes, or that are taken from the environment, at most."""
    verifier: str = ""
    """As `grpo.verifier`, for these problems; in it `own` is the generator's or the environment's own verifier, which
    is the default for them.
    """
    weight: float = 1.0
    """Its share of the problems, in the unit of `grpo.tasks`."""


@dataclass(frozen=True, kw_only=True)
class Grpo(Reinforce):
    """The last assistant is reinforced on problems whose replies can be verified (DeepSeek-R1; Shao et al. 2024)."""

    tasks: dict[str, float] = field(default_factory=dict)
    """Task -> its share of the problems, in any unit. Without any, and without `data`, a run has no such stage.
    `factuality` asks about pages that the base model was asked about: a right reply is worth 1, one that declines 0, a
    wrong one -1. With `base` and `data` there are none, as in fine-tuning.
    """
    difficulty: int = 1
    """Of the tasks' problems."""
    data: dict[str, ProblemSource] = field(default_factory=dict)
    """Further problems, by names of yours."""
    verifier: str = ""
    """What judges replies to problems of files: one of `crawltalk.rewards.VERIFIERS`, `my_package.module:name`, or a
    sum such as `number + 0.2 * think`. If absent: number where each answer is one number, else math.
    """
    validation: float = 0.1
    """Share of each source in `data` that is never trained on; at most `problems` of it."""
    ignore_audit: bool = False
    """Train although a verifier fails its audit on the problems of `data`: refuses their answers, or pays for others.
    """
    system: str = ""
    """What stands before each problem as the system's message."""
    precision: Literal["float32", "bfloat16", "int8"] | None = None
    """In which replies are sampled; None: bfloat16, if that changes the log-probabilities of the model's own text by
    0.01 at most in the mean, else float32.
    """
    tools: tuple[str, ...] = ()
    """What the assistant may call in its replies, as `crawltalk chat --tools`: calculator, python, python:monty,
    python:cpython, search or fetch. Their definitions stand in each prompt, and of a reply only what the assistant said
    is rewarded.
    """
    documents: str = ""
    """A run whose documents `search` looks through, such as runs/small."""
    allow: tuple[str, ...] = ()
    """What `fetch` may get: beginnings of addresses. Each page is asked for once in a training."""
    base: str = ""
    """A model to start from instead of the run's assistant, as `sft.base`."""
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    eval_every: int = 20
    """Steps between two evaluations on problems that are never trained on."""
    problems: int = 100
    """The number of those problems of each task or source, at most."""
    save_every: int = 20
    """Steps between two checkpoints to resume from."""
    resume_from: str = ""
    """A checkpoint to resume from, as `pretrain.resume_from`."""


def derive_grpo(grpo: Grpo, width: int | None) -> Grpo:
    """The section: beside a base and data without tasks, and with its learning rates if the model's width is known."""
    if grpo.base and grpo.data:
        grpo = dataclasses.replace(grpo, tasks={})
    return dataclasses.replace(grpo, optim=grpo_optim(grpo, width)) if width and not grpo.base else grpo


def grpo_optim(grpo: Grpo, width: int) -> Optim:
    """The section's learning rates for a model of this width."""
    return derive_optim(lora_optim(grpo.optim, grpo.lora, LORA_LR), width, MUON_LR, ADAMW_LR)
