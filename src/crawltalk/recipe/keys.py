"""The keys of a recipe: their dotted names and types, and the error for a name that is none of them."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crawltalk.core.errors import BadRecipe
from crawltalk.recipe.recipe import Recipe
from crawltalk.recipe.renamed import RENAMED
from crawltalk.recipe.stages import FurtherStage


def _keys(section: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All dotted keys of a dataclass, with their types; a section's own key comes before its fields."""
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        if not field.metadata.get("derived"):
            hint = hints[field.name]
            yield prefix + field.name, hint
            if dataclasses.is_dataclass(hint):
                yield from _keys(typing.cast(type, hint), f"{prefix}{field.name}.")


KEYS: dict[str, Any] = dict(_keys(Recipe))
"""Dotted key -> type, without those of further stages."""

SECTIONS: dict[str, Any] = {
    name: hint
    for name, hint in typing.get_type_hints(Recipe).items()
    if dataclasses.is_dataclass(hint) and name != "machine"
}
"""Section of a stage -> its dataclass. These are the kinds that `[stages.NAME]` may have."""


def known_keys(stages: Any) -> dict[str, Any]:
    """Dotted key -> type, for a recipe whose table `stages` is this. Raises BadRecipe for an unknown kind."""
    keys = dict(KEYS)
    for name, table in stages.items() if isinstance(stages, dict) else ():
        prefix, kind = f"stages.{name}", table.get("kind") if isinstance(table, dict) else None
        if kind is None:
            near = did_you_mean(name, [other for other in stages if other != name])
            raise BadRecipe(f"{prefix} has no kind{near}; set the kind that it repeats: --{prefix}.kind sft")
        if not isinstance(kind, str) or kind not in SECTIONS:
            raise BadRecipe(f"{prefix}.kind: no stage is called {kind!r}{did_you_mean(str(kind), SECTIONS)}")
        if not isinstance(table.get("config", {}), dict):
            raise BadRecipe(
                f"{prefix}.config is a section: give it values, such as --{prefix}.config.epochs 1"
            )
        keys[prefix] = FurtherStage
        keys |= {f"{prefix}.{key}": hint for key, hint in _keys(FurtherStage)}
        keys[f"{prefix}.config"] = SECTIONS[kind]
        keys |= _keys(SECTIONS[kind], f"{prefix}.config.")
    return keys


def type_of(key: str, keys: Mapping[str, Any]) -> Any:
    """The type of a dotted key, None if there is no such key. A table with free names accepts any key, and has
    values or sections.
    """
    if key in keys:
        return keys[key]
    above, _, name = key.rpartition(".")
    table = type_of(above, keys) if above else None
    if dataclasses.is_dataclass(table) and above not in keys:
        return typing.get_type_hints(table).get(name)
    return typing.get_args(table)[1] if typing.get_origin(table) is dict else None


def check_keys(values: Mapping[str, Any], keys: Mapping[str, Any], where: str) -> None:
    """Raise BadRecipe for the first key of nested `values` that is not among `keys`; `where` names the file."""

    def walk(table: Mapping[str, Any], prefix: str) -> None:
        for key, value in table.items():
            path = prefix + key
            if type_of(path, keys) is None:
                raise BadRecipe(f"{where}: unknown key {path!r}{way_out(path, keys)}")
            if isinstance(value, dict):
                walk(value, path + ".")

    walk(values, "")


def way_out(key: str, keys: Mapping[str, Any]) -> str:
    """What to write instead of an unknown key: its new name if it was renamed, else the nearest name."""
    new = _new_name(key, keys)
    if new:
        return f"; its name is now {new!r}"
    return f"{did_you_mean(key, keys)}; all keys: crawltalk presets small"


def _new_name(key: str, keys: Mapping[str, Any]) -> str | None:
    """The key with its longest renamed prefix replaced, None if no prefix of it was renamed."""
    parts = key.split(".")
    for count in range(len(parts), 0, -1):
        new = RENAMED.get(".".join(parts[:count]))
        if new:
            return ".".join([new, *parts[count:]])
    if parts[0] == "stages" and parts[2:3] == ["config"]:  # as in the section that it repeats
        prefix = ".".join(parts[:3])
        for kind in SECTIONS:
            new = _new_name(".".join([kind, *parts[3:]]), keys)
            if new and type_of(prefix + new.removeprefix(kind), keys):
                return prefix + new.removeprefix(kind)
    return None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'pretrain.optim.muon_lr'?`, or nothing if no name is near."""
    names = list(names)
    last = name.rsplit(".", 1)[-1]
    # right name, wrong section
    same = [full for full in names if "." in full and full.rsplit(".", 1)[-1] == last]
    near = difflib.get_close_matches(name, same or names, 1, 0.0 if same else 0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
