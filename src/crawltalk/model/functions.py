"""Functions with a hand-written backward pass, which needs far fewer passes over memory than the one that autograd
builds.

Shape suffixes as in `transformer`. In `CausalAttention` N is B x H.
"""

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crawltalk.model.native import (
    NativeGated,
    NativeNormalize,
    computes,
    log_probabilities,
    logit_gradients_,
)

LONG = 2048
"""Longest sequence for `CausalAttention`, which keeps all attention probabilities in memory."""
QUERY_BLOCK, KEY_BLOCK = 128, 64
"""Queries whose scores are computed at once in `CausalAttention`, and keys that are left out together where none of
those sees one.
"""
LOSS_ROWS = 128
"""`LinearLoss` fills up its positions to a multiple of this, so that its products have few shapes: oneDNN
compiles code for each, and keeps it.
"""
LOSS_CHUNK, LOSS_LOGITS = 1024, 2**24
"""Positions and logits that are in memory at once in `LinearLoss`: as few as allow full matmul speed."""
LOG_PROB_CHUNK = 256
"""The same in `LinearLogProbs`."""
SOFTMAX_VALUES = 2**18
"""Logits whose softmax is computed at once: 1 MB in fp32, which stays in a core's cache between operations."""


class Normalize(torch.autograd.Function):
    """x / sqrt(mean of x squared + eps) over the last dimension: RMSNorm without its weight (Zhang and
    Sennrich 2019).

    Written by hand, because the built-in one makes many passes over fp32 copies when x is bf16: see
    EXPERIMENTS.md.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        """Of [.., D]; the mean is taken in fp32."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = (length.square() / x.shape[-1] + eps).rsqrt().to(x.dtype)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """The gradient is orthogonal to y, since scaling x does not change y."""
        y, scale = ctx.saved_tensors
        along = (d_y * y).sum(-1, keepdim=True)
        return torch.addcmul(d_y, y, along, value=-1.0 / y.shape[-1]).mul_(scale), None


def normalize(x: Tensor, eps: float) -> Tensor:
    """`Normalize` with types, as native code where there is some."""
    return NativeNormalize.apply(x, eps) if computes(x, x.shape[-1]) else Normalize.apply(x, eps)


def gated(gate_up: Tensor) -> Tensor:
    """`Gated` with types, as native code where there is some."""
    return NativeGated.apply(gate_up) if computes(gate_up, gate_up.shape[-1] // 2) else Gated.apply(gate_up)


class QueryBlock(NamedTuple):
    """Some queries of all rows, and what they see."""

    queries: slice
    keys: list[slice]
    """Without those that none of them sees."""
    mask_NTS: Tensor
    """Is added to the scores: 0, or minus infinity; [1 or B x H, queries, keys]."""


class Visible:
    """Which keys a query sees: its own and earlier ones, of all documents, or of its own and the one that this
    continues.
    """

    def __init__(self, documents_BT: Tensor | None = None, parents_BT: Tensor | None = None) -> None:
        """The numbers of each position's document and of the one that it continues, -1: none."""
        small = torch.int32  # quicker to compare
        self.documents_BT = None if documents_BT is None else documents_BT.to(small).contiguous()
        self.parents_BT = None if parents_BT is None else parents_BT.to(small).contiguous()
        self._blocks: dict[tuple[int, int, torch.dtype], list[QueryBlock]] = {}

    @cached_property
    def mask_BTT(self) -> Tensor | None:
        """[B, T, T] bool; None: all that is not later."""
        return None if self.documents_BT is None else self._seen(0, self.documents_BT.shape[1]).tril()

    def blocks(self, heads: int, length: int, dtype: torch.dtype) -> list[QueryBlock]:
        """For `CausalAttention`; the layers of a model share them."""
        if (heads, length, dtype) not in self._blocks:
            starts = [*range(0, length, QUERY_BLOCK), length]
            self._blocks[heads, length, dtype] = [
                self._block(start, stop, heads, dtype) for start, stop in pairwise(starts)
            ]
        return self._blocks[heads, length, dtype]

    def _block(self, start: int, stop: int, heads: int, dtype: torch.dtype) -> QueryBlock:
        mask = torch.full((1, stop - start, stop), -torch.inf, dtype=dtype).triu(start + 1)
        if self.documents_BT is None:
            return QueryBlock(slice(start, stop), [slice(0, stop)], mask)
        seen_BTS = self._seen(start, stop)
        mask = mask.masked_fill(~seen_BTS, -torch.inf)
        needed = F.pad(seen_BTS.any(0).any(0), (0, -stop % KEY_BLOCK)).view(-1, KEY_BLOCK).any(1).tolist()
        edges = [at for at, (left, right) in enumerate(pairwise([False, *needed, False])) if left != right]
        keys = [
            slice(first * KEY_BLOCK, min(last * KEY_BLOCK, stop))
            for first, last in zip(edges[::2], edges[1::2], strict=True)
        ]
        mask = torch.cat([mask[..., part] for part in keys], 2).repeat_interleave(heads, 0)
        return QueryBlock(slice(start, stop), keys, mask)

    def _seen(self, start: int, stop: int) -> Tensor:
        """Whether the queries from `start` to `stop` may see each key before `stop`, whatever their order."""
        assert self.documents_BT is not None
        keys = self.documents_BT[:, None, :stop]
        seen = self.documents_BT[:, start:stop, None] == keys
        if self.parents_BT is not None:
            parents = self.parents_BT[:, start:stop, None]
            seen |= (parents == keys) & (parents >= 0)
        return seen


def causal_attention(
    q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, visible: Visible | None = None
) -> Tensor:
    """[B, H, T, E]: each position attends to what is `visible`; None: to itself and all earlier ones."""
    batch, heads, length, size = q_BHTE.shape
    kv_heads = k_BKTE.shape[1]
    visible = visible or Visible()
    if q_BHTE.device.type != "cpu" or length > LONG:
        mask = None if visible.mask_BTT is None else visible.mask_BTT[:, None]
        return F.scaled_dot_product_attention(
            q_BHTE, k_BKTE, v_BKTE, attn_mask=mask, is_causal=mask is None, enable_gqa=kv_heads != heads
        )
    if kv_heads != heads:
        k_BKTE, v_BKTE = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k_BKTE, v_BKTE))
    flat = (x.reshape(batch * heads, length, size) for x in (q_BHTE, k_BKTE, v_BKTE))
    blocks = visible.blocks(heads, length, q_BHTE.dtype)
    return CausalAttention.apply(*flat, blocks).view(batch, heads, length, size)


class CausalAttention(torch.autograd.Function):
    """Softmax attention over blocks of queries, each with the keys that it needs; [N, T, E] in and out, N = B
    x H.

    Plain batched products, which on a CPU are 1.5 to 2.5 times as fast as the fused kernel: see
    EXPERIMENTS.md.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: list[QueryBlock]) -> Tensor:
        """The probabilities of each block are kept for the backward pass."""
        y, kept = torch.empty_like(v), []
        for queries, keys, mask in blocks:
            scores = torch.baddbmm(mask, q[:, queries], _parts(k, keys).mT, alpha=q.shape[2] ** -0.5)
            kept.append(torch.softmax(scores, -1))
            y[:, queries] = kept[-1] @ _parts(v, keys)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.blocks = blocks
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        q, k, v, *kept = ctx.saved_tensors
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        d_y = d_y.contiguous()
        for (queries, keys, _), p in zip(ctx.blocks, kept, strict=True):
            d_p = d_y[:, queries] @ _parts(v, keys).mT
            d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype)
            d_q[:, queries] = d_scores @ _parts(k, keys)
            sizes = [part.stop - part.start for part in keys]
            d_keys, d_values = d_scores.mT @ q[:, queries], p.mT @ d_y[:, queries]
            for part, d_key, d_value in zip(
                keys, d_keys.split(sizes, 1), d_values.split(sizes, 1), strict=True
            ):
                d_k[:, part] += d_key
                d_v[:, part] += d_value
        return d_q.mul_(q.shape[2] ** -0.5), d_k.mul_(q.shape[2] ** -0.5), d_v, None


def _parts(x: Tensor, parts: list[slice]) -> Tensor:
    """Of [N, T, E] some positions."""
    return x[:, parts[0]] if len(parts) == 1 else torch.cat([x[:, part] for part in parts], 1)


class Gated(torch.autograd.Function):
    """silu(gate) * up of their concatenation, written by hand so that no gradient is concatenated."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        """[.., 2F] to [.., F]."""
        gate, up = gate_up.chunk(2, dim=-1)
        opened = F.silu(gate)
        ctx.save_for_backward(gate_up, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> Tensor:  # type: ignore[override]
        """Both halves are written in place."""
        gate_up, opened = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        d_gate_up = torch.empty_like(gate_up)
        d_gate, d_up = d_gate_up.chunk(2, dim=-1)
        torch.mul(d_y, opened, out=d_up)
        torch.ops.aten.silu_backward.grad_input(d_y * up, gate, grad_input=d_gate)
        return d_gate_up


class LinearLoss(torch.autograd.Function):
    """Head and a loss of each target's log-probability in one: cross entropy, if `losses` is None. Forward computes
    the gradients too, so that the logits of a batch are never in memory at once.

    Softmax in fp32. The gradient is that of the summed loss; backward scales it (as in Liger Kernel, Hsu et
    al. 2024).
    """

    @staticmethod
    def forward(
        ctx: Any,
        states_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        cap: float | None,
        losses: Callable[[Tensor, slice], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(the summed loss; the log-probabilities, [N], for figures only), fp32; with `cap`, of capped logits.

        `losses` gets the log-probabilities of some targets, and which those are.
        """
        ctx.dtype, count = states_ND.dtype, len(states_ND)
        if count % LOSS_ROWS:  # states of zero have no part in the gradient of the weight
            states_ND = F.pad(states_ND, (0, 0, 0, -count % LOSS_ROWS))
            targets_N = F.pad(targets_N, (0, -count % LOSS_ROWS))
        total = torch.zeros((), dtype=torch.float32, device=states_ND.device)
        taken = torch.empty(count, dtype=torch.float32, device=states_ND.device)
        d_states = torch.empty_like(states_ND) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if weight_VD.requires_grad else None
        needed = d_states is not None or d_weight is not None
        chunk = min(LOSS_CHUNK, max(1, LOSS_LOGITS // len(weight_VD) // LOSS_ROWS) * LOSS_ROWS)
        for start in range(0, len(states_ND), chunk):
            part = slice(start, start + chunk)
            logits_NV = states_ND[part] @ weight_VD.T
            native = cap is None and computes(logits_NV, len(weight_VD))
            rows = chunk if native else max(16, SOFTMAX_VALUES // len(weight_VD))
            for first, few, labels in zip(
                range(start, start + chunk, rows),
                logits_NV.split(rows),
                targets_N[part].split(rows),
                strict=False,
            ):
                these = slice(min(first, count), min(first + len(few), count))
                log_p, rest = _log_probabilities(few, labels, cap, native)
                taken[these] = log_p[: these.stop - these.start]
                loss, slopes = _with_slopes(losses, taken[these], these)
                total += loss
                if needed:
                    d_log_p = F.pad(slopes, (0, len(few) - len(slopes)))
                    _logit_gradients_(few, labels, rest, d_log_p, native)
            if d_states is not None:
                torch.mm(logits_NV, weight_VD, out=d_states[part])  # by now the logits' gradients
            if d_weight is not None:
                d_weight += logits_NV.T @ states_ND[part]
        ctx.save_for_backward(None if d_states is None else d_states[:count], d_weight)
        ctx.mark_non_differentiable(taken)
        return total, taken

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, d_total: Tensor, _: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Scale the gradients that forward computed."""
        d_states, d_weight = ctx.saved_tensors
        if d_states is not None:
            d_states = d_states * d_total.to(d_states.dtype)
        if d_weight is not None:
            d_weight = (d_weight * d_total).to(ctx.dtype)
        return d_states, d_weight, None, None, None


def _log_probabilities(
    logits_NV: Tensor, targets_N: Tensor, cap: float | None, native: bool
) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
    """(the log-probability of each target, [N]; what `_logit_gradients_` needs)."""
    if native:
        log_p, logsums = log_probabilities(logits_NV, targets_N)
        return log_p, (logsums, None)
    capped, slope = _capped(logits_NV, cap)
    every = torch.log_softmax(capped, dim=-1, dtype=torch.float32)
    return every.gather(1, targets_N[:, None])[:, 0], (every, slope)


def _logit_gradients_(
    logits_NV: Tensor, targets_N: Tensor, rest: tuple[Tensor, Tensor | None], d_log_p_N: Tensor, native: bool
) -> None:
    """Turn logits into the gradient of a loss by them; what `_log_probabilities` gave may be written over."""
    given, slope = rest
    if native:
        logit_gradients_(logits_NV, targets_N, given, d_log_p_N)
        return
    p = given.exp_()
    p.scatter_add_(1, targets_N[:, None], p.new_full((len(p), 1), -1.0)).mul_(-d_log_p_N[:, None])
    logits_NV.copy_(p if slope is None else p.mul_(slope))


def _with_slopes(
    losses: Callable[[Tensor, slice], Tensor] | None, log_p: Tensor, these: slice
) -> tuple[Tensor, Tensor]:
    """The sum of the losses, and its gradient by the log-probabilities."""
    if losses is None:
        return -log_p.sum(), torch.full_like(log_p, -1.0)
    with torch.enable_grad():
        log_p = log_p.detach().requires_grad_()
        total = losses(log_p, these).sum()
        return total.detach(), torch.autograd.grad(total, log_p)[0]


class LinearLogProbs(torch.autograd.Function):
    """Head and log-probability of each target, for losses that need them one by one. The logits are computed again in
    the backward pass, so those of a batch are never in memory at once.
    """

    @staticmethod
    def forward(
        ctx: Any, states_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float | None
    ) -> Tensor:
        """[N], fp32; with `cap`, of capped logits."""
        log_p = torch.empty(len(states_ND), dtype=torch.float32, device=states_ND.device)
        for part in _slices(len(states_ND), LOG_PROB_CHUNK):
            logits_NV = states_ND[part] @ weight_VD.T
            for few in _slices(len(logits_NV), max(16, SOFTMAX_VALUES // len(weight_VD))):
                logits = _capped(logits_NV[few], cap)[0]
                every = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
                log_p[part][few] = every.gather(1, targets_N[part][few, None])[:, 0]
        ctx.save_for_backward(states_ND, weight_VD, targets_N)
        ctx.cap = cap
        return log_p

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, d_log_p: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        """d log p(target) / d logits is one at the target, less the probabilities."""
        states_ND, weight_VD, targets_N = ctx.saved_tensors
        learns_states, learns_weight = ctx.needs_input_grad[:2]
        d_states = torch.empty_like(states_ND) if learns_states else None
        d_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if learns_weight else None
        for part in _slices(len(states_ND), LOG_PROB_CHUNK):
            logits_NV = states_ND[part] @ weight_VD.T
            for few in _slices(len(logits_NV), max(16, SOFTMAX_VALUES // len(weight_VD))):
                logits, slope = _capped(logits_NV[few], ctx.cap)
                p = torch.softmax(logits, dim=-1, dtype=torch.float32)
                targets = targets_N[part][few, None]
                p.scatter_add_(1, targets, p.new_full(targets.shape, -1.0)).mul_(-d_log_p[part][few, None])
                logits_NV[few] = p if slope is None else p.mul_(slope)
            if d_states is not None:
                torch.mm(logits_NV, weight_VD, out=d_states[part])
            if d_weight is not None:
                d_weight += logits_NV.T @ states_ND[part]
        return d_states, None if d_weight is None else d_weight.to(weight_VD.dtype), None, None


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _capped(logits: Tensor, cap: float | None) -> tuple[Tensor, Tensor | None]:
    """Logits, and their slope where they are capped."""
    if cap is None:
        return logits, None
    bent = torch.tanh(logits.float() / cap)
    return cap * bent, 1 - bent.square()
