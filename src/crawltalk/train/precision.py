"""The dtype of matrix products: a probe chooses the faster one, and measures the machine's peak."""

import time

import torch

from crawltalk.core.errors import UserError
from crawltalk.recipe import Machine

CPU = torch.device("cpu")


def compute_dtype(machine: Machine) -> torch.dtype:
    """The recipe's dtype, or the faster of fp32 and bf16, by a probe of some milliseconds."""
    if machine.dtype is not None:
        if machine.dtype not in ("float32", "bfloat16"):
            raise UserError(f"machine.dtype is float32 or bfloat16, not {machine.dtype!r}")
        return getattr(torch, machine.dtype)
    if machine.device == "cuda":
        return torch.bfloat16
    seconds = {dtype: _time_product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return min(seconds, key=lambda dtype: seconds[dtype])


def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP a second that this machine reaches in one large product of matrices, on the threads that are set."""
    size = 8192 if device.type == "cuda" else 1536
    return 4 * size**3 / _time_product(dtype, size, device)


def _time_product(dtype: torch.dtype, size: int = 512, device: torch.device = CPU) -> float:
    """Seconds of a product of [2 x size, size] and [size, size]."""
    left, right = (torch.ones(rows, size, dtype=dtype, device=device) for rows in (2 * size, size))
    times = []
    for _ in range(9):
        began = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times)  # another program only adds to it
