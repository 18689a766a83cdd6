"""Checkpoints: all that a training changes in one safetensors file, its step and dtype in the header. No pickle.

A folder of them holds `step-000100.safetensors`, ... of which the newest ones are kept. Frozen weights are not in
it: they are what they were when the training began.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.train.optimizers import Optimizer, trained_weights
from crawltalk.train.sharding import full_tensor, shard_like


def path_of(folder: str | Path, step: int) -> Path:
    """The file of the state after `step` steps."""
    return Path(folder) / f"step-{step:06d}.safetensors"


def list_all(folder: str | Path) -> list[tuple[int, Path]]:
    """(steps done, file), oldest first."""
    files = Path(folder).glob("step-*.safetensors")
    return sorted((int(path.stem.removeprefix("step-")), path) for path in files)


def keep_newest(folder: str | Path, count: int) -> None:
    """Remove all but the newest ones."""
    for _, path in list_all(folder)[:-count]:
        path.unlink()


def collect(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """All state by name, in full tensors. All ranks of a sharded training must call it."""
    tensors: dict[str, Tensor] = {
        f"model.{name}": full_tensor(weight.detach()) for name, weight in trained_weights(model).items()
    }
    for index, optimizer in enumerate(optimizers):
        for key, weight in enumerate(_weights_of(optimizer)):
            for name, value in optimizer.state.get(weight, {}).items():
                tensors[f"optimizer.{index}.{key}.{name}"] = full_tensor(value).clone()
    return tensors


def save(path: str | Path, tensors: dict[str, Tensor], step: int, dtype: str) -> None:
    """Write what `collect` returned after `step` steps, atomically. `dtype` is that of matrix products."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"step": str(step), "dtype": dtype})
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def read_header(path: str | Path) -> tuple[int, str]:
    """(steps done, dtype of matrix products). Raises MissingInput, or BadInput if that is no checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise MissingInput(f"{path} is not there; checkpoints that were kept are in RUN/rescued")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            return int(metadata["step"]), metadata["dtype"]
    except (SafetensorError, KeyError):
        raise BadInput(f"{path} is no checkpoint; give a file that a training left in RUN/rescued") from None


def load(path: str | Path, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Restore the state. Raises BadInput for a file of another model."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        weights = trained_weights(model)
        shapes = {name: file.get_slice(name).get_shape() for name in names if name.startswith("model.")}
        if shapes != {f"model.{name}": list(weight.shape) for name, weight in weights.items()}:
            raise BadInput(
                f"{path} is a checkpoint of another model; remove it, or give the right one as resume_from"
            )
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(shard_like(file.get_tensor(f"model.{name}"), weight))
        for index, optimizer in enumerate(optimizers):
            parameters = _weights_of(optimizer)
            for name in names:
                kind, _, rest = name.partition(".")
                if kind == "optimizer" and rest.startswith(f"{index}."):
                    _, key, field = rest.split(".", 2)
                    value, weight = file.get_tensor(name), parameters[int(key)]
                    if value.shape == weight.shape:
                        value = shard_like(value.to(weight.device), weight)
                    optimizer.state.setdefault(weight, {})[field] = value


def _weights_of(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
