"""The whole recipe: one section a stage, and `machine`, which says where and how to compute and never enters
a fingerprint.

A stage receives its own section only. A field that is `None` is derived when the recipe is resolved and
spelled out in `runs/NAME/recipe.toml`. Each section stands in a file of its own, with its derived values
beside it.
"""

import dataclasses
from dataclasses import dataclass, field

from crawltalk.recipe import cost
from crawltalk.recipe.crawl import Crawl
from crawltalk.recipe.data import Data
from crawltalk.recipe.evals import Evals
from crawltalk.recipe.index import Index
from crawltalk.recipe.machine import Machine
from crawltalk.recipe.model import derive_model
from crawltalk.recipe.optim import derive_optim
from crawltalk.recipe.pretrain import Pretrain
from crawltalk.recipe.report import Report
from crawltalk.recipe.sft import Sft, derive_sft
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
    pretrain: Pretrain = field(default_factory=Pretrain)
    sft: Sft = field(default_factory=Sft)
    evals: Evals = field(default_factory=Evals)
    report: Report = field(default_factory=Report)


def derive(recipe: Recipe) -> Recipe:
    """Spell out every derived field but those of `machine`, which are looked up when a stage starts."""
    model = derive_model(recipe.pretrain.model)
    assert model.width is not None
    tokens = recipe.pretrain.tokens or 20 * cost.parameters(model, recipe.tokenizer.vocab_size)
    pretrain = dataclasses.replace(
        recipe.pretrain,
        model=model,
        optim=derive_optim(recipe.pretrain.optim, model.width, 0.02),
        tokens=tokens,
    )
    return dataclasses.replace(recipe, pretrain=pretrain, sft=derive_sft(recipe.sft, model.width))
