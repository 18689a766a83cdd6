"""The whole recipe: one section per stage, and `machine`, which says where and how to compute and is never part
of a fingerprint.

A stage receives its own section only. `stages` holds the sections of stages that repeat a kind. A field that
is `None` is derived when the recipe is resolved and written to `runs/NAME/recipe.toml`. Each section has a
file of its own, which also derives its values.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from crawltalk.core.errors import BadRecipe
from crawltalk.recipe import cost, size
from crawltalk.recipe.crawl import Crawl
from crawltalk.recipe.data import Data
from crawltalk.recipe.dpo import Dpo, derive_dpo
from crawltalk.recipe.evals import Evals
from crawltalk.recipe.factuality import Factuality
from crawltalk.recipe.grpo import Grpo, derive_grpo
from crawltalk.recipe.index import Index
from crawltalk.recipe.machine import Machine
from crawltalk.recipe.model import derive_model
from crawltalk.recipe.optim import derive_optim
from crawltalk.recipe.pretrain import Pretrain
from crawltalk.recipe.redteam import Redteam
from crawltalk.recipe.report import Report
from crawltalk.recipe.reward import Reward, derive_reward
from crawltalk.recipe.rlhf import Rlhf, derive_rlhf
from crawltalk.recipe.sft import Sft, derive_sft
from crawltalk.recipe.stages import FurtherStage
from crawltalk.recipe.sweep import Sweep
from crawltalk.recipe.synthesize import Synthesize
from crawltalk.recipe.tokenizer import Tokenizer
from crawltalk.recipe.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The whole journey."""

    name: str = "custom"
    about: str = ""
    seed: int = 0
    machine: Machine = field(default_factory=Machine)
    crawl: Crawl = field(default_factory=Crawl)
    data: Data = field(default_factory=Data)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    tokens: Tokens = field(default_factory=Tokens)
    index: Index = field(default_factory=Index)
    synthesize: Synthesize = field(default_factory=Synthesize)
    sweep: Sweep = field(default_factory=Sweep)
    pretrain: Pretrain = field(default_factory=Pretrain)
    factuality: Factuality = field(default_factory=Factuality)
    sft: Sft = field(default_factory=Sft)
    dpo: Dpo = field(default_factory=Dpo)
    reward: Reward = field(default_factory=Reward)
    rlhf: Rlhf = field(default_factory=Rlhf)
    grpo: Grpo = field(default_factory=Grpo)
    evals: Evals = field(default_factory=Evals)
    redteam: Redteam = field(default_factory=Redteam)
    report: Report = field(default_factory=Report)
    stages: dict[str, FurtherStage] = field(default_factory=dict)
    """Name -> a stage in addition to the usual ones."""


def derive(recipe: Recipe) -> Recipe:
    """Fill in every derived field, except those of `machine` and those that follow from the corpus, which are
    filled in when a stage starts. Raises BadRecipe for values that contradict each other.
    """
    pretrain, vocab_size = recipe.pretrain, recipe.tokenizer.vocab_size
    if pretrain.model.depth is not None and vocab_size is not None:
        pretrain = derive_pretrain(pretrain, vocab_size)
    else:
        flop = pretrain.flop or size.training_flop(recipe.machine)
        pretrain = dataclasses.replace(pretrain, flop=flop)
        if recipe.tokens.train_bytes is None:
            tokens = dataclasses.replace(recipe.tokens, train_bytes=size.train_bytes(flop))
            recipe = dataclasses.replace(recipe, tokens=tokens)
    width = pretrain.model.width
    stages = {
        name: dataclasses.replace(stage, config=_derive_section(stage.config, width))
        for name, stage in recipe.stages.items()
    }
    return dataclasses.replace(
        recipe,
        pretrain=pretrain,
        sweep=_derive_sweep(recipe.sweep, pretrain),
        factuality=dataclasses.replace(recipe.factuality, base=recipe.sft.base),
        sft=derive_sft(recipe.sft, width),
        dpo=derive_dpo(recipe.dpo, width),
        reward=derive_reward(recipe.reward, width),
        rlhf=derive_rlhf(recipe.rlhf, width),
        grpo=derive_grpo(recipe.grpo, width),
        stages=stages,
    )


def derive_pretrain(pretrain: Pretrain, vocab_size: int) -> Pretrain:
    """The section with the model's shape, the learning rates and the number of tokens filled in; its depth is
    given.
    """
    model = derive_model(pretrain.model)
    assert model.width is not None
    affordable = int((pretrain.flop or 0) / cost.training_flops(model, vocab_size, 1))
    return dataclasses.replace(
        pretrain,
        model=model,
        optim=derive_optim(pretrain.optim, model.width, 0.02),
        tokens=pretrain.tokens or affordable or 20 * cost.parameters(model, vocab_size),
    )


def _derive_section(section: Any, width: int | None) -> Any:
    """The section of a stage that starts from a model of this width, None if that follows from the corpus."""
    if isinstance(section, Sft):
        return derive_sft(section, width)
    if isinstance(section, Reward):
        return derive_reward(section, width)
    if isinstance(section, Rlhf):
        return derive_rlhf(section, width)
    if isinstance(section, Dpo):
        return derive_dpo(section, width)
    return derive_grpo(section, width) if isinstance(section, Grpo) else section


def _derive_sweep(sweep: Sweep, pretrain: Pretrain) -> Sweep:
    """The section with sorted depths and the settings of the small models. Raises BadRecipe for one depth."""
    depths = tuple(sorted(set(sweep.depths)))
    if depths and (len(depths) < 2 or depths[0] < 1):
        raise BadRecipe(
            f"sweep.depths = {list(depths)}: fitting a line takes two models or more, of depth 1 or more; "
            "such as: --sweep.depths 1,2"
        )
    return Sweep(depths=depths, pretrain=pretrain if depths else None)
