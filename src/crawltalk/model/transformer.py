"""A decoder-only Transformer of Qwen3's family (RMSNorm, RoPE, QK-norm, SwiGLU), Llama's, GPT-2's, or `speedrun`'s.

The last one is what the fastest reproductions of GPT-2 use (Jordan et al. 2024, modded-nanogpt; Karpathy 2025, nanochat): Qwen3's
attention with value embeddings, squared ReLU, every layer's input mixed with the first one's, logits capped. No other
library computes it.

Shape suffixes: B batch, T positions in this call, S positions in the cache, D width, H query heads, K key/value heads,
E head_dim, F inner size of the MLP, V vocabulary, N = B x T.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crawltalk.core.budget import value_embeddings
from crawltalk.core.errors import BadInput
from crawltalk.model.cache import KVCache
from crawltalk.model.shape import Shape

IGNORED = -100
"""A target that the loss does not count."""
LONG = 2048
"""Beyond so many positions the probabilities of attention, which `CausalAttention` keeps, are too much for a CPU's memory."""
QUERIES = 128
"""Positions whose scores exist at once in `CausalAttention`; they see no key behind them, so half of the products are spared."""
LOSS_CHUNK = 1024
"""Positions whose logits exist at once in `loss`: bounds memory at LOSS_CHUNK x V, large enough for full matmul speed."""
SOFT_CAP = 15.0
"""Of `speedrun`: logits x become cap x tanh(x / cap)."""
SOFTMAX_VALUES = 2**18
"""Logits whose softmax is taken at once: 1 MB in fp32, which stays in a core's cache from one operation to the next."""


class Normalize(torch.autograd.Function):
    """x / sqrt(mean of x squared + eps) over the last dimension: RMSNorm without its weight (Zhang and Sennrich 2019).

    By hand, as the built-in one is put together from many passes over fp32 copies when x is bf16: see EXPERIMENTS.md.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        """The mean is taken in fp32."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = (length.square() / x.shape[-1] + eps).rsqrt().to(x.dtype)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Orthogonal to y: a longer x gives no longer y."""
        y, scale = ctx.saved_tensors
        along = (d_y * y).sum(-1, keepdim=True)
        return torch.addcmul(d_y, y, along, value=-1.0 / y.shape[-1]).mul_(scale), None


def normalize(x: Tensor, eps: float) -> Tensor:
    """`Normalize`, typed."""
    return Normalize.apply(x, eps)


class RMSNorm(nn.Module):
    """Each position to length sqrt(D), times a weight per dimension."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return normalize(x_BTD, self.eps) * self.weight


def linear_of_norm(linear: nn.Linear, norm: nn.Module, x_BTD: Tensor) -> Tensor:
    """linear(norm(x)). The norm's weight multiplies the matrix instead, where that has fewer numbers."""
    if isinstance(norm, RMSNorm) and x_BTD.numel() > linear.weight.numel():
        return F.linear(normalize(x_BTD, norm.eps), linear.weight * norm.weight, linear.bias)
    return linear(norm(x_BTD))


def make_norm(shape: Shape) -> nn.Module:
    """The norm of a family (LayerNorm: Ba et al. 2016)."""
    return nn.LayerNorm(shape.width, shape.norm_eps) if shape.family == "gpt2" else RMSNorm(shape.width, shape.norm_eps)


class Attention(nn.Module):
    """Causal self-attention with grouped queries (Ainslie et al. 2023); Qwen3's shape normalises queries and keys."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.eps = shape.heads, shape.kv_heads, shape.head_dim, shape.norm_eps
        self.rotary = shape.family != "gpt2"
        self.qkv = nn.Linear(shape.width, (shape.heads + 2 * shape.kv_heads) * shape.head_dim, bias=shape.biases)
        self.out = nn.Linear(shape.heads * shape.head_dim, shape.width, bias=shape.biases)
        self.q_norm = nn.Parameter(torch.ones(shape.head_dim)) if shape.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(shape.head_dim)) if shape.qk_norm else None

    def forward(
        self, x_BTD: Tensor, norm: nn.Module, places: "Places", layer: int, cache: KVCache | None, more: Tensor | None
    ) -> Tensor:
        """Mix positions. `more`, [B, T, K x E], is added to the values."""
        batch, steps, _ = x_BTD.shape
        qkv = linear_of_norm(self.qkv, norm, x_BTD).view(batch, steps, -1, self.head_dim)
        rotated = self.heads + self.kv_heads  # queries and keys are normalised and rotated in one go
        qk, v_BTKE = qkv.split((rotated, self.kv_heads), dim=2)  # split, not slices: its backward is one concatenation
        v_BTKE = v_BTKE if more is None else v_BTKE + more.view_as(v_BTKE)
        if self.q_norm is not None and self.k_norm is not None:
            weight = torch.cat((self.q_norm.expand(self.heads, -1), self.k_norm.expand(self.kv_heads, -1)))
            qk = places.rotate(normalize(qk, self.eps), weight)
        elif self.rotary:
            qk = places.rotate(qk)
        q_BTHE, k_BTKE = qk.split((self.heads, self.kv_heads), dim=2)
        q_BHTE, k_BKTE, v_BKTE = q_BTHE.transpose(1, 2), k_BTKE.transpose(1, 2), v_BTKE.transpose(1, 2)
        if cache is None:
            y_BHTE = causal_attention(q_BHTE, k_BKTE, v_BKTE, places.documents_BT)
        else:
            keys, values = cache.put(layer, k_BKTE, v_BKTE)
            y_BHTE = F.scaled_dot_product_attention(
                q_BHTE, keys, values, attn_mask=places.mask, enable_gqa=self.heads != self.kv_heads
            )
        return self.out(y_BHTE.transpose(1, 2).reshape(batch, steps, -1))


def causal_attention(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, documents_BT: Tensor | None = None) -> Tensor:
    """Each position attends to itself and what is before it; with the numbers of documents, within its own only."""
    batch, heads, steps, size = q_BHTE.shape
    kv_heads = k_BKTE.shape[1]
    if q_BHTE.device.type != "cpu" or steps > LONG:
        if documents_BT is None:
            return F.scaled_dot_product_attention(q_BHTE, k_BKTE, v_BKTE, is_causal=True, enable_gqa=kv_heads != heads)
        mask = (documents_BT[:, None, :, None] == documents_BT[:, None, None]).tril()
        return F.scaled_dot_product_attention(q_BHTE, k_BKTE, v_BKTE, attn_mask=mask, enable_gqa=kv_heads != heads)
    if kv_heads != heads:
        k_BKTE, v_BKTE = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k_BKTE, v_BKTE))
    flat = (x.reshape(batch * heads, steps, size) for x in (q_BHTE, k_BKTE, v_BKTE))
    return CausalAttention.apply(*flat, documents_BT).view(batch, heads, steps, size)


class CausalAttention(torch.autograd.Function):
    """Softmax attention over blocks of queries, each with the keys up to its end; [N, T, E] in and out, N = B x H.

    Plain batched products, which on a CPU are 1.5 to 2.5 times as fast as the fused kernel: see EXPERIMENTS.md.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, documents_BT: Tensor | None) -> Tensor:
        """The probabilities of each block are kept for the way back."""
        steps, size = q.shape[1:]
        y, kept = torch.empty_like(v), []
        for start in range(0, steps, QUERIES):
            stop = min(start + QUERIES, steps)
            mask = torch.full((stop - start, stop), -torch.inf, dtype=q.dtype).triu(start + 1)
            scores = torch.baddbmm(mask, q[:, start:stop], k[:, :stop].mT, alpha=size**-0.5)
            if documents_BT is not None:
                others = documents_BT[:, start:stop, None] != documents_BT[:, None, :stop]
                scores.unflatten(0, (len(others), -1)).masked_fill_(others[:, None], -torch.inf)
            kept.append(torch.softmax(scores, -1))
            y[:, start:stop] = kept[-1] @ v[:, :stop]
        ctx.save_for_backward(q, k, v, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        """Gradients of queries, keys and values."""
        q, k, v, *kept = ctx.saved_tensors
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        d_y, start = d_y.contiguous(), 0
        for p in kept:
            stop = p.shape[2]
            d_p = d_y[:, start:stop] @ v[:, :stop].mT
            d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype)
            d_v[:, :stop] += p.mT @ d_y[:, start:stop]
            d_q[:, start:stop] = d_scores @ k[:, :stop]
            d_k[:, :stop] += d_scores.mT @ q[:, start:stop]
            start = stop
        return d_q.mul_(q.shape[2] ** -0.5), d_k.mul_(q.shape[2] ** -0.5), d_v, None


class SwiGLU(nn.Module):
    """The gated inner layer (Shazeer 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_up = nn.Linear(shape.width, 2 * shape.mlp, bias=False)
        self.down = nn.Linear(shape.mlp, shape.width, bias=False)

    def forward(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        """Think at each position."""
        return self.down(Gated.apply(linear_of_norm(self.gate_up, norm, x_BTD)))


class Gated(torch.autograd.Function):
    """silu(gate) * up of their concatenation: by hand, so that no gradient is concatenated."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        """Of [.., 2F], [.., F]."""
        gate, up = gate_up.chunk(2, dim=-1)
        opened = F.silu(gate)
        ctx.save_for_backward(gate_up, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> Tensor:  # type: ignore[override]
        """Both halves are written in their place."""
        gate_up, opened = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        d_gate_up = torch.empty_like(gate_up)
        d_gate, d_up = d_gate_up.chunk(2, dim=-1)
        torch.mul(d_y, opened, out=d_up)
        torch.ops.aten.silu_backward.grad_input(d_y * up, gate, grad_input=d_gate)
        return d_gate_up


class GELU(nn.Module):
    """The inner layer of GPT-2 (Radford et al. 2019; Hendrycks and Gimpel 2016, section 2: the approximation by tanh)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, shape.mlp)
        self.down = nn.Linear(shape.mlp, shape.width)

    def forward(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        """Think at each position."""
        return self.down(F.gelu(linear_of_norm(self.up, norm, x_BTD), approximate="tanh"))


class SquaredReLU(nn.Module):
    """The inner layer of `speedrun` (So et al. 2021, Primer)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, shape.mlp, bias=False)
        self.down = nn.Linear(shape.mlp, shape.width, bias=False)

    def forward(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        """Think at each position."""
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
        self, x_BTD: Tensor, places: "Places", layer: int, cache: KVCache | None, more: Tensor | None = None
    ) -> Tensor:
        """One layer."""
        x_BTD = x_BTD + self.attention(x_BTD, self.attention_norm, places, layer, cache, more)
        return x_BTD + self.mlp(x_BTD, self.mlp_norm)


class Skips(nn.Module):
    """What `speedrun` adds around the blocks: the first input mixed into every layer's, and value embeddings in every second layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.keep, self.first = nn.Parameter(torch.ones(shape.layers)), nn.Parameter(torch.full((shape.layers,), 0.1))
        """Shares of the last layer's output and of the first layer's input."""
        size = shape.kv_heads * shape.head_dim
        self.values = nn.ModuleList(nn.Embedding(shape.vocab_size, size) for _ in range(value_embeddings(shape.layers)))

    def forward(
        self, x_BTD: Tensor, tokens_BT: Tensor, places: "Places", cache: KVCache | None, model: "Transformer"
    ) -> Tensor:
        """All layers of `model`."""
        first_BTD = x_BTD = F.rms_norm(x_BTD, x_BTD.shape[-1:])
        for layer, block in enumerate(model.blocks):
            back = len(model.blocks) - 1 - layer  # the last layer has one
            more = self.values[back // 2](tokens_BT) if back % 2 == 0 else None
            x_BTD = self.keep[layer] * x_BTD + self.first[layer] * first_BTD
            x_BTD = model.run(block, x_BTD, places, layer, cache, more)
        return x_BTD


class Places:
    """The positions of one call: where they are, their rotary angles (Su et al. 2021), and which cached keys each query may see."""

    def __init__(self, cos: Tensor, sin: Tensor, steps: int, cache: KVCache | None) -> None:
        self.mask: Tensor | None = None
        self.documents_BT: Tensor | None = None
        equal = cache is None or cache.equal_length is not None
        start = 0 if cache is None else cache.equal_length or 0 if equal else int(cache.lengths_B.max())
        if start + steps > len(cos):
            raise BadInput(f"{start + steps} tokens are more than the model's context of {len(cos)}; give a shorter text")
        if cache is None or cache.equal_length is not None:
            self.places = torch.arange(start, start + steps, device=cos.device)  # [T]
            self.cos, self.sin = cos[start : start + steps, None], sin[start : start + steps, None]  # [T, 1, E]
            if cache is not None and steps > 1:
                self.mask = torch.arange(start + steps, device=cos.device) <= self.places[:, None]
            return
        self.places = cache.lengths_B[:, None] + torch.arange(steps, device=cos.device)  # [B, T]
        self.cos, self.sin = cos[self.places][:, :, None], sin[self.places][:, :, None]  # [B, T, 1, E]
        places_S = torch.arange(start + steps, device=cos.device)
        self.mask = (places_S <= self.places[:, :, None])[:, None]  # [B, 1, T, S]

    def rotate(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Turn the pairs (i, i + E/2) of [B, T, heads, E], times `weight` ([heads, E]), by their position's angle."""
        half = x.shape[-1] // 2
        cos, sin = self.cos, self.sin
        if weight is not None:  # into the small tables, not into x
            cos, sin = cos * weight, sin * weight.roll(half, -1)
        return torch.addcmul(x * cos, x.roll(half, -1), sin)


def rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all positions' angles, fp32, [context, head_dim] each; the first half of the sines is negated."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    frequencies = shape.rope_theta**-exponents
    if shape.rope_scaling is not None:
        scaling = shape.rope_scaling
        turns = scaling.original_context * frequencies / (2 * math.pi)
        smooth = ((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)).clamp(0, 1)
        frequencies = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), frequencies)
    return angles.cos().repeat(1, 2).float(), torch.cat((-angles.sin(), angles.sin()), dim=1).float()


class Transformer(nn.Module):
    """Tokens in, logits of the next token out."""

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width) if shape.family == "gpt2" else None
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = make_norm(shape)
        self.head = None if shape.tie_embeddings else nn.Linear(shape.width, shape.vocab_size, bias=False)
        self.skips = Skips(shape) if shape.family == "speedrun" else None
        self.begins: int | None = None
        """The token that begins a document, if attention in training is to stay within documents."""
        self.recompute = False
        """Whether activations are computed again on the way back (Chen et al. 2016)."""
        cos, sin = rope_tables(shape)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)

    def initialize(self, seed: int) -> None:
        """Draw the weights: normal with deviation 1/sqrt(fan-in), zero for what writes into the residual stream.

        GPT-2's family as GPT-2: deviation 0.02, divided by sqrt(2 x layers) for what writes into the residual stream.
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

    def states(self, tokens_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Final normalised states, [B, T, D]."""
        x_BTD = self.embedding(tokens_BT)
        places = Places(self.rope_cos, self.rope_sin, tokens_BT.shape[1], cache)
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(places.places)
        if self.begins is not None and cache is None:
            places.documents_BT = (tokens_BT == self.begins).cumsum(1)
        if self.skips is not None:
            return self.norm(self.skips(x_BTD, tokens_BT, places, cache, self))
        for layer, block in enumerate(self.blocks):
            x_BTD = self.run(block, x_BTD, places, layer, cache)
        return self.norm(x_BTD)

    def run(self, block: nn.Module, *inputs: Any) -> Tensor:
        """One block."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    @property
    def cap(self) -> float | None:
        """Of the logits."""
        return None if self.skips is None else SOFT_CAP

    def logits(self, states: Tensor) -> Tensor:
        """Of final states, [.., D] to [.., V]."""
        logits = F.linear(states, self.head_weight)
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def forward(self, tokens_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits [B, T, V]. With a cache the tokens continue each row; see `KVCache`."""
        return self.logits(self.states(tokens_BT, cache))

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy in nats, summed over the targets that are not IGNORED, and how many those are."""
        states_ND = self.states(tokens_BT).flatten(0, 1)
        targets_N = targets_BT.flatten()
        counted = targets_N != IGNORED
        if not bool(counted.all()):  # the head is a large part of a small model: spare it what is not counted
            states_ND, targets_N = states_ND[counted], targets_N[counted]
        total: Tensor = LinearCrossEntropy.apply(states_ND, self.head_weight, targets_N, self.cap)
        return total, counted.sum()


class LinearCrossEntropy(torch.autograd.Function):
    """Head and cross entropy in one, gradients computed on the way: the logits of a batch never exist at once.

    Softmax in fp32. The gradient is that of the summed loss; backward scales it (as in Liger Kernel, Hsu et al. 2024).
    """

    @staticmethod
    def forward(ctx: Any, states_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float | None) -> Tensor:
        """The summed loss, fp32; with `cap`, of capped logits."""
        total = torch.zeros((), dtype=torch.float32, device=states_ND.device)
        needed = states_ND.requires_grad or weight_VD.requires_grad
        d_states = torch.empty_like(states_ND) if needed else None
        d_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if needed else None
        rows = max(16, SOFTMAX_VALUES // len(weight_VD))
        for start in range(0, len(states_ND), LOSS_CHUNK):
            part = slice(start, start + LOSS_CHUNK)
            logits_NV = states_ND[part] @ weight_VD.T
            targets = targets_N[part, None]
            for few, wanted in zip(logits_NV.split(rows), targets.split(rows), strict=True):
                bent = None if cap is None else torch.tanh(few.float() / cap)
                log_p = torch.log_softmax(few if bent is None else (cap or 1.0) * bent, dim=-1, dtype=torch.float32)
                total -= log_p.gather(1, wanted).sum()
                if needed:
                    p = log_p.exp_()
                    p.scatter_add_(1, wanted, p.new_full(wanted.shape, -1.0))
                    few.copy_(p if bent is None else p.mul_(1 - bent.square()))
            if d_states is not None and d_weight is not None:
                torch.mm(logits_NV, weight_VD, out=d_states[part])  # by now the logits' gradients
                d_weight += logits_NV.T @ states_ND[part]
        ctx.save_for_backward(d_states, d_weight)
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        """Scale the gradients that forward computed."""
        d_states, d_weight = ctx.saved_tensors
        return d_states * d_total.to(d_states.dtype), (d_weight * d_total).to(d_states.dtype), None, None
