"""Parameters, memory and FLOPs of a model, from its shape alone. No torch."""

from typing import NamedTuple

from crawltalk.recipe.model import Model, inner_size, tied


class Hardware(NamedTuple):
    """A GPU."""

    flops: float
    """Peak of dense bf16 products a second, from its data sheet."""
    memory: float
    """Bytes."""
    dollars: float
    """For an hour, as one of a node of eight."""


HARDWARE = {
    "a100": Hardware(312e12, 80e9, 1.75),
    "h100": Hardware(989e12, 80e9, 3.50),
    "h200": Hardware(989e12, 141e9, 3.50),
}
"""Prices are those of llm.c's reproductions of GPT-2 in 2024 (124M: a node of A100 at 14 dollars an hour; 1.6B:
a node of H100 at 28). The H200 is assumed to cost as much as the H100.
"""


def _resolved(model: Model) -> tuple[int, int, int, int, int]:
    """Depth, width, heads, key/value heads, inner size of the MLP."""
    assert model.depth is not None
    width = model.width or 64 * model.depth
    heads = model.heads or max(1, width // model.head_dim)
    return model.depth, width, heads, model.kv_heads or heads, model.mlp or inner_size(model, width)


def value_embeddings(layers: int) -> int:
    """How many layers of a `speedrun` model have one: the last, and every second one before it."""
    return (layers + 1) // 2


def parameters(model: Model, vocab_size: int) -> int:
    """Parameters, embeddings counted once if tied."""
    depth, width, heads, kv_heads, mlp = _resolved(model)
    attention = width * model.head_dim * (2 * heads + 2 * kv_heads)
    embeddings = vocab_size * width * (1 if tied(model) else 2)
    fast = int(model.family == "speedrun")
    if model.family == "gpt2":
        biases = model.head_dim * (heads + 2 * kv_heads) + mlp + 2 * width
        block = attention + 2 * width * mlp + biases + 4 * width
        return depth * block + 2 * width + embeddings + model.context * width
    block = attention + (3 - fast) * width * mlp + 2 * width + 2 * model.head_dim * (model.family != "llama")
    skips = 2 * depth + value_embeddings(depth) * vocab_size * kv_heads * model.head_dim
    return depth * block + width + embeddings + fast * skips


def looked_up(model: Model, vocab_size: int) -> int:
    """Parameters that are looked up and not multiplied: embeddings that are not also the head."""
    depth, width, _, kv_heads, _ = _resolved(model)
    count = 0 if tied(model) else vocab_size * width
    if model.family == "gpt2":
        count += model.context * width
    if model.family == "speedrun":
        count += value_embeddings(depth) * vocab_size * kv_heads * model.head_dim
    return count


def training_bytes(model: Model, vocab_size: int, batch_tokens: int) -> dict[str, int]:
    """Memory of training, in bytes, by what needs it: fp32 weights, gradients and optimizer state, bf16
    activations.

    Activations are those of one micro-batch of a single sequence, without recomputation: per token and layer
    about 34 widths in 2-byte values (Korthikanti et al. 2022, section 4.1, without dropout), and the logits
    in fp32.
    """
    depth, width, heads, _, mlp = _resolved(model)
    count = parameters(model, vocab_size)
    tokens = min(model.context, batch_tokens)
    inner = (2 if model.family in ("gpt2", "speedrun") else 3) * mlp
    activations = (
        tokens * depth * 2 * (10 * width + inner + 4 * heads * model.head_dim) + tokens * vocab_size * 8
    )
    return {
        "weights": 4 * count,
        "gradients": 4 * count,
        "optimizer state": 8 * count,
        "activations": activations,
    }


def training_flops(model: Model, vocab_size: int, tokens: int) -> float:
    """6 FLOPs per token and parameter that is multiplied (Kaplan et al. 2020, 2.1), and attention's 12 x
    layers x width x context.
    """
    depth, _, heads, _, _ = _resolved(model)
    attention = 12 * depth * heads * model.head_dim * model.context / 2  # half: causal
    return tokens * (6.0 * (parameters(model, vocab_size) - looked_up(model, vocab_size)) + attention)


def inference_flops(model: Model, vocab_size: int, position: int = 0) -> float:
    """FLOPs of one more token: 2 per parameter that is multiplied, and attention's 4 x layers x width x position."""
    depth, _, heads, _, _ = _resolved(model)
    attention = 4.0 * depth * heads * model.head_dim * position
    return 2.0 * (parameters(model, vocab_size) - looked_up(model, vocab_size)) + attention
