"""Runs of the toy stages."""

import dataclasses
from pathlib import Path
from typing import Any

from crawltalk.recipe import Recipe
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.execute import build
from crawltalk.run.folder import RunFolder
from crawltalk.run.stage import Stage

NAMES = ["crawl", "data"]


def recipe_with(articles: int = 3, extractor: str = "crawltalk", seed: int = 0) -> Recipe:
    recipe = load_recipe("nano", flags={"crawl.articles": str(articles), "seed": str(seed)})
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, extractor=extractor))


def build_toy(path: Path, toy: tuple[Stage, ...], recipe: Recipe) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    build(RunFolder(path), toy, NAMES, recipe, events.append)
    return events
