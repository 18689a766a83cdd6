"""Recipes in layers: defaults < preset < overlay files, left to right < dotted flags. Strict in every layer.

An unknown key, a wrong type or an unknown preset is a `BadRecipe` that names the key and the nearest valid
one.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import BadRecipe
from crawltalk.recipe.recipe import Recipe, derive

PRESETS = Path(__file__).parents[1] / "presets"


def preset_names() -> list[str]:
    """Names of the built-in presets."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_recipe(
    source: str | Path, overlays: Sequence[Path] = (), flags: Mapping[str, str] | None = None
) -> Recipe:
    """Merge all layers into one resolved recipe.

    `source` is a preset's name or a TOML file; `flags` maps dotted keys to their text (`{"pretrain.optim.lr":
    "0.01"}`).
    """
    path = Path(source)
    if path.suffix != ".toml":
        path = PRESETS / f"{source}.toml"
        if not path.exists():
            raise BadRecipe(
                f"no preset is called {source!r}{_did_you_mean(str(source), preset_names())}; see: crawltalk presets"
            )
    values = _read_layer(path)
    for overlay in overlays:
        values = _merge(values, _read_layer(overlay))
    for key, text in (flags or {}).items():
        values = _merge(values, _nest(key, _parse_flag(key, text)))
    values.setdefault("name", path.stem)
    try:
        recipe = msgspec.convert(values, Recipe)
    except msgspec.ValidationError as error:
        raise BadRecipe(_explain(str(error))) from None
    return derive(recipe)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dataclass or dict -> {dotted key: value}."""
    values = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Which fields changed between two flat configs: `["pretrain.optim.lr: 0.1 -> 0.2"]`."""
    return [
        f"{key}: {_show(old.get(key))} -> {_show(new.get(key))}"
        for key in [*new, *(k for k in old if k not in new)]
        if _plain(old.get(key)) != _plain(new.get(key))
    ]


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML, every value spelled out; a value that stays absent is a comment."""
    lines: list[str] = []

    def table(values: Mapping[str, Any], path: str) -> None:
        if path:
            lines.append(f"\n[{path}]")
        for key, value in values.items():
            if not isinstance(value, dict):
                lines.append(f"# {key}: absent" if value is None else f"{key} = {_show(value)}")
        for key, value in values.items():
            if isinstance(value, dict):
                table(value, f"{path}.{key}" if path else key)

    table(dataclasses.asdict(recipe), "")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_show(item) for item in value) + "]"
    if isinstance(value, str):
        # else JSON's string escapes are TOML's
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    return repr(value)


def _read_layer(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadRecipe(
            f"{path} is not there; overlays are TOML files such as my.toml, presets: {preset_names()}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRecipe(f"{path} is not TOML: {error}") from None
    base = values.pop("extends", None)
    _check_keys(values, path.name)
    if base is None:
        return values
    parent = PRESETS / f"{base}.toml" if base in preset_names() else path.parent / str(base)
    return _merge(_read_layer(parent), values)


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


def _keys(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All dotted keys below a dataclass, with their types; a section's own key comes before its fields."""
    for name, hint in typing.get_type_hints(kind).items():
        yield prefix + name, hint
        if dataclasses.is_dataclass(hint):
            yield from _keys(typing.cast(type, hint), f"{prefix}{name}.")


_TYPES = dict(_keys(Recipe))


def _type_of(path: str) -> Any:
    """The type of a dotted key, None if there is no such key; a table such as `sft.tasks` takes any key."""
    table = _TYPES.get(path.rpartition(".")[0])
    return typing.get_args(table)[1] if typing.get_origin(table) is dict else _TYPES.get(path)


def _check_keys(values: Mapping[str, Any], where: str) -> None:
    def walk(table: Mapping[str, Any], prefix: str) -> None:
        for key, value in table.items():
            path = prefix + key
            if _type_of(path) is None:
                raise BadRecipe(
                    f"{where}: unknown key {path!r}{_did_you_mean(path, _TYPES)}; all keys: crawltalk presets small"
                )
            if isinstance(value, dict):
                walk(value, path + ".")

    walk(values, "")


def _parse_flag(key: str, text: str) -> Any:
    hint = _type_of(key)
    if hint is None:
        raise BadRecipe(
            f"unknown flag --{key}{_did_you_mean(key, _TYPES)}; all keys: crawltalk presets small"
        )
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if dataclasses.is_dataclass(hint):
        names = ", ".join(f"--{key}.{field.name}" for field in dataclasses.fields(hint))
        raise BadRecipe(f"--{key} is a section; set one of its values: {names or 'it has none'}")
    if str in kinds:
        return text
    if hint == tuple[str, ...] and not text.startswith("["):
        return [part for part in text.split(",") if part]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # the type check names the flag


def _did_you_mean(name: str, names: typing.Iterable[str]) -> str:
    names = list(names)
    last = name.rsplit(".", 1)[-1]
    # right name, wrong section
    same = [full for full in names if "." in full and full.rsplit(".", 1)[-1] == last]
    near = difflib.get_close_matches(name, same or names, 1, 0.0 if same else 0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _explain(error: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.a.b`" -> "a.b: expected int, got str"."""
    what, _, where = error.partition(" - at `$")
    return f"{where.rstrip('`').lstrip('.')}: {what[0].lower()}{what[1:]}".replace("`", "")
