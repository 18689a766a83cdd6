"""What computes: the rows of a step go in, logits come out. `torch.TorchBackend` is the reference and runs
everywhere; `cpu.CpuBackend` is our own code for CPUs.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from crawltalk.engine.sampling import Sampling
from crawltalk.model.cache import BLOCK, blocks_for
from crawltalk.model.shape import Shape
from crawltalk.run.machine import memory_bytes

SLOTS = 256
"""Sequences that run at once."""
CACHE_SHARE = 8
"""One part in so many of the memory may become key/value cache."""
MOST_CACHE = 1 << 30
"""Bytes, at most."""


class Batch(NamedTuple):
    """The rows of one step, each a token; the rows of a sequence stand together, in order. All int32."""

    tokens: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    """Of the sequence that each row belongs to: its row of the backend's tables."""
    wanted: np.ndarray
    """Rows whose logits are wanted."""


class Backend(Protocol):
    """The model on some hardware, with its key/value cache."""

    blocks: int
    tables: np.ndarray
    """[SLOTS, blocks of a whole context] int32: which blocks a sequence's positions are in."""

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the wanted rows, [wanted, V] fp32; valid until the next call."""
        ...

    def states(self, batch: Batch) -> Tensor:
        """Final states of the wanted rows, [wanted, D] fp32; valid until the next call."""
        ...

    def choose(self, logits_BV: Tensor, samplings: Sequence[Sampling], points: Sequence[float]) -> list[int]:
        """The next token of each row."""
        ...


def cache_blocks(shape: Shape, number_bytes: int, cache_bytes: int | None) -> int:
    """Blocks that fit into `cache_bytes` (None: a share of the memory), at least those of one whole context.

    Memory is only taken when it is written to.
    """
    room = min(MOST_CACHE, memory_bytes() // CACHE_SHARE) if cache_bytes is None else cache_bytes
    block = 2 * shape.layers * shape.kv_heads * shape.head_dim * BLOCK * number_bytes
    most = SLOTS * blocks_for(shape.context)
    return max(blocks_for(shape.context), min(most, room // block))


def empty_tables(shape: Shape) -> np.ndarray:
    """Block tables of no sequence."""
    return np.zeros((SLOTS, blocks_for(shape.context)), dtype=np.int32)
