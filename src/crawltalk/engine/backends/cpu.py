"""The model as one call of native code (native.cpp), which is compiled for this machine when it is first
needed.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from crawltalk.engine.backends import (
    MAX_NUM_SEQS,
    Batch,
    Continuation,
    Continued,
    empty_block_tables,
    num_cache_blocks,
)
from crawltalk.engine.sampling import Sampling
from crawltalk.model.cache import BLOCK_SIZE
from crawltalk.model.lora import merged_weight
from crawltalk.model.transformer import Transformer, rope_tables
from crawltalk.run import native
from crawltalk.run.native import Unavailable

Precision = Literal["float32", "bfloat16", "int8"]
_KINDS: dict[str, int] = {"float32": 0, "bfloat16": 1, "int8": 2}
_SIZE_MULTIPLE = 16
"""Widths, head sizes and MLP sizes must be multiples of it."""
_GROUP = 32
"""Weights of int8 that share a scale; the columns of every matrix are padded to a multiple of it."""
_PROCESSOR_CACHE, _FEW = 12 << 20, 16
"""Bytes of a processor's caches that decoding may fill, and the rows that it takes then at least."""
_SOURCE = Path(__file__).with_name("native.cpp")


class _Config(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in ("kind", "layers", "width", "heads", "kv_heads", "head_dim", "mlp", "vocab")
        ),
        *(
            (name, ctypes.c_int32)
            for name in ("table_width", "blocks", "threads", "layer_norm", "gated", "rotary")
        ),
        ("eps", ctypes.c_float),
    ]


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("outputs", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("data", "scales", "bias")),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("norm1", "norm1_bias", "norm2", "norm2_bias", "q_norm", "k_norm")
        ),
        *((name, _Matrix) for name in ("qkv", "out", "up", "down")),
    ]


class _Weights(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.POINTER(_Layer)),
        *((name, ctypes.c_void_p) for name in ("norm", "norm_bias", "cos", "sin", "positions", "embedding")),
        ("head", _Matrix),
        *((name, ctypes.c_void_p) for name in ("keys", "values", "tables")),
    ]


def library(target: str = "native") -> Any:
    """The code compiled for a processor, as the compiler's -march names it. Raises Unavailable, with the reason."""
    code = native.library(_SOURCE, target)
    code.crawltalk_make.restype = ctypes.c_void_p
    return code


class CpuBackend:
    """A backend (`backends.Backend`) for CPUs. A result does not depend on the batch, to the last bit.

    int8: weights in groups of 32 with one scale each (as llama.cpp's Q8_0), times numbers of 16 bits.
    bfloat16 and int8 keep keys and values in bfloat16.
    """

    def __init__(
        self,
        model: Transformer,
        precision: Precision,
        threads: int | None = None,
        cache_bytes: int | None = None,
        *,
        target: str = "native",
    ) -> None:
        """`target`: see `library`. Raises Unavailable for a shape that native code does not compute, or
        without a compiler.
        """
        shape = model.shape
        if (
            shape.family == "speedrun"
            or shape.head_dim % _SIZE_MULTIPLE
            or shape.width % _SIZE_MULTIPLE
            or shape.mlp % _SIZE_MULTIPLE
        ):
            raise Unavailable(
                "native code computes the families qwen3, llama and gpt2, in sizes that are multiples of 16"
            )
        self._library = library(target)
        self._lanes = int(self._library.crawltalk_lanes())
        self._precision, self._copies = precision, dict[str, np.ndarray]()
        number_bytes = 4 if precision == "float32" else 2
        self.num_blocks = num_cache_blocks(shape, number_bytes, cache_bytes)
        self.block_tables = empty_block_tables(shape)
        self.vocab_size, self.width = shape.vocab_size, shape.width
        cache_size = shape.layers, self.num_blocks, shape.kv_heads * shape.head_dim * BLOCK_SIZE
        self._cache = [np.zeros(cache_size, np.float32 if number_bytes == 4 else np.uint16) for _ in range(2)]
        config = _Config(
            kind=_KINDS[precision],
            **{name: getattr(shape, name) for name in ("layers", "width", "heads", "kv_heads", "head_dim")},
            mlp=shape.mlp,
            vocab=shape.vocab_size,
            table_width=self.block_tables.shape[1],
            blocks=self.num_blocks,
            threads=threads or torch.get_num_threads(),
            layer_norm=shape.family == "gpt2",
            gated=shape.family != "gpt2",
            rotary=shape.family != "gpt2",
            eps=shape.norm_eps,
        )
        self._model = ctypes.c_void_p(
            self._library.crawltalk_make(ctypes.byref(config), ctypes.byref(self._weights(model)))
        )

    def __del__(self) -> None:
        if model := getattr(self, "_model", None):
            self._library.crawltalk_free(model)

    def update_weights(self, model: Transformer) -> None:
        """See `Backend.update_weights`. Native code reads the copies where they are."""
        self._weights(model)

    def _weights(self, model: Transformer) -> _Weights:
        """The weights as native code reads them, in copies that live as long as this does; called again, it
        overwrites them.
        """
        dtype = torch.float32 if self._precision == "float32" else torch.bfloat16
        layers = [self._layer(f"blocks.{index}", block) for index, block in enumerate(model.blocks)]
        norm: Any = model.norm
        cos, sin = rope_tables(model.shape)  # not the model's, which may be of lower precision
        return _Weights(
            layers=(_Layer * len(layers))(*layers),
            norm=self._copy("norm", norm.weight),
            norm_bias=self._copy("norm.bias", getattr(norm, "bias", None)),
            cos=self._copy("cos", cos),
            sin=self._copy("sin", sin),
            positions=self._copy(
                "positions", model.positions.weight if model.positions is not None else None
            ),
            embedding=self._copy("embedding", model.embedding.weight, dtype),
            head=self._matrix("head", model.head_weight, None),
            keys=self._cache[0].ctypes.data,
            values=self._cache[1].ctypes.data,
            tables=self.block_tables.ctypes.data,
        )

    def forward(self, batch: Batch) -> Tensor:
        """See `Backend.forward`."""
        logits = np.empty((len(batch.logits_indices), self.vocab_size), np.float32)
        self._forward(batch, logits, None)
        return torch.from_numpy(logits)

    def states(self, batch: Batch) -> Tensor:
        """See `Backend.states`."""
        states = np.empty((len(batch.logits_indices), self.width), np.float32)
        self._forward(batch, None, states)
        return torch.from_numpy(states)

    def _forward(self, batch: Batch, logits: np.ndarray | None, states: np.ndarray | None) -> None:
        arrays = (batch.tokens, batch.positions, batch.slots, batch.embedded_rows, batch.embeddings)
        self._library.crawltalk_forward(
            self._model,
            len(batch.tokens),
            *map(_pointer, arrays),
            0 if batch.embeddings is None else len(batch.embeddings),
            len(batch.logits_indices),
            *map(_pointer, (batch.logits_indices, logits, states)),
        )

    def sample(self, logits_BV: Tensor, samplings: Sequence[Sampling], draws: Sequence[float]) -> list[int]:
        """See `Backend.sample`."""
        logits = logits_BV.contiguous().numpy()
        tokens = np.empty(len(draws), np.int32)
        arrays = (logits, *_settings(samplings), np.array(draws, np.float64), tokens)
        self._library.crawltalk_sample(self._model, len(draws), *map(_pointer, arrays))
        return tokens.tolist()

    def log_probs(self, logits_BV: Tensor, tokens: Sequence[int]) -> list[float]:
        """See `Backend.log_probs`."""
        result = np.empty(len(tokens), np.float32)
        arrays = (logits_BV.contiguous().numpy(), np.array(tokens, np.int32), result)
        self._library.crawltalk_log_probabilities(self._model, len(tokens), *map(_pointer, arrays))
        return result.tolist()

    def decode(self, batch: Batch, continuation: Continuation) -> Continued:
        """See `Backend.decode`."""
        rows, steps = len(batch.tokens), int(continuation.limits.max())
        tokens, counts = np.zeros((rows, steps), np.int32), np.zeros(rows, np.int32)
        log_probs = np.zeros((rows, steps), np.float32) if continuation.log_probs else None
        stop_ids = np.array(sorted(continuation.stop_ids), np.int32)
        seeds = np.array([one.seed % 2**64 for one in continuation.samplings], np.uint64)
        numbers = np.array(continuation.numbers, np.uint64)
        arrays = (batch.tokens, batch.positions, batch.slots, *_settings(continuation.samplings))
        arrays = (*arrays, seeds, numbers, continuation.drawn, continuation.limits)
        results = (tokens, log_probs, counts)
        together = self._together(int(batch.positions.max()) + steps)
        logits = np.empty((min(rows, together), self.vocab_size), np.float32)
        for start in range(0, rows, together):
            part = slice(start, start + together)
            self._library.crawltalk_decode(
                self._model,
                len(batch.tokens[part]),
                steps,
                *(_pointer(array[part]) for array in arrays),
                _pointer(stop_ids),
                len(stop_ids),
                _pointer(logits),
                *(_pointer(None if array is None else array[part]) for array in results),
            )
        return Continued(tokens, log_probs, counts)

    def _together(self, length: int) -> int:
        """Sequences of this length that decode together: so many that the caches of the processor hold their keys and
        values beside the weights. All, where that would be few.
        """
        weights = sum(copy.nbytes for copy in self._copies.values())
        position = sum(numbers.nbytes for numbers in self._cache) // (self.num_blocks * BLOCK_SIZE)
        rows = (_PROCESSOR_CACHE - weights) // (position * length)
        return rows if rows >= _FEW else MAX_NUM_SEQS

    def copy_block(self, source: int, target: int) -> None:
        """See `Backend.copy_block`."""
        for blocks in self._cache:
            blocks[:, target] = blocks[:, source]

    def _copy(self, name: str, weight: Tensor | None, dtype: torch.dtype = torch.float32) -> int | None:
        """The address of the copy of this name."""
        if weight is None:
            return None
        values = weight.detach().to("cpu", dtype).contiguous().view(torch.uint8).numpy()
        if name in self._copies:
            np.copyto(self._copies[name], values)
        else:
            self._copies[name] = np.array(values)  # by numpy, which asks for huge pages
        return self._copies[name].ctypes.data

    def _layer(self, name: str, block: Any) -> _Layer:
        attention, mlp = block.attention, block.mlp
        gated = hasattr(mlp, "gate_up")
        up = mlp.gate_up if gated else mlp.up
        rows = merged_weight(up)
        rows = interleave_panels(rows, self._lanes) if gated else rows
        return _Layer(
            norm1=self._copy(f"{name}.norm1", block.attention_norm.weight),
            norm1_bias=self._copy(f"{name}.norm1.bias", getattr(block.attention_norm, "bias", None)),
            norm2=self._copy(f"{name}.norm2", block.mlp_norm.weight),
            norm2_bias=self._copy(f"{name}.norm2.bias", getattr(block.mlp_norm, "bias", None)),
            q_norm=self._copy(f"{name}.q_norm", attention.q_norm),
            k_norm=self._copy(f"{name}.k_norm", attention.k_norm),
            qkv=self._matrix(f"{name}.qkv", merged_weight(attention.qkv), attention.qkv.bias),
            out=self._matrix(f"{name}.out", merged_weight(attention.out), attention.out.bias),
            up=self._matrix(f"{name}.up", rows, up.bias),
            down=self._matrix(f"{name}.down", merged_weight(mlp.down), mlp.down.bias),
        )

    def _matrix(self, name: str, weight: Tensor, bias: Tensor | None) -> _Matrix:
        """A matrix [outputs, inputs] in panels."""
        outputs, inputs = weight.shape
        padded = torch.zeros(-(-outputs // self._lanes) * self._lanes, -(-inputs // _GROUP) * _GROUP)
        padded[:outputs, :inputs] = weight.detach()
        panels = padded.view(-1, self._lanes, padded.shape[1])  # [panels, lanes, inputs]
        scales = None
        if self._precision == "float32":
            data = self._copy(name, panels.transpose(1, 2))
        elif self._precision == "bfloat16":
            data = self._copy(name, panels.unflatten(2, (-1, 2)).transpose(1, 2), torch.bfloat16)
        else:
            q, scale = quantize(panels.unflatten(2, (-1, _GROUP)))
            fours = (q.flatten(2) + 128).unflatten(2, (-1, 2, 2)).transpose(-1, -2)  # read in two halves
            data = self._copy(name, fours.transpose(1, 2), torch.uint8)
            scales = self._copy(f"{name}.scales", scale.transpose(1, 2), torch.bfloat16)
        if bias is not None:
            bias = torch.nn.functional.pad(bias.detach().float(), (0, len(padded) - outputs))
        return _Matrix(
            outputs=outputs,
            inputs=padded.shape[1],
            data=data,
            scales=scales,
            bias=self._copy(f"{name}.bias", bias),
        )


def _settings(samplings: Sequence[Sampling]) -> list[np.ndarray]:
    """Temperature, top_k, top_p and min_p of each row."""
    columns = zip(*(sampling.filters for sampling in samplings), strict=True)
    kinds = (np.float32, np.int32, np.float32, np.float32)
    return [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]


def _pointer(array: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def interleave_panels(gate_up: Tensor, lanes: int) -> Tensor:
    """The rows of gates and of the inner layer, which come one half behind the other, as alternate panels of
    `lanes` rows.
    """
    return gate_up.unflatten(0, (2, -1, lanes)).transpose(0, 1).flatten(0, 2)


def quantize(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 in fp32, of the shape of `weights`, and the scale of each group along
    the last dimension.

    Scales are bfloat16 numbers (in fp32), rounded up so that no weight is cut off.
    """
    scale = weights.abs().amax(dim=-1) / 127
    scale = ((scale.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)
    return (weights / scale.clamp(min=1e-30)[..., None]).round(), scale
