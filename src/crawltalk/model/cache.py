"""The key/value cache, in blocks: a row's positions need not be contiguous in memory (Kwon et al. 2023, section
4.1).
"""

import torch
from torch import Tensor

from crawltalk.model.shape import Shape

BLOCK_SIZE = 16
"""Positions in a block."""


def blocks_for(tokens: int) -> int:
    """The number of blocks for `tokens` positions."""
    return -(-tokens // BLOCK_SIZE)


class KVCache:
    """Keys and values of `blocks` blocks, and which of them belong to the rows of the next forward pass.

    A forward pass with a cache puts row b's tokens at positions `lengths_B[b]` onward and does not move
    `lengths_B`; call `advance` with the number of real tokens of each row. So a ragged batch is padded on the
    right: the keys of the padding lie beyond the row's length, are never attended to, and are overwritten.
    """

    def __init__(
        self,
        shape: Shape,
        blocks: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        size = (shape.layers, blocks, shape.kv_heads, BLOCK_SIZE, shape.head_dim)
        self.keys = torch.zeros(size, device=device, dtype=dtype)
        self.values = torch.zeros(size, device=device, dtype=dtype)
        self.device = torch.device(device)
        self.equal_length: int | None = None
        """The length of every row, if all are equal: then no mask over rows is needed."""

    def select(self, tables_BN: Tensor, lengths_B: Tensor) -> None:
        """Set the rows of the next call: the blocks of each in order, including those for padding, and the
        current length of each row.
        """
        self.tables_BN = tables_BN.to(self.device)
        self.lengths_B = lengths_B.to(self.device)
        self.advance(0)

    def advance(self, counts: Tensor | int) -> None:
        """Add to each row's length its number of real tokens: one number, or [batch]."""
        self.lengths_B = self.lengths_B + counts
        first = int(self.lengths_B[0])
        self.equal_length = first if bool((self.lengths_B == first).all()) else None

    def put(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of this call. Returns all of them up to the longest row, [B, K, S, E] each."""
        steps = k_BKTE.shape[2]
        end = int(self.lengths_B.max()) + steps
        positions_BT = self.lengths_B[:, None] + torch.arange(steps, device=self.device)
        blocks_BT, offsets_BT = (
            self.tables_BN.gather(1, positions_BT // BLOCK_SIZE),
            positions_BT % BLOCK_SIZE,
        )
        self.keys[layer, blocks_BT, :, offsets_BT] = k_BKTE.transpose(1, 2)
        self.values[layer, blocks_BT, :, offsets_BT] = v_BKTE.transpose(1, 2)
        return self._gather(self.keys[layer], end), self._gather(self.values[layer], end)

    def _gather(self, pool: Tensor, end: int) -> Tensor:
        rows_BNKLE = pool[self.tables_BN[:, : blocks_for(end)]]
        return rows_BNKLE.transpose(1, 2).flatten(2, 3)[:, :, :end]
