"""Recipes: all settings, the layers that they are read from, and what a recipe costs. Imports quickly."""

from crawltalk.recipe.crawl import Crawl
from crawltalk.recipe.data import Data, Quality
from crawltalk.recipe.dpo import Dpo
from crawltalk.recipe.evals import Evals
from crawltalk.recipe.factuality import Factuality
from crawltalk.recipe.grpo import Grpo, ProblemSource, Reinforce
from crawltalk.recipe.index import Index
from crawltalk.recipe.lora import Lora
from crawltalk.recipe.machine import Machine
from crawltalk.recipe.model import Family, Model
from crawltalk.recipe.optim import Optim
from crawltalk.recipe.pretrain import Pretrain
from crawltalk.recipe.recipe import Recipe
from crawltalk.recipe.redteam import Redteam
from crawltalk.recipe.report import Report
from crawltalk.recipe.reward import Reward
from crawltalk.recipe.rlhf import Rlhf
from crawltalk.recipe.sft import Sft, SftFile
from crawltalk.recipe.stages import FurtherStage
from crawltalk.recipe.sweep import Sweep
from crawltalk.recipe.synthesize import Synthesize
from crawltalk.recipe.tokenizer import Tokenizer
from crawltalk.recipe.tokens import Tokens

__all__ = [
    "Crawl",
    "Data",
    "Dpo",
    "Evals",
    "Factuality",
    "Family",
    "FurtherStage",
    "Grpo",
    "Index",
    "Lora",
    "Machine",
    "Model",
    "Optim",
    "Pretrain",
    "ProblemSource",
    "Quality",
    "Recipe",
    "Redteam",
    "Reinforce",
    "Report",
    "Reward",
    "Rlhf",
    "Sft",
    "SftFile",
    "Sweep",
    "Synthesize",
    "Tokenizer",
    "Tokens",
]
