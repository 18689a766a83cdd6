"""What one optimizer step learns from, and the ways to make it: windows of a stream of tokens, packed
conversations.

A source of batches is a pure function of the step, the same on all ranks: that is what makes a resumed training
equal to an uninterrupted one.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from crawltalk.core.errors import BadInput
from crawltalk.core.shards import TokenShards

Row = TypeVar("Row")

IGNORE_INDEX = -100
"""A target that is not counted in the loss."""
ROW_STEP = 64
"""Rows that texts share have lengths that are multiples of it: so few products have shapes of their own."""


@dataclass(frozen=True)
class Batch:
    """Rows of tokens. All tensors share the rows as their first dimension, and are cut and moved together."""

    tokens: Tensor
    """[B, T], int64."""
    targets: Tensor
    """[B, T], int64: what follows each token, or IGNORE_INDEX."""
    documents: Tensor | None = None
    """[B, T], int64: the number of each token's document within its row, for attention that stays within it."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """[B, ...]: what an objective needs beside these, such as advantages or the rejected reply of a pair."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What its maker says of it, for the log; micro-batches have none."""
    parents: Tensor | None = None
    """[B, T], int64: the number of the document that each token's document continues, so that several share it; -1:
    none. It stands before them in the row, and continues none itself.
    """

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice) -> "Batch":
        return self._map(lambda tensor: tensor[rows])

    def share(self, rank: int, world_size: int) -> "Batch":
        """The rows of one of `world_size` ranks, which may be none; rank 0 has the most."""
        return self._map(lambda tensor: tensor.tensor_split(world_size)[rank])

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        documents = None if self.documents is None else change(self.documents)
        parents = None if self.parents is None else change(self.parents)
        extras = {name: change(tensor) for name, tensor in self.extras.items()}
        return Batch(change(self.tokens), change(self.targets), documents, extras, parents=parents)


Batches = Callable[[int], Batch]
"""step -> the batch of all ranks together."""


def windows(
    shards: TokenShards, rows: int, context: int, seed: int, *, document_mask: bool = False
) -> Batches:
    """Batches of pretraining: in each pass over the shards every token is predicted once, in windows of a new
    order and phase. With `document_mask` they carry the numbers of documents.
    """
    count = max(1, len(shards) // context)

    @lru_cache(maxsize=2)
    def order(epoch: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng([seed, epoch])
        return rng.permutation(count), int(rng.integers(context))

    def batch(step: int) -> Batch:
        table = np.empty((rows, context + 1), dtype=np.int64)
        for row in range(rows):
            epoch, index = divmod(step * rows + row, count)
            starts, phase = order(epoch)
            table[row] = shards.window(int(starts[index]) * context + phase, context + 1)
        if table.max() >= shards.index.vocab_size:
            raise BadInput(
                f"the token shards hold the id {table.max()}, and their vocabulary ends with "
                f"{shards.index.vocab_size - 1}; build them again with: crawltalk tokenizer"
            )
        tokens, targets = torch.from_numpy(table[:, :-1].copy()), torch.from_numpy(table[:, 1:].copy())
        return Batch(tokens, targets, document_numbers(tokens, shards.index.eot) if document_mask else None)

    return batch


def document_numbers(tokens_BT: Tensor, eot: int) -> Tensor:
    """The number of each token's document within its row, [B, T]; a document begins with `eot`."""
    return (tokens_BT == eot).cumsum(1)


def packed_rows(
    conversations: Sequence[tuple[list[int], list[bool]]], length: int, batch_tokens: int, seed: int
) -> tuple[Batches, int]:
    """Batches of fine-tuning from (ids, loss mask), and their number in one epoch.

    As many conversations as fit share a row of `length` positions, and attention stays within each. So little is
    padding, and all products have one shape: oneDNN compiles code for each shape and keeps it. Each epoch has every
    row once; which rows share a batch is drawn anew. Raises BadInput for a conversation that is longer.
    """
    packs = pack([len(ids) for ids, _ in conversations], length, random.Random(seed))
    rows = max(1, batch_tokens // length)
    per_epoch = math.ceil(len(packs) / rows)

    @lru_cache(maxsize=2)
    def order(epoch: int) -> list[int]:
        return random.Random(f"{seed} {epoch}").sample(range(len(packs)), len(packs))

    def batch(step: int) -> Batch:
        epoch, index = divmod(step, per_epoch)
        chosen = [packs[row] for row in order(epoch)[index * rows : (index + 1) * rows]]
        size = len(chosen), length
        tokens, targets = np.zeros(size, np.int64), np.full(size, IGNORE_INDEX, np.int64)
        documents = np.full(size, -1, np.int64)
        for row, pack in enumerate(chosen):
            start = 0
            for number, (ids, loss_mask) in enumerate(conversations[index] for index in pack):
                end = start + len(ids)
                tokens[row, start:end] = ids
                targets[row, start : end - 1] = np.where(loss_mask[1:], ids[1:], IGNORE_INDEX)
                documents[row, start:end] = number
                start = end
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(documents))

    return batch, per_epoch


def fewest_positions(
    least: int, most: int, filled: int, rows_of: Callable[[int], Sequence[Row]]
) -> tuple[Sequence[Row], int]:
    """Rows and their length, a multiple of `ROW_STEP`: of those from `least` up to `most`, or the first, that with the
    fewest positions in all. `rows_of` says how rows of a length are filled; at least `filled` positions are. Lengths
    that could not have fewer than another are not tried.
    """
    first = -(-least // ROW_STEP) * ROW_STEP
    lengths = range(first, max(most, first) + 1, ROW_STEP)
    rows: Sequence[Row] = ()
    best: tuple[float, int] = (math.inf, 0)
    for positions, length in sorted((-(-filled // length) * length, length) for length in lengths):
        if (positions, length) < best:
            packs = rows_of(length)
            if (len(packs) * length, length) < best:
                rows, best = packs, (len(packs) * length, length)
    return rows, best[1]


def pack(lengths: Sequence[int], length: int, rng: random.Random) -> list[list[int]]:
    """Numbers of sequences that fit into `length` together: the longest first, each where least room is left
    (best fit decreasing; Johnson 1973).
    """
    if max(lengths) > length:
        raise BadInput(f"a conversation of {max(lengths)} tokens does not fit into a row of {length}")
    room: list[list[list[int]]] = [[] for _ in range(length + 1)]  # packs by the positions that are left
    packs: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], rng.random())):
        size = lengths[number]
        left = next((left for left in range(size, length) if room[left]), length)
        if left == length:
            packs.append([])
        pack = packs[-1] if left == length else room[left].pop()
        pack.append(number)
        room[left - size].append(pack)
    return packs
