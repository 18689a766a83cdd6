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
class LinearScaling:
    """All rotary frequencies divided by one factor (Chen et al. 2023, position interpolation)."""

    factor: float


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """YaRN (Peng et al. 2023, section 3): slow frequencies are divided, fast ones kept, those between blended."""

    factor: float
    original_context: int
    fast_turns: float = 32.0
    slow_turns: float = 1.0
    """Turns within the original context from which on a frequency is kept, and up to which it is divided."""
    whole: bool = True
    """Whether the blend begins and ends at whole dimensions."""
    magnitude: float
    """Queries and keys are longer by this factor."""


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
    rope_scaling: RopeScaling | LinearScaling | YarnScaling | None = None
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    qkv_bias: bool = False
    """Whether queries, keys and values alone have biases (Qwen2)."""

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised."""
        return self.family in ("qwen3", "speedrun")

    @property
    def biases(self) -> bool:
        """Whether all linear layers have biases."""
        return self.family == "gpt2"
