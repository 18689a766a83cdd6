"""The shape of the Transformer: `[pretrain.model]`."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

Family = Literal["qwen3", "llama", "gpt2", "speedrun"]
"""llama: RMSNorm, rotary positions, SwiGLU, no biases. qwen3: the same, and queries and keys are normalised.
gpt2: LayerNorm, learned positions, GELU, biases. speedrun: qwen3 with value embeddings, squared ReLU, skips
from the first layer and capped logits: lower losses in the same time, but no other library runs it.
"""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The shape of the Transformer. `depth` derives the rest."""

    family: Family = "qwen3"
    depth: int | None = None
    """Layers: the one dial. If absent: as many as the corpus and `pretrain.flop` allow (`recipe.size`)."""
    width: int | None = None
    """Hidden size; 64 x depth if absent."""
    heads: int | None = None
    """Query heads; width / head_dim if absent."""
    kv_heads: int | None = None
    """Key/value heads; as many as query heads if absent."""
    head_dim: int = 64
    mlp: int | None = None
    """Inner size of the MLP; 3 x width (gpt2, speedrun: 4 x width) if absent."""
    context: int = 256
    """Longest sequence, in tokens."""
    rope_theta: float = 10_000.0
    tie_embeddings: bool | None = None
    """One matrix for embedding and head; if absent: yes, but for speedrun."""


def derive_model(model: Model) -> Model:
    """The shape with everything spelled out that `depth` decides; `depth` is given."""
    assert model.depth is not None
    width = model.width or 64 * model.depth
    heads = model.heads or max(1, width // model.head_dim)
    return dataclasses.replace(
        model,
        width=width,
        heads=heads,
        kv_heads=model.kv_heads or heads,
        mlp=model.mlp or inner_size(model, width),
        tie_embeddings=tied(model),
    )


def inner_size(model: Model, width: int) -> int:
    """Inner size of the MLP, unless the recipe gives it: about as many weights for two matrices as for three."""
    return 4 * width if model.family in ("gpt2", "speedrun") else 3 * width


def tied(model: Model) -> bool:
    """Whether embedding and head are one matrix."""
    return model.family != "speedrun" if model.tie_embeddings is None else model.tie_embeddings
