"""A decoder-only Transformer of Qwen3's family (RMSNorm, RoPE, QK-norm, SwiGLU), Llama's, GPT-2's, or
`speedrun`'s.

The last one is what the fastest reproductions of GPT-2 use (Jordan et al. 2024, modded-nanogpt; Karpathy
2025, nanochat): Qwen3's attention with value embeddings, squared ReLU, every layer's input mixed with the
first one's, logits capped. No other library computes it.

Shape suffixes of tensors, here and in all of crawltalk (`x_BTD` is [batch, positions, width]):

    B batch          D width             E head_dim               V vocabulary
    T positions      H query heads       F inner size of the MLP  N = B x T
    S cached keys    K key/value heads
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crawltalk.core.errors import BadInput
from crawltalk.model.cache import KVCache
from crawltalk.model.functions import Visible, causal_attention, gated, normalize
from crawltalk.model.lora import LoraLinear, current_dropout_seed, dropout_seed
from crawltalk.model.native import PackedAttention, Texts, attends
from crawltalk.model.shape import LinearScaling, RopeScaling, Shape, YarnScaling
from crawltalk.model.trainable import Trainable
from crawltalk.recipe.cost import value_embeddings

SOFT_CAP = 15.0
"""The `logit_cap` of `speedrun`."""


class RMSNorm(nn.Module):
    """Scale each position to length sqrt(D), then by a weight per dimension."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return normalize(x_BTD, self.eps) * self.weight


def linear_of_norm(linear: nn.Linear, norm: nn.Module, x_BTD: Tensor) -> Tensor:
    """linear(norm(x)). The norm's weight multiplies the matrix instead, where that has fewer numbers."""
    if not isinstance(norm, RMSNorm):
        return linear(norm(x_BTD))
    if isinstance(linear, LoraLinear):
        return linear.of_normalized(normalize(x_BTD, norm.eps), norm.weight)
    if x_BTD.numel() > linear.weight.numel():
        return F.linear(normalize(x_BTD, norm.eps), linear.weight * norm.weight, linear.bias)
    return linear(norm(x_BTD))


def make_norm(shape: Shape) -> nn.Module:
    """The norm of a family (LayerNorm: Ba et al. 2016)."""
    return (
        nn.LayerNorm(shape.width, shape.norm_eps)
        if shape.family == "gpt2"
        else RMSNorm(shape.width, shape.norm_eps)
    )


class Attention(nn.Module):
    """Causal self-attention with grouped queries (Ainslie et al. 2023); Qwen3's shape normalises queries and
    keys.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads = shape.heads, shape.kv_heads
        self.head_dim, self.eps = shape.head_dim, shape.norm_eps
        self.rotary = shape.family != "gpt2"
        self.qkv = nn.Linear(
            shape.width,
            (shape.heads + 2 * shape.kv_heads) * shape.head_dim,
            bias=shape.biases or shape.qkv_bias,
        )
        self.out = nn.Linear(shape.heads * shape.head_dim, shape.width, bias=shape.biases)
        self.q_norm = nn.Parameter(torch.ones(shape.head_dim)) if shape.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(shape.head_dim)) if shape.qk_norm else None

    def forward(
        self,
        x_BTD: Tensor,
        norm: nn.Module,
        positions: "Positions",
        layer: int,
        cache: KVCache | None,
        value_embedding: Tensor | None,
    ) -> Tensor:
        """[B, T, D] in and out. `value_embedding`, [B, T, K x E], is added to the values."""
        batch, length, _ = x_BTD.shape
        qkv = linear_of_norm(self.qkv, norm, x_BTD).view(batch, length, -1, self.head_dim)
        if cache is None and self.rotary and value_embedding is None and attends(qkv):
            return self.out(
                PackedAttention.apply(
                    qkv, self.q_norm, self.k_norm, self.heads, self.eps, positions.texts(batch)
                )
            )
        rotated = self.heads + self.kv_heads  # queries and keys are normalised and rotated in one go
        # split, not slices: its backward is one concatenation
        qk, v_BTKE = qkv.split((rotated, self.kv_heads), dim=2)
        if value_embedding is not None:
            v_BTKE = v_BTKE + value_embedding.view_as(v_BTKE)
        if self.q_norm is not None and self.k_norm is not None:
            weight = torch.cat((self.q_norm.expand(self.heads, -1), self.k_norm.expand(self.kv_heads, -1)))
            qk = positions.rotate(normalize(qk, self.eps), weight)
        elif self.rotary:
            qk = positions.rotate(qk)
        q_BTHE, k_BTKE = qk.split((self.heads, self.kv_heads), dim=2)
        q_BHTE, k_BKTE, v_BKTE = q_BTHE.transpose(1, 2), k_BTKE.transpose(1, 2), v_BTKE.transpose(1, 2)
        if cache is None:
            y_BHTE = causal_attention(q_BHTE, k_BKTE, v_BKTE, positions.visible)
        else:
            keys, values = cache.put(layer, k_BKTE, v_BKTE)
            y_BHTE = F.scaled_dot_product_attention(
                q_BHTE, keys, values, attn_mask=positions.mask, enable_gqa=self.heads != self.kv_heads
            )
        return self.out(y_BHTE.transpose(1, 2).reshape(batch, length, -1))


class SwiGLU(nn.Module):
    """The gated MLP of Llama and Qwen3 (Shazeer 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_up = nn.Linear(shape.width, 2 * shape.mlp, bias=False)
        self.down = nn.Linear(shape.mlp, shape.width, bias=False)

    def forward(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        gate_up = linear_of_norm(self.gate_up, norm, x_BTD)
        if isinstance(self.down, LoraLinear):
            return self.down.of_gated(gate_up)
        return self.down(gated(gate_up))


class GELU(nn.Module):
    """The MLP of GPT-2 (Radford et al. 2019; Hendrycks and Gimpel 2016, section 2: the approximation
    by tanh).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, shape.mlp)
        self.down = nn.Linear(shape.mlp, shape.width)

    def forward(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        return self.down(F.gelu(linear_of_norm(self.up, norm, x_BTD), approximate="tanh"))


class SquaredReLU(nn.Module):
    """The MLP of `speedrun` (So et al. 2021, Primer)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, shape.mlp, bias=False)
        self.down = nn.Linear(shape.mlp, shape.width, bias=False)

    def forward(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        return self.down(F.relu(linear_of_norm(self.up, norm, x_BTD)).square())


MLPS: dict[str, type[nn.Module]] = {"qwen3": SwiGLU, "llama": SwiGLU, "gpt2": GELU, "speedrun": SquaredReLU}


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and around a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = make_norm(shape)
        self.attention = Attention(shape)
        self.mlp_norm = make_norm(shape)
        self.mlp = MLPS[shape.family](shape)

    def forward(
        self,
        x_BTD: Tensor,
        positions: "Positions",
        layer: int,
        cache: KVCache | None,
        value_embedding: Tensor | None = None,
    ) -> Tensor:
        x_BTD = x_BTD + self.attention(x_BTD, self.attention_norm, positions, layer, cache, value_embedding)
        return x_BTD + self.mlp(x_BTD, self.mlp_norm)


class Skips(nn.Module):
    """What `speedrun` adds around the blocks: the first layer's input mixed into every layer's, and value
    embeddings in every second layer.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.keep = nn.Parameter(torch.ones(shape.layers))
        """Share of the last layer's output."""
        self.first = nn.Parameter(torch.full((shape.layers,), 0.1))
        """Share of the first layer's input."""
        size = shape.kv_heads * shape.head_dim
        self.values = nn.ModuleList(
            nn.Embedding(shape.vocab_size, size) for _ in range(value_embeddings(shape.layers))
        )

    def forward(
        self,
        x_BTD: Tensor,
        tokens_BT: Tensor,
        positions: "Positions",
        cache: KVCache | None,
        model: "Transformer",
    ) -> Tensor:
        """Run the blocks of `model` one after the other."""
        first_BTD = x_BTD = F.rms_norm(x_BTD, x_BTD.shape[-1:])
        for layer, block in enumerate(model.blocks):
            back = len(model.blocks) - 1 - layer  # the last layer has one
            value_embedding = self.values[back // 2](tokens_BT) if back % 2 == 0 else None
            x_BTD = self.keep[layer] * x_BTD + self.first[layer] * first_BTD
            x_BTD = model.run_block(block, x_BTD, positions, layer, cache, value_embedding)
        return x_BTD


class Positions:
    """The positions of one call: their numbers, their rotary angles (Su et al. 2021), and which keys each query
    may see.
    """

    def __init__(
        self,
        cos: Tensor,
        sin: Tensor,
        length: int,
        cache: KVCache | None,
        documents_BT: Tensor | None = None,
        parents_BT: Tensor | None = None,
    ) -> None:
        """`cos` and `sin`: the tables of all positions, [context, E]; `length`: of this call, T."""
        self.visible = Visible(documents_BT, parents_BT)
        self.tables, self.length = (cos, sin), length
        self._texts: Texts | None = None
        self.apart = parents_BT is not None
        """Whether positions are numbered within their documents, as they must be behind a shared one. Else they are
        numbered in their row: only distances matter to angles.
        """
        self.mask: Tensor | None = None
        """Of cached keys, [T, S] or [B, 1, T, S]; None: causal."""
        equal = 0 if cache is None else cache.equal_length  # tokens that every row has already
        start = int(cache.lengths_B.max()) if cache is not None and equal is None else equal or 0
        end = start + length
        if documents_BT is not None and parents_BT is not None:
            self.indices = places_in_documents(documents_BT, parents_BT)
            end = int(self.indices.max()) + 1
        if end > len(cos):
            raise BadInput(
                f"{end} tokens are more than the model's context of {len(cos)}; give a shorter text"
            )
        if self.apart:
            self.cos, self.sin = cos[self.indices][:, :, None], sin[self.indices][:, :, None]  # [B, T, 1, E]
            return
        if cache is None or equal is not None:
            self.indices = torch.arange(start, end, device=cos.device)  # [T]
            self.cos, self.sin = cos[start:end, None], sin[start:end, None]  # [T, 1, E]
            if cache is not None and length > 1:
                self.mask = torch.arange(end, device=cos.device) <= self.indices[:, None]
            return
        self.indices = cache.lengths_B[:, None] + torch.arange(length, device=cos.device)  # [B, T]
        self.cos, self.sin = cos[self.indices][:, :, None], sin[self.indices][:, :, None]  # [B, T, 1, E]
        keys_S = torch.arange(end, device=cos.device)
        self.mask = (keys_S <= self.indices[:, :, None])[:, None]  # [B, 1, T, S]

    def texts(self, batch: int) -> Texts:
        """The same for `PackedAttention`, of so many rows without a cache; the layers of a model share it."""
        if self._texts is None:
            places, documents = self.indices, self.visible.documents_BT
            if documents is None:
                documents = torch.zeros((batch, self.length), dtype=torch.int32)
            places = places.expand(batch, -1).to(torch.int32).contiguous()
            cos, sin = (table.float() for table in self.tables)
            self._texts = Texts(places, documents, self.visible.parents_BT, cos, sin)
        return self._texts

    def rotate(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Turn the pairs (i, i + E/2) of [B, T, heads, E], times `weight` ([heads, E]), by their position's
        angle.
        """
        half = x.shape[-1] // 2
        cos, sin = self.cos, self.sin
        if weight is not None and self.apart:
            x = x * weight
        elif weight is not None:  # into the small tables, not into x
            cos, sin = cos * weight, sin * weight.roll(half, -1)
        return torch.addcmul(x * cos, x.roll(half, -1), sin)


def places_in_documents(documents_BT: Tensor, parents_BT: Tensor | None = None) -> Tensor:
    """How far each position is behind the first one of its document, or of the one that this continues, [B, T]."""
    indices_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    begins_BT = F.pad(documents_BT[:, 1:] != documents_BT[:, :-1], (1, 0))
    places_BT = indices_T - torch.where(begins_BT, indices_T, 0).cummax(1).values
    if parents_BT is None:
        return places_BT
    lengths = torch.zeros((len(documents_BT), int(documents_BT.max()) + 2), dtype=torch.int64)
    lengths = lengths.to(documents_BT.device).scatter_add_(1, documents_BT + 1, torch.ones_like(documents_BT))
    lengths[:, 0] = 0  # of documents that continue none
    return (places_BT + lengths.gather(1, parents_BT + 1)).where(documents_BT >= 0, 0)  # padding may be long


def rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all positions' angles, fp32, [context, head_dim] each; the first half of the sines
    is negated.
    """
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    frequencies, magnitude = shape.rope_theta**-exponents, 1.0
    match shape.rope_scaling:
        case RopeScaling() as scaling:
            turns = scaling.original_context * frequencies / (2 * math.pi)
            smooth = (
                (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
            ).clamp(0, 1)
            frequencies = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
        case LinearScaling(factor=factor):
            frequencies = frequencies / factor
        case YarnScaling() as scaling:
            frequencies, magnitude = _yarn(frequencies, scaling, shape), scaling.magnitude
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), frequencies)
    cos, sin = magnitude * angles.cos(), magnitude * angles.sin()
    return cos.repeat(1, 2).float(), torch.cat((-sin, sin), dim=1).float()


def _yarn(frequencies: Tensor, scaling: YarnScaling, shape: Shape) -> Tensor:
    """YaRN's blend of the frequencies; its ramp is linear in the dimension."""

    def dimension(turns: float) -> float:
        wavelength = scaling.original_context / (2 * math.pi * turns)
        return shape.head_dim * math.log(wavelength) / (2 * math.log(shape.rope_theta))

    low, high = dimension(scaling.fast_turns), dimension(scaling.slow_turns)
    if scaling.whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, shape.head_dim - 1)
    high += 0.001 * (low == high)
    divided = ((torch.arange(len(frequencies), dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
    return divided * frequencies / scaling.factor + (1 - divided) * frequencies


class Transformer(Trainable):
    """Tokens in, logits of the next token out."""

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.width = shape, shape.width
        self.embedding = nn.Embedding(shape.vocab_size, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width) if shape.family == "gpt2" else None
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = make_norm(shape)
        self.head = None if shape.tie_embeddings else nn.Linear(shape.width, shape.vocab_size, bias=False)
        self.skips = Skips(shape) if shape.family == "speedrun" else None
        cos, sin = rope_tables(shape)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)

    def initialize(self, seed: int) -> None:
        """Draw the weights: normal with deviation 1/sqrt(fan-in), zero for what writes into the residual
        stream.

        GPT-2's family as GPT-2: deviation 0.02, divided by sqrt(2 x layers) for what writes into the residual
        stream.
        """
        generator = torch.Generator().manual_seed(seed)
        gpt2 = self.shape.family == "gpt2"
        with torch.no_grad():
            for name, weight in self.named_parameters():
                writes = name.endswith(("attention.out.weight", "mlp.down.weight"))
                writes |= self.skips is not None and name == "head.weight"
                if name == "skips.first":
                    weight.fill_(0.1)
                elif weight.ndim < 2:
                    weight.fill_(0.0 if name.endswith("bias") else 1.0)
                elif writes and not gpt2:
                    weight.zero_()
                elif gpt2 or name.startswith(("embedding", "head")):
                    deviation = 0.02 * (2 * self.shape.layers) ** -0.5 if writes else 0.02
                    weight.normal_(0.0, deviation, generator=generator)
                else:
                    weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)

    @property
    def head_weight(self) -> Tensor:
        """The matrix that turns states into logits, [V, D]."""
        return self.embedding.weight if self.head is None else self.head.weight

    def states(
        self,
        tokens_BT: Tensor,
        cache: KVCache | None = None,
        *,
        documents_BT: Tensor | None = None,
        parents_BT: Tensor | None = None,
        embeddings_BTD: Tensor | None = None,
    ) -> Tensor:
        """Final normalised states, [B, T, D]. With a cache the tokens continue each row; see `KVCache`.

        With the numbers of documents, and without a cache, attention stays within documents, and with those of their
        parents (see `train.batches.Batch`) within both.
        `embeddings_BTD` is read instead of the tokens' embeddings.
        """
        x_BTD = self.embedding(tokens_BT) if embeddings_BTD is None else embeddings_BTD
        length = tokens_BT.shape[1]
        positions = Positions(self.rope_cos, self.rope_sin, length, cache, documents_BT, parents_BT)
        if self.positions is not None:
            places = positions.indices
            if documents_BT is not None and not positions.apart:
                places = places_in_documents(documents_BT)
            x_BTD = x_BTD + self.positions(places)
        if self.skips is not None:
            return self.norm(self.skips(x_BTD, tokens_BT, positions, cache, self))
        for layer, block in enumerate(self.blocks):
            x_BTD = self.run_block(block, x_BTD, positions, layer, cache)
        return self.norm(x_BTD)

    def run_block(self, block: nn.Module, *inputs: Any) -> Tensor:
        """The output of a block, with its activations kept or not."""
        if not self.activation_checkpointing or not torch.is_grad_enabled():
            return block(*inputs)
        seed = current_dropout_seed()

        def run(*inputs: Any) -> Tensor:
            with dropout_seed(seed):  # once more in the backward pass
                return block(*inputs)

        return checkpoint(run, *inputs, use_reentrant=False)

    @property
    def logit_cap(self) -> float | None:
        """Logits x become cap x tanh(x / cap); None: they stay."""
        return None if self.skips is None else SOFT_CAP

    def logits(self, states: Tensor) -> Tensor:
        """[.., D] to [.., V]."""
        logits, cap = F.linear(states, self.head_weight), self.logit_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def forward(
        self, tokens_BT: Tensor, cache: KVCache | None = None, documents_BT: Tensor | None = None
    ) -> Tensor:
        """Logits, [B, T, V]; the arguments are those of `states`."""
        return self.logits(self.states(tokens_BT, cache, documents_BT=documents_BT))
