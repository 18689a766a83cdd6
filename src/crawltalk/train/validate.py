"""How well a model predicts text that it was not trained on."""

import math

import torch

from crawltalk.core.shards import TokenShards
from crawltalk.model.transformer import Transformer

BATCH = 16
"""Windows in one forward pass."""


@torch.no_grad()
def bits_per_byte(model: Transformer, shards: TokenShards) -> float:
    """Mean cross entropy over all tokens of a split, in bits per UTF-8 byte of its text: comparable across
    tokenizers.

    Windows of `context` tokens that do not overlap; the first token of the split is not predicted.
    """
    context, device = model.shape.context, model.embedding.weight.device
    tokens = torch.from_numpy(shards.window(0, len(shards))).to(device)
    full = (len(tokens) - 1) // context
    nats = 0.0
    for start in range(0, full, BATCH):
        rows = min(BATCH, full - start)
        part = tokens[start * context : (start + rows) * context + 1]
        nats += float(model.loss(part[:-1].view(rows, context), part[1:].view(rows, context))[0])
    rest = tokens[full * context :]
    if len(rest) > 1:
        nats += float(model.loss(rest[None, :-1], rest[None, 1:])[0])
    return nats / math.log(2) / shards.bytes
