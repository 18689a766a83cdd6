"""What computes: the rows of a step go in, logits come out. `Reference` is torch; `native.Native` is our own
code for CPUs.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from crawltalk.engine.sampling import Sampling, choose
from crawltalk.model.cache import BLOCK, KVCache, blocks_for
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
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


class Reference:
    """torch: the reference, the way out where nothing can be compiled, and the way to a GPU.

    `one_by_one` computes each row by itself: then the last bit of a result does not depend on what else is in
    the batch.
    """

    def __init__(
        self, model: Transformer, *, one_by_one: bool = False, cache_bytes: int | None = None
    ) -> None:
        self.model, self.one_by_one = model, one_by_one
        weight = model.embedding.weight
        self.blocks = cache_blocks(model.shape, weight.element_size(), cache_bytes)
        self.tables = empty_tables(model.shape)
        self._cache = KVCache(model.shape, self.blocks, device=weight.device, dtype=weight.dtype)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """Logits of the wanted rows."""
        states = self.states(batch)
        rows = states.split(1) if self.one_by_one else (states,)
        return torch.cat([self.model.logits(row) for row in rows]).float()

    @torch.inference_mode()
    def states(self, batch: Batch) -> Tensor:
        """Final states of the wanted rows. Sequences that go on by one token are computed together, others
        each by itself.
        """
        weight = self.model.embedding.weight
        groups = list(np.arange(len(batch.tokens))[:, None, None]) if self.one_by_one else self._groups(batch)
        found = torch.empty(
            len(batch.tokens), self.model.shape.width, device=weight.device, dtype=weight.dtype
        )
        for rows_BT in groups:
            starts = batch.positions[rows_BT[:, 0]].astype(np.int64)
            tables = self.tables[
                batch.slots[rows_BT[:, 0]], : blocks_for(int(starts.max()) + rows_BT.shape[1])
            ]
            self._cache.select(torch.from_numpy(tables.astype(np.int64)), torch.from_numpy(starts))
            tokens = torch.from_numpy(batch.tokens[rows_BT].astype(np.int64)).to(weight.device)
            found[torch.from_numpy(rows_BT)] = self.model.states(tokens, self._cache)
        return found[torch.from_numpy(batch.wanted.astype(np.int64))]

    def _groups(self, batch: Batch) -> list[np.ndarray]:
        """Rows that are computed in one pass, [sequences, T] each."""
        firsts = np.flatnonzero(np.diff(batch.slots, prepend=-1))
        sizes = np.diff(firsts, append=len(batch.slots))
        chunks = [
            np.arange(first, first + size)[None]
            for first, size in zip(firsts, sizes, strict=True)
            if size > 1
        ]
        single = firsts[sizes == 1][:, None]
        return [*chunks, single] if len(single) else chunks

    def choose(self, logits_BV: Tensor, samplings: Sequence[Sampling], points: Sequence[float]) -> list[int]:
        """The next token of each row; rows of equal settings are drawn together."""
        chosen = [0] * len(points)
        order = sorted(range(len(points)), key=lambda row: samplings[row].filters)
        for _, group in groupby(order, key=lambda row: samplings[row].filters):
            rows = list(group)
            found = choose(logits_BV[rows], samplings[rows[0]], [points[row] for row in rows])
            for row, token in zip(rows, found.tolist(), strict=True):
                chosen[row] = token
        return chosen
