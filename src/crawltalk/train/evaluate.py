"""How well a model predicts text that it was not trained on."""

import math
from collections.abc import Sequence

import torch

from crawltalk.core.shards import TokenShards
from crawltalk.model.transformer import Transformer
from crawltalk.train.batches import Batch, document_numbers, packed_rows
from crawltalk.train.objectives.cross_entropy import cross_entropy

BATCH = 16
"""Windows in one forward pass."""


@torch.no_grad()
def bits_per_byte(model: Transformer, shards: TokenShards, *, document_mask: bool = False) -> float:
    """Mean cross entropy over all tokens of a split, in bits per UTF-8 byte of its text: comparable across
    tokenizers.

    Windows of `context` tokens that do not overlap; the first token of the split is not predicted. With
    `document_mask` attention stays within documents.
    """
    context, device = model.shape.context, model.embedding.weight.device
    tokens = torch.from_numpy(shards.window(0, len(shards))).to(device)
    full = (len(tokens) - 1) // context

    def nats(part: torch.Tensor, rows: int) -> float:
        inputs_BT, targets_BT = part[:-1].view(rows, -1), part[1:].view(rows, -1)
        documents_BT = document_numbers(inputs_BT, shards.index.eot) if document_mask else None
        return float(cross_entropy(model, Batch(inputs_BT, targets_BT, documents_BT))[0])

    total = 0.0
    for start in range(0, full, BATCH):
        rows = min(BATCH, full - start)
        total += nats(tokens[start * context : (start + rows) * context + 1], rows)
    if len(tokens) - full * context > 1:
        total += nats(tokens[full * context :], 1)
    return total / math.log(2) / shards.bytes


@torch.no_grad()
def packed_loss(model: Transformer, rows: Sequence[tuple[list[int], list[bool]]], length: int) -> float:
    """Mean cross entropy of the tokens that conversations, (ids, loss mask), teach, in nats. As in training they share
    rows of `length` positions.
    """
    device = model.embedding.weight.device
    batches, steps = packed_rows(rows, length, BATCH * length, 0)
    total, counted = 0.0, 0
    for step in range(steps):
        loss, count, _ = cross_entropy(model, batches(step).to(device))
        total, counted = total + float(loss), counted + int(count)
    return total / max(counted, 1)
