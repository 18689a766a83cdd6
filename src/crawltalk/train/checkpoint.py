"""Checkpoints: all state of a training run in one safetensors file, its step and dtype in the header. No pickle.

A folder of them holds `step-000100.safetensors`, ... of which the newest ones are kept.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from crawltalk.core.errors import BadInput


def path_of(folder: Path, step: int) -> Path:
    """The file of the state after `step` steps."""
    return folder / f"step-{step:06d}.safetensors"


def all_in(folder: Path) -> list[tuple[int, Path]]:
    """(steps done, file), oldest first."""
    files = folder.glob("step-*.safetensors")
    return sorted((int(path.stem.removeprefix("step-")), path) for path in files)


def keep_newest(folder: Path, count: int) -> None:
    """Remove all but the newest ones."""
    for _, path in all_in(folder)[:-count]:
        path.unlink()


def save(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], step: int, dtype: str) -> None:
    """Write the state after `step` steps, atomically. `dtype` is what matrix products are computed in."""
    tensors: dict[str, Tensor] = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    for index, optimizer in enumerate(optimizers):
        for key, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{index}.{key}.{name}"] = torch.as_tensor(value).clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"step": str(step), "dtype": dtype})
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> tuple[int, str]:
    """Put the state back; (steps done, dtype of matrix products). Raises BadInput for a file of another model."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        weights = dict(model.named_parameters())
        shapes = {name: file.get_slice(name).get_shape() for name in names if name.startswith("model.")}
        if shapes != {f"model.{name}": list(weight.shape) for name, weight in weights.items()}:
            raise BadInput(f"{path} is a checkpoint of another model; remove it and run again")
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(file.get_tensor(f"model.{name}"))
        for index, optimizer in enumerate(optimizers):
            state: dict[int, dict[str, Any]] = {}
            for name in names:
                kind, _, rest = name.partition(".")
                if kind == "optimizer" and rest.startswith(f"{index}."):
                    _, key, field = rest.split(".", 2)
                    state.setdefault(int(key), {})[field] = file.get_tensor(name)
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        header = file.metadata() or {}
        return int(header["step"]), header["dtype"]
