"""The backend in torch: the reference, the way out where nothing can be compiled, and the way to a GPU."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from crawltalk.engine.backends import Batch, cache_blocks, empty_tables
from crawltalk.engine.sampling import Sampling, choose
from crawltalk.model.cache import KVCache, blocks_for
from crawltalk.model.transformer import Transformer


class TorchBackend:
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
