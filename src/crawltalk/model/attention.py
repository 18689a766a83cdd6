"""Attention and what surrounds it, the norm and the rotary angles of queries and keys, as one call of native code
(attention.cpp) with its gradient: for bfloat16 on processors that multiply it. Elsewhere `functions.causal_attention`
computes the same.

It reads the product of queries, keys and values as it lies in memory, computes each text by itself, and keeps nothing
for the backward pass that the layer does not keep anyway, but for one number a query and head.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from crawltalk.run.native import Unavailable, library

_SOURCE = Path(__file__).with_name("attention.cpp")
_SIZE_MULTIPLE = 32
"""Head sizes must be multiples of it."""


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


def computes(qkv: Tensor, head_dim: int) -> bool:
    """Whether there is native code for these numbers."""
    return (
        qkv.dtype == torch.bfloat16
        and qkv.device.type == "cpu"
        and head_dim % _SIZE_MULTIPLE == 0
        and not torch.compiler.is_compiling()
        and _code() is not None
    )


@cache
def _code() -> ctypes.CDLL | None:
    try:
        code = library(_SOURCE)
    except Unavailable:
        return None
    return code if code.crawltalk_attention_supported() else None


class PackedAttention(torch.autograd.Function):
    """[B, T, H x E] of queries, keys and values, [B, T, H + 2 K, E], and the weights of their norms, [E], if they have
    any.
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
        code = _code()
        assert code is not None
        code.crawltalk_attention(ctypes.byref(call), _pointer(y), _pointer(logsums))
        ctx.save_for_backward(qkv, y, logsums, *weights)
        ctx.heads, ctx.eps, ctx.texts = heads, eps, texts
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        qkv, y, logsums, *weights = ctx.saved_tensors
        d_y, d_qkv = d_y.contiguous(), torch.empty_like(qkv)
        d_weights = [None if weight is None else torch.zeros_like(weight) for weight in weights]
        call = _call(qkv, weights, ctx.heads, ctx.eps, ctx.texts)
        code = _code()
        assert code is not None
        code.crawltalk_attention_backward(
            ctypes.byref(call), *map(_pointer, (y, logsums, d_y, d_qkv, *d_weights))
        )
        given = (None if d_weight is None else d_weight.to(qkv.dtype) for d_weight in d_weights)
        return d_qkv, *given, None, None, None


def _call(qkv: Tensor, weights: list[Tensor | None], heads: int, eps: float, texts: Texts) -> _Call:
    batch, length, all_heads, size = qkv.shape
    tensors = (qkv, texts.cos, texts.sin, texts.places, texts.documents, texts.parents, *weights)
    return _Call(*map(_pointer, tensors), eps, batch, length, heads, (all_heads - heads) // 2, size)


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())
