"""The states of many short texts that continue one text: its keys and values are computed once. Native code
(branches.cpp) for the plain shapes of Qwen3's and Llama's families; else, and without a compiler, the model itself,
with a copy of the keys and values for each row.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from crawltalk.model.cache import BLOCK_SIZE, KVCache, blocks_for
from crawltalk.model.transformer import Block, RMSNorm, SwiGLU, Transformer
from crawltalk.run.native import Unavailable, library

_SOURCE = Path(__file__).with_suffix(".cpp")
_LANES, _STRIP, _LONGEST_HEAD = 16, 32, 256
"""Head sizes and widths are multiples of the first, what matrices make of the second."""


class _Layer(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("qkv", "out", "gate_up", "down", "q_norm", "k_norm", "keys", "values")
    ]


class _Call(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.POINTER(_Layer)),
        *((name, ctypes.c_void_p) for name in ("x", "cos", "sin", "y")),
        ("eps", ctypes.c_float),
        *(
            (name, ctypes.c_int32)
            for name in ("count", "batch", "length", "common", "stride", "width", "heads", "kv_heads", "size")
        ),
        *((name, ctypes.c_int32) for name in ("inner", "last", "threads")),
    ]


@cache
def _code() -> ctypes.CDLL | None:
    try:
        return library(_SOURCE)
    except Unavailable:
        return None


def computes(model: Transformer) -> bool:
    """Whether there is native code for a model on this machine."""
    shape, weight = model.shape, model.embedding.weight
    sizes = (shape.width, (shape.heads + 2 * shape.kv_heads) * shape.head_dim, 2 * shape.mlp)
    linears = [module for module in model.blocks.modules() if isinstance(module, nn.Linear)]
    return (
        shape.family in ("qwen3", "llama")
        and all(type(linear) is nn.Linear and linear.bias is None for linear in linears)
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and shape.head_dim % _LANES == 0
        and shape.head_dim <= _LONGEST_HEAD
        and shape.mlp % _LANES == 0
        and all(size % _STRIP == 0 for size in sizes)
        and _code() is not None
    )


class Branches:
    """The text of `tokens`, [T], and rows that continue it from some position on. Without gradients."""

    def __init__(self, model: Transformer, tokens: Tensor) -> None:
        self.model, self.tokens = model, tokens
        self._cache = KVCache(model.shape, blocks_for(len(tokens)), device=tokens.device)
        self._cache.select(torch.arange(blocks_for(len(tokens)))[None], torch.tensor([0]))
        self.text = model.states(tokens[None], self._cache)[0]
        """The states of the text itself, [T, D]."""
        self._layers = self._packed() if computes(model) else None

    def states(self, tokens_BT: Tensor, start: int, last: int) -> Tensor:
        """The final states of the last positions of rows, [B, last, D], whose tokens stand from position `start` on."""
        return (
            self._copied(tokens_BT, start, last)
            if self._layers is None
            else self._native(tokens_BT, start, last)
        )

    def _copied(self, tokens_BT: Tensor, start: int, last: int) -> Tensor:
        """By the model, with copies of the last block that rows share only in part."""
        rows, whole = len(tokens_BT), start // BLOCK_SIZE
        own = blocks_for(start + tokens_BT.shape[1]) - whole
        pool = KVCache(self.model.shape, whole + rows * own + 1)
        pool.keys[:, : whole + 1], pool.values[:, : whole + 1] = (
            x[:, : whole + 1] for x in (self._cache.keys, self._cache.values)
        )
        tables = whole + 1 + torch.arange(rows)[:, None] * own + torch.arange(own)
        pool.keys[:, tables[:, 0]] = pool.keys[:, whole : whole + 1]
        pool.values[:, tables[:, 0]] = pool.values[:, whole : whole + 1]
        pool.select(torch.cat((torch.arange(whole).expand(rows, -1), tables), 1), torch.full((rows,), start))
        return self.model.states(tokens_BT, pool)[:, -last:]

    def _native(self, tokens_BT: Tensor, start: int, last: int) -> Tensor:
        model, shape, code = self.model, self.model.shape, _code()
        assert code is not None and self._layers is not None
        batch, length = tokens_BT.shape
        x = model.embedding(tokens_BT)
        y = x.new_empty((batch, last, shape.width))
        angles = [table[start : start + length] for table in (model.rope_cos, model.rope_sin)]
        layers = (_Layer * shape.layers)(*(_Layer(*map(_pointer, layer)) for layer in self._layers))
        call = _Call(
            layers, *map(_pointer, (x, *angles, y)), shape.norm_eps, shape.layers, batch, length, start,
            blocks_for(len(self.tokens)) * BLOCK_SIZE, shape.width, shape.heads, shape.kv_heads, shape.head_dim,
            shape.mlp, last, torch.get_num_threads(),
        )  # fmt: skip
        code.crawltalk_branches(ctypes.byref(call))
        return model.norm(y)

    def _packed(self) -> list[tuple[Tensor | None, ...]]:
        """What `_Layer` points to."""
        layers: list[tuple[Tensor | None, ...]] = []
        for index, block in enumerate(self.model.blocks):
            assert isinstance(block, Block) and isinstance(block.mlp, SwiGLU)
            attention, mlp = block.attention, block.mlp
            matrices = (
                _with_norm(attention.qkv, block.attention_norm),
                attention.out.weight,
                _with_norm(mlp.gate_up, block.mlp_norm),
                mlp.down.weight,
            )
            kept = (x[index].transpose(0, 1).flatten(1, 2) for x in (self._cache.keys, self._cache.values))
            layers.append((*map(_strips, matrices), attention.q_norm, attention.k_norm, *kept))
        return layers


def _with_norm(linear: nn.Linear, norm: nn.Module) -> Tensor:
    assert isinstance(norm, RMSNorm)
    return linear.weight * norm.weight


def _strips(weight: Tensor) -> Tensor:
    """[out, in] as [out / 32, in, 32]."""
    return weight.T.unflatten(1, (-1, _STRIP)).transpose(0, 1).contiguous()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
