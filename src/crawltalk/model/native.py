"""What a layer computes beside its products of matrices, as native code (native.cpp) with its gradient: for float32
on processors with AVX2, and for bfloat16 on those that multiply it. Elsewhere `functions` computes the same.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from crawltalk.run.native import Unavailable, library

_SOURCE = Path(__file__).with_name("native.cpp")
_KINDS = {torch.float32: ("float", 8), torch.bfloat16: ("bf16", 16)}
"""What native.cpp calls a dtype, and the numbers in a register: widths must be multiples of them, and halves of heads;
or a head is one register.
"""
_NAMES = (
    "normalize",
    "normalize_backward",
    "gate",
    "gate_backward",
    "log_probabilities",
    "logit_gradients",
    "attention",
    "attention_backward",
)


class Texts(NamedTuple):
    """Where each position stands; all [B, T] int32."""

    places: Tensor
    """Within its text, that one included which it continues."""
    documents: Tensor
    parents: Tensor | None
    """As those of `train.batches.Batch`."""
    cos: Tensor
    sin: Tensor
    """The tables of all positions' angles, [context, E] fp32."""


class _Call(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("qkv", "cos", "sin", "places", "documents", "parents", "q_weight", "k_weight")
        ),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("batch", "length", "heads", "kv_heads", "size")),
    ]


def computes(x: Tensor, width: int) -> bool:
    """Whether there is native code for these numbers, of which so many belong together."""
    return (
        x.dtype in _KINDS
        and x.device.type == "cpu"
        and width % _KINDS[x.dtype][1] == 0
        and not torch.compiler.is_compiling()
        and _functions(x.dtype) is not None
    )


def attends(qkv: Tensor) -> bool:
    """Whether there is native code for attention with heads of this size, the last dimension."""
    size = qkv.shape[-1]
    one = qkv.dtype in _KINDS and size == _KINDS[qkv.dtype][1]
    return computes(qkv, size if one else size // 2)


@cache
def _functions(dtype: torch.dtype) -> dict[str, Callable[..., None]] | None:
    kind, _ = _KINDS[dtype]
    try:
        code = library(_SOURCE)
        pointers = {name: ctypes.c_void_p.in_dll(code, f"crawltalk_{kind}_{name}").value for name in _NAMES}
    except (Unavailable, ValueError):  # ValueError: the processor has none
        return None
    return {name: ctypes.CFUNCTYPE(None)(pointer) for name, pointer in pointers.items() if pointer}


def _run(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    functions = _functions(dtype)
    assert functions is not None
    functions[name](*(_pointer(one) if isinstance(one, Tensor | None) else one for one in arguments))


def _rows(x: Tensor, width: int) -> tuple[ctypes.c_int64, int]:
    return ctypes.c_int64(x.numel() // width), width


class NativeNormalize(torch.autograd.Function):
    """`functions.Normalize`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        x, width = x.contiguous(), x.shape[-1]
        y, scales = torch.empty_like(x), torch.empty(x.numel() // width)
        _run("normalize", x.dtype, x, *_rows(x, width), ctypes.c_float(eps), y, scales)
        ctx.save_for_backward(y, scales)
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        y, scales = ctx.saved_tensors
        d_x = torch.empty_like(y)
        _run("normalize_backward", y.dtype, y, scales, d_y.contiguous(), *_rows(y, y.shape[-1]), d_x)
        return d_x, None


class NativeGated(torch.autograd.Function):
    """`functions.Gated`."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate_up, width = gate_up.contiguous(), gate_up.shape[-1] // 2
        y = gate_up.new_empty((*gate_up.shape[:-1], width))
        _run("gate", gate_up.dtype, gate_up, *_rows(y, width), y)
        ctx.save_for_backward(gate_up)
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> Tensor:  # type: ignore[override]
        (gate_up,) = ctx.saved_tensors
        d_y, d_gate_up = d_y.contiguous(), torch.empty_like(gate_up)
        _run("gate_backward", gate_up.dtype, gate_up, d_y, *_rows(d_y, d_y.shape[-1]), d_gate_up)
        return d_gate_up


def log_probabilities(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """(the log-probability of each target, the logarithm of the sum of its row's exponentials), [N] fp32."""
    log_p, logsums = (torch.empty(len(logits_NV)) for _ in range(2))
    _run(
        "log_probabilities",
        logits_NV.dtype,
        logits_NV,
        *_rows(logits_NV, logits_NV.shape[1]),
        targets_N.contiguous(),
        log_p,
        logsums,
    )
    return log_p, logsums


def logit_gradients_(logits_NV: Tensor, targets_N: Tensor, logsums_N: Tensor, d_log_p_N: Tensor) -> None:
    """Turn logits into the gradient of a loss by them, given that by the log-probability of each target, fp32."""
    columns = (targets_N.contiguous(), logsums_N, d_log_p_N.contiguous())
    _run("logit_gradients", logits_NV.dtype, logits_NV, *_rows(logits_NV, logits_NV.shape[1]), *columns)


class PackedAttention(torch.autograd.Function):
    """[B, T, H x E] of queries, keys and values, [B, T, H + 2 K, E], and the weights of their norms, [E], if they have
    any: norm and rotary angles of queries and keys, scores, softmax and sums (`functions.causal_attention`).

    It reads them as they lie in memory, computes each text by itself, and keeps nothing for the backward pass but its
    input, its output and a number a query and head.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        q_weight: Tensor | None,
        k_weight: Tensor | None,
        heads: int,
        eps: float,
        texts: Texts,
    ) -> Tensor:
        qkv = qkv.contiguous()
        batch, length, _, size = qkv.shape
        y = qkv.new_empty((batch, length, heads * size))
        logsums = torch.empty((batch, heads, length))
        weights = [None if weight is None else weight.float() for weight in (q_weight, k_weight)]
        call = _call(qkv, weights, heads, eps, texts)
        _run("attention", qkv.dtype, ctypes.byref(call), y, logsums)
        ctx.save_for_backward(qkv, y, logsums, *weights)
        ctx.heads, ctx.eps, ctx.texts = heads, eps, texts
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        qkv, y, logsums, *weights = ctx.saved_tensors
        d_y, d_qkv = d_y.contiguous(), torch.empty_like(qkv)
        d_weights = [None if weight is None else torch.zeros_like(weight) for weight in weights]
        call = _call(qkv, weights, ctx.heads, ctx.eps, ctx.texts)
        _run("attention_backward", qkv.dtype, ctypes.byref(call), y, logsums, d_y, d_qkv, *d_weights)
        given = (None if d_weight is None else d_weight.to(qkv.dtype) for d_weight in d_weights)
        return d_qkv, *given, None, None, None


def _call(qkv: Tensor, weights: list[Tensor | None], heads: int, eps: float, texts: Texts) -> _Call:
    batch, length, all_heads, size = qkv.shape
    tensors = (qkv, texts.cos, texts.sin, texts.places, texts.documents, texts.parents, *weights)
    return _Call(*map(_pointer, tensors), eps, batch, length, heads, (all_heads - heads) // 2, size)


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())
