"""A resolved recipe as TOML."""

import dataclasses
from typing import Any

import tomli_w

from crawltalk.recipe.recipe import Recipe


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML with every value. TOML has no null, so a value that is None is left out."""
    return tomli_w.dumps(_plain(recipe))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = (field for field in dataclasses.fields(value) if not field.metadata.get("derived"))
        value = {field.name: getattr(value, field.name) for field in fields}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return value
