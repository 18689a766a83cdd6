"""Fully sharded training (FSDP2 in torch; Zhao et al. 2023): each rank keeps its part of weights, gradients
and optimizer state.

Layers are gathered one at a time, when they compute. All other code sees DTensors; `full_tensor` and
`shard_like` convert between them and plain tensors.
"""

import copy
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from crawltalk.model.transformer import Transformer
from crawltalk.train.ranks import Ranks

if TYPE_CHECKING:  # it takes a second to import, and most trainings shard nothing
    from torch.distributed.tensor import DTensor


def shard_model(model: Transformer, ranks: Ranks, device: torch.device, dtype: torch.dtype) -> Transformer:
    """A copy of the model whose weights are sharded over the ranks; it computes in `dtype`, gradients are
    summed in fp32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    copied = copy.deepcopy(model)
    copied.rope_cos, copied.rope_sin = copied.rope_cos.to(device, dtype), copied.rope_sin.to(device, dtype)
    mesh = init_device_mesh(device.type, (ranks.world_size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for module in (*copied.blocks, copied):
        unit = fully_shard(module, mesh=mesh, mp_policy=policy)
        unit.set_gradient_divide_factor(1.0)  # gradients are summed, as in the loop
        unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    register_fsdp_forward_method(copied, "compute")  # whatever the objective does within it
    return copied


def gather_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Copy the trained weights of a sharded model into a whole one. All ranks must call it."""
    with torch.no_grad():
        for weight, part in zip(target.parameters(), source.parameters(), strict=True):
            if weight.requires_grad:
                weight.copy_(full_tensor(part))


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is a part of a sharded one, which alone can be asked for the whole."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor; any other tensor as it is. All ranks must call it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """This rank's shard of a tensor that is equal on all ranks, sharded as `other` is."""
    if not is_sharded(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)
