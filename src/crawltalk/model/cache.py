"""The key/value cache of cached decoding."""

import torch
from torch import Tensor

from crawltalk.model.shape import Shape


class KVCache:
    """Keys and values of all positions so far, for a batch whose rows may have different lengths.

    A forward pass with a cache puts row b's tokens at positions `lengths_B[b]` onward and does not move `lengths_B`; call
    `advance` with the number of real tokens of each row. So a ragged batch is padded on the right: the keys of the padding
    lie beyond the row's length, are never attended to, and are overwritten.
    """

    def __init__(
        self,
        shape: Shape,
        batch: int,
        capacity: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        size = (shape.layers, batch, shape.kv_heads, capacity, shape.head_dim)
        self.keys = torch.zeros(size, device=device, dtype=dtype)
        self.values = torch.zeros(size, device=device, dtype=dtype)
        self.lengths_B = torch.zeros(batch, dtype=torch.int64, device=device)
        self.capacity = capacity
        self.equal_length: int | None = 0
        """The length of every row, if all are equal: then no mask is needed and slices do."""

    def advance(self, counts: Tensor | int) -> None:
        """Move each row's length by its number of real tokens: one number, or [batch]."""
        self.lengths_B = self.lengths_B + counts
        first = int(self.lengths_B[0])
        self.equal_length = first if bool((self.lengths_B == first).all()) else None

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (indices, [kept])."""
        self.keys, self.values, self.lengths_B = self.keys[:, rows], self.values[:, rows], self.lengths_B[rows]
        self.advance(0)

    def put(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of this call; all keys and values up to the longest row, [B, K, S, E] each."""
        steps = k_BKTE.shape[2]
        if self.equal_length is not None:
            start, end = self.equal_length, self.equal_length + steps
            self.keys[layer, :, :, start:end] = k_BKTE
            self.values[layer, :, :, start:end] = v_BKTE
        else:
            end = int(self.lengths_B.max()) + steps
            rows = torch.arange(len(self.lengths_B), device=k_BKTE.device)[:, None]
            places_BT = self.lengths_B[:, None] + torch.arange(steps, device=k_BKTE.device)
            self.keys[layer, rows, :, places_BT] = k_BKTE.transpose(1, 2)
            self.values[layer, rows, :, places_BT] = v_BKTE.transpose(1, 2)
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
