"""Which fields differ between two recipes, or two sections of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec


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
    """Which fields changed between two flat configs: `["pretrain.optim.muon_lr: 0.1 -> 0.2"]`."""
    return [
        f"{key}: {_show(old.get(key))} -> {_show(new.get(key))}"
        for key in [*new, *(k for k in old if k not in new)]
        if _plain(old.get(key)) != _plain(new.get(key))
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    return "absent" if value is None else msgspec.json.encode(value).decode()
