"""The shape of a Transformer."""

from dataclasses import dataclass

from crawltalk.recipe import Family


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3.1's scaling of the rotary frequencies (Llama Team 2024, section 3.2)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Everything that decides the sizes of the weights and the computation."""

    family: Family = "qwen3"
    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    context: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    tie_embeddings: bool = True

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised."""
        return self.family in ("qwen3", "speedrun")

    @property
    def biases(self) -> bool:
        """Whether linear layers have biases."""
        return self.family == "gpt2"
