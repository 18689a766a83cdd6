"""Recipes: every knob there is, the layers in which they are given, and what a recipe costs. Neither torch nor numba."""

from crawltalk.recipe.recipe import (
    Crawl,
    Data,
    Evals,
    Family,
    Index,
    Machine,
    Model,
    Optim,
    Pretrain,
    Quality,
    Recipe,
    Report,
    Sft,
    Tokenizer,
    Tokens,
)

__all__ = [
    "Crawl",
    "Data",
    "Evals",
    "Family",
    "Index",
    "Machine",
    "Model",
    "Optim",
    "Pretrain",
    "Quality",
    "Recipe",
    "Report",
    "Sft",
    "Tokenizer",
    "Tokens",
]
