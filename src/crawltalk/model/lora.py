"""Low-rank adapters (LoRA; Hu et al. 2021): a frozen linear layer, and a trained product of two small matrices
beside it.

y = x W' + scale x drop(x) A' B', with a hand-written backward pass: the gradient of the frozen matrix is never
computed. Kept for it are rank numbers a position, and of the input what is kept anyway: what comes before the layer,
the product with a norm's weight or the gate of an MLP, is computed again.

Shape suffixes as in `transformer`. R is the rank, P the parts of a layer's output that other libraries have as layers
of their own (queries, keys and values), O the outputs of one part.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SEED: ContextVar[int | None] = ContextVar("dropout", default=None)
"""What the dropout of this call is drawn from; None: nothing is dropped."""


@contextmanager
def dropout_seed(seed: int | None) -> Iterator[None]:
    """Draw the dropout of all calls in this thread from a seed, so that a step that is computed again, after a crash
    or in the backward pass, drops the same. Outside of it nothing is dropped.
    """
    token = _SEED.set(seed)
    try:
        yield
    finally:
        _SEED.reset(token)


def current_dropout_seed() -> int | None:
    """The seed that calls in this thread draw from."""
    return _SEED.get()


class LoraLinear(nn.Linear):
    """A linear layer with an adapter. Its own weight and bias keep their names, and are frozen."""

    def __init__(self, linear: nn.Linear, parts: tuple[int, ...], rank: int, seed: int) -> None:
        """`parts`: the outputs of each part. The adapter is fp32, and changes nothing until it is trained."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = linear.weight.requires_grad_(False)
        self.register_parameter("bias", linear.bias)
        if linear.bias is not None:
            linear.bias.requires_grad_(False)
        self.parts, self.seed = parts, seed
        self.scale, self.dropout = 1.0, 0.0
        generator, bound = torch.Generator().manual_seed(seed), self.in_features**-0.5
        down = torch.empty(len(parts) * rank, self.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(down)  # [P x R, D]; the names are PEFT's
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank))  # [P x O, R]

    def forward(self, input: Tensor) -> Tensor:
        """[.., D] to [.., P x O]."""
        return self._adapted(input, None)

    def of_normalized(self, x: Tensor, weight: Tensor) -> Tensor:
        """self(x * weight), the product with a norm's weight computed again in the backward pass."""
        return self._adapted(x, weight)

    def of_gated(self, gate_up: Tensor) -> Tensor:
        """self(silu(gate) * up) of their concatenation, [.., 2D], computed again in the backward pass."""
        return self._adapted(gate_up, GATED)

    def _adapted(self, x: Tensor, before: "Before") -> Tensor:
        seed = _SEED.get() if self.dropout else None
        drawn = None if seed is None else (seed * 1_000_003 + self.seed) % 2**63
        small = (self.lora_A.to(x.dtype), self.lora_B.to(x.dtype))
        return AdaptedLinear.apply(
            x, before, self.weight, self.bias, *small, self.parts, self.scale, self.dropout, drawn
        )

    def factors(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The pair of matrices of each part, [R, D] and [O, R], without the scale."""
        return zip(self.lora_A.chunk(len(self.parts)), self.lora_B.split(self.parts), strict=True)


@torch.no_grad()
def merged_weight(linear: nn.Module) -> Tensor:
    """The matrix of a linear layer, [O, D]. That of one with an adapter is a copy in fp32 with the adapter added."""
    weight = linear.weight
    assert isinstance(weight, Tensor)
    if not isinstance(linear, LoraLinear):
        return weight
    whole = weight.to(torch.float32, copy=True)
    for part_OD, (down, up) in zip(whole.split(linear.parts), linear.factors(), strict=True):
        part_OD.add_(up.float() @ down.float(), alpha=linear.scale)
    return whole


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model by name, with its adapters, if it has any, added to those of their layers."""
    for name, weight in model.named_parameters():
        owner, _, attribute = name.rpartition(".")
        layer = model.get_submodule(owner)
        if not isinstance(layer, LoraLinear) or attribute == "bias":
            yield name, weight
        elif attribute == "weight":
            yield name, merged_weight(layer)


GATED: Literal["gated"] = "gated"
Before = Tensor | Literal["gated"] | None
"""What is done to the input of a layer: multiplied by a frozen norm's weight, [D]; gated; nothing."""


class AdaptedLinear(torch.autograd.Function):
    """The computation of `LoraLinear`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        before: Before,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        parts: tuple[int, ...],
        scale: float,
        dropout: float,
        seed: int | None,
    ) -> Tensor:
        """`down`: [P x R, D]; `up`: [P x O, R]; `seed`: of the dropout, None: nothing is dropped."""
        given_ND = x.flatten(0, -2)
        x_ND = _input(given_ND, before)
        h = _dropped(x_ND, dropout, seed) @ down.T  # [N, P x R]
        y = F.linear(x_ND, weight, bias)
        for h_NR, y_NO, up_OR in _of_parts(h, y, up, parts):
            y_NO.addmm_(h_NR, up_OR.T, alpha=scale)
        norm = before if isinstance(before, Tensor) else None
        ctx.save_for_backward(given_ND, norm, weight, down, up, h)
        ctx.gated, ctx.parts, ctx.scale = before == GATED if norm is None else False, parts, scale
        ctx.dropout, ctx.seed, ctx.shape = dropout, seed, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        given_ND, norm, weight, down, up, h = ctx.saved_tensors
        before: Before = GATED if ctx.gated else norm
        d_y = d_y.reshape(-1, d_y.shape[-1])
        d_h, d_up = torch.empty_like(h), torch.empty_like(up)
        for (h_NR, d_y_NO, up_OR), d_h_NR, d_up_OR in zip(
            _of_parts(h, d_y, up, ctx.parts), d_h.chunk(len(ctx.parts), 1), d_up.split(ctx.parts), strict=True
        ):
            torch.mm(d_y_NO, up_OR, out=d_h_NR).mul_(ctx.scale)
            torch.mm(d_y_NO.T, h_NR, out=d_up_OR).mul_(ctx.scale)
        d_down = d_h.T @ _dropped(_input(given_ND, before), ctx.dropout, ctx.seed)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = d_y @ weight
            if ctx.seed is None:
                d_x.addmm_(d_h, down)
            else:
                d_x += _dropped(d_h @ down, ctx.dropout, ctx.seed)
            d_x = _input_gradient(d_x, given_ND, before).view(ctx.shape)
        return d_x, None, None, None, d_down, d_up, None, None, None, None


def _input(given_ND: Tensor, before: Before) -> Tensor:
    """What the layer multiplies, of what it is given."""
    if before is None:
        return given_ND
    if isinstance(before, Tensor):
        return given_ND * before
    gate, up = given_ND.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def _input_gradient(d_x: Tensor, given_ND: Tensor, before: Before) -> Tensor:
    """The gradient of what the layer is given, from that of what it multiplies, which may be written over."""
    if before is None:
        return d_x
    if isinstance(before, Tensor):
        return d_x.mul_(before)
    gate, up = given_ND.chunk(2, dim=-1)
    d_gate_up = torch.empty_like(given_ND)
    d_gate, d_up = d_gate_up.chunk(2, dim=-1)
    torch.mul(d_x, F.silu(gate), out=d_up)
    torch.ops.aten.silu_backward.grad_input(d_x.mul_(up), gate, grad_input=d_gate)
    return d_gate_up


def _of_parts(
    h: Tensor, y: Tensor, up: Tensor, parts: tuple[int, ...]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each part its [N, R] of `h`, [N, O] of `y` and [O, R] of `up`, as views."""
    starts = accumulate(parts, initial=0)
    for h_NR, up_OR, start, size in zip(h.chunk(len(parts), 1), up.split(parts), starts, parts, strict=False):
        yield h_NR, y[:, start : start + size], up_OR


def _dropped(x: Tensor, share: float, seed: int | None) -> Tensor:
    """A share of the numbers set to zero, the same for the same seed, and the others scaled up."""
    if seed is None:
        return x
    generator = torch.Generator(x.device).manual_seed(seed)
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= share
    return x * kept.to(x.dtype).mul_(1 / (1 - share))
