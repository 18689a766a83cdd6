"""Recipes in layers: defaults < preset < overlay files, left to right < dotted flags. Strict in every layer.

An unknown key, a wrong type or an unknown preset is a `BadRecipe` that names the key and the nearest valid
one.
"""

import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from crawltalk.core.errors import BadRecipe
from crawltalk.recipe.keys import SECTIONS, check_keys, did_you_mean, known_keys, type_of, way_out
from crawltalk.recipe.recipe import Recipe, derive
from crawltalk.recipe.stages import FurtherStage

PRESETS = Path(__file__).parents[1] / "presets"
NOT_INHERITED = ("resume_from", "base")
"""Fields that a repeated stage does not take over from its section: what it starts from."""

Section = TypeVar("Section")


def preset_names() -> list[str]:
    """Names of the built-in presets."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_recipe(
    source: str | Path, overlays: Sequence[str | Path] = (), flags: Mapping[str, str] | None = None
) -> Recipe:
    """Merge all layers into one resolved recipe.

    `source` is a preset's name or a TOML file; `flags` maps dotted keys to their text (`{"pretrain.optim.muon_lr":
    "0.01"}`).
    """
    path = Path(source)
    if path.suffix != ".toml":
        path = PRESETS / f"{source}.toml"
        if not path.exists():
            near = did_you_mean(str(source), preset_names())
            raise BadRecipe(f"no preset is called {str(source)!r}{near}; see: crawltalk presets")
    values: dict[str, Any] = {}
    for layer in (path, *map(Path, overlays)):
        values = _read_layer(layer, values)
    values = _merge(values, _parse_flags(flags or {}, values))
    values.setdefault("name", path.stem)
    further = _convert(values.pop("stages", {}), dict[str, FurtherStage], "stages")
    recipe = _convert(values, Recipe)
    stages = {name: _resolve(name, stage, values) for name, stage in further.items()}
    return derive(dataclasses.replace(recipe, stages=stages))


def _read_layer(path: Path, below: Mapping[str, Any]) -> dict[str, Any]:
    """A TOML file, and what it extends, over the layers below."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadRecipe(
            f"{path} does not exist; give a TOML file of yours, or a preset: {', '.join(preset_names())}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRecipe(f"{path} is not TOML: {error}") from None
    base = values.pop("extends", None)
    if base is not None:
        parent = PRESETS / f"{base}.toml" if base in preset_names() else path.parent / str(base)
        below = _read_layer(parent, below)
    merged = _merge(below, values)
    check_keys(values, known_keys(merged.get("stages", {})), str(path))
    return merged


def _parse_flags(flags: Mapping[str, str], below: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted flags as nested values."""
    texts: dict[str, Any] = {}
    for key, text in flags.items():
        texts = _merge(texts, _nest(key, text))
    keys = known_keys(_merge(below, texts).get("stages", {}))  # a flag may set a stage's kind
    values: dict[str, Any] = {}
    for key, text in flags.items():
        values = _merge(values, _nest(key, _parse_flag(key, text, keys)))
    return values


def _parse_flag(key: str, text: str, keys: Mapping[str, Any]) -> Any:
    hint = type_of(key, keys)
    if hint is None:
        raise BadRecipe(f"unknown flag --{key}{way_out(key, keys)}")
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if dataclasses.is_dataclass(hint) or typing.get_origin(hint) is dict:
        names = ", ".join(f"--{name}" for name in keys if name.rpartition(".")[0] == key)
        names = f"--{key}.NAME" if typing.get_origin(hint) is dict else names
        raise BadRecipe(f"--{key} is a section; set one of its values: {names or 'it has none'}")
    if str in kinds:
        return text
    if tuple[str, ...] in kinds and not text.startswith("["):
        return [part for part in text.split(",") if part]
    if typing.get_origin(hint) is tuple and not text.startswith("["):
        text = f"[{text}]"
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # the type check names the flag


def _resolve(name: str, stage: FurtherStage, values: Mapping[str, Any]) -> FurtherStage:
    """A further stage with its whole section: its own values over those of the section that it repeats."""
    if not re.fullmatch("[a-z][a-z0-9_-]*", name):
        raise BadRecipe(f"stages.{name}: a stage's name has lower-case letters, digits, - and _ only")
    inherited = {key: value for key, value in values.get(stage.kind, {}).items() if key not in NOT_INHERITED}
    config = _merge(inherited, stage.config or {})
    return dataclasses.replace(stage, config=_convert(config, SECTIONS[stage.kind], f"stages.{name}.config"))


def _convert(values: Any, kind: type[Section], prefix: str = "") -> Section:
    """Values as a dataclass. Raises BadRecipe that names the key of a wrong type."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        # "Expected `int`, got `str` - at `$.a.b`" -> "a.b: expected int, got str"
        what, _, where = str(error).partition(" - at `$")
        key = f"{prefix}{where.rstrip('`')}".lstrip(".").replace("[...]", "")
        raise BadRecipe(f"{key}: {what[0].lower()}{what[1:]}".replace("`", "")) from None


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value
