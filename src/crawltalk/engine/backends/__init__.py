"""Backends compute: the rows of a step go in, logits come out. `torch.TorchBackend` is the reference and runs
everywhere; `cpu.CpuBackend` is our own code for CPUs.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from crawltalk.engine.sampling import Sampling
from crawltalk.model.cache import BLOCK_SIZE, blocks_for
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.run.machine import memory_bytes

MAX_NUM_SEQS = 256
"""Sequences that run at once."""
_CACHE_FRACTION = 1 / 8
"""Of the memory, for keys and values, unless a size is given."""
MAX_CACHE_BYTES = 1 << 30
"""The same, at most."""


class Batch(NamedTuple):
    """The rows of one step, each a token or a vector; the rows of a sequence stand together, in order. Indices
    and ids are int32.
    """

    tokens: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    """Of each row's sequence: its row of the block tables."""
    logits_indices: np.ndarray
    """Rows whose logits or states are computed."""
    embedded_rows: np.ndarray | None = None
    """Rows that read a vector instead of their token's embedding."""
    embeddings: np.ndarray | None = None
    """These vectors, [embedded rows, D] fp32, row by row in memory."""


class Continuation(NamedTuple):
    """How sequences go on by themselves, one a row of the arrays."""

    samplings: Sequence[Sampling]
    """Without penalties and schemas."""
    numbers: Sequence[int]
    """What the draws of each sequence depend on, beside its seed (`sampling.uniform`)."""
    drawn: np.ndarray
    """Tokens that each has drawn before, int32."""
    limits: np.ndarray
    """Tokens that each draws at most, int32."""
    stop_ids: frozenset[int]
    """Tokens after which a sequence draws no more."""
    log_probs: bool
    """Whether those of the drawn tokens are needed."""


class Continued(NamedTuple):
    """What sequences have drawn; a row has `counts` tokens, a stop token included."""

    tokens: np.ndarray
    """[rows, the largest limit] int32."""
    log_probs: np.ndarray | None
    """Of the same shape, fp32."""
    counts: np.ndarray


class Backend(Protocol):
    """A model's weights on some hardware, copied from a `Transformer`, and a key/value cache."""

    num_blocks: int
    block_tables: np.ndarray
    """[MAX_NUM_SEQS, blocks of a whole context] int32: the blocks of each slot's sequence, in order."""

    def update_weights(self, model: Transformer) -> None:
        """Overwrite the weights with copies of those of a model of the same shape, its adapters added. What is in the
        cache is of the old ones.
        """
        ...

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the rows `logits_indices`, [rows, V] fp32; valid until the next call."""
        ...

    def states(self, batch: Batch) -> Tensor:
        """Final states of the rows `logits_indices`, [rows, D] fp32; valid until the next call."""
        ...

    def sample(self, logits_BV: Tensor, samplings: Sequence[Sampling], draws: Sequence[float]) -> list[int]:
        """The next token of each row; `draws`: a number of [0, 1) for each, which decides."""
        ...

    def log_probs(self, logits_BV: Tensor, tokens: Sequence[int]) -> list[float]:
        """The natural logarithm of each row's probability of one token."""
        ...

    def decode(self, batch: Batch, continuation: Continuation) -> Continued:
        """Steps of `forward` and `sample` one after the other. `batch`: the last token of each sequence, whose block
        table has room for all that it may draw.
        """
        ...

    def copy_block(self, source: int, target: int) -> None:
        """Copy the keys and values of a block."""
        ...


def num_cache_blocks(shape: Shape, number_bytes: int, cache_bytes: int | None) -> int:
    """Blocks that fit into `cache_bytes` (None: a fraction of the memory), at least those of one whole
    context.

    Memory is only taken when it is written to.
    """
    if cache_bytes is None:
        cache_bytes = min(MAX_CACHE_BYTES, int(memory_bytes() * _CACHE_FRACTION))
    block_bytes = 2 * shape.layers * shape.kv_heads * shape.head_dim * BLOCK_SIZE * number_bytes
    most = MAX_NUM_SEQS * blocks_for(shape.context)
    return max(blocks_for(shape.context), min(most, cache_bytes // block_bytes))


def empty_block_tables(shape: Shape) -> np.ndarray:
    """See `Backend.block_tables`."""
    return np.zeros((MAX_NUM_SEQS, blocks_for(shape.context)), dtype=np.int32)
