"""How the next token is chosen."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of one generation."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_k: int = 0
    """Only the k likeliest tokens (0: all)."""
    top_p: float = 1.0
    """Only the fewest tokens whose probability reaches p (nucleus sampling, Holtzman et al. 2019)."""
    max_tokens: int = 128
    seed: int = 0


def distribution(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities [B, V] after temperature, top-k and top-p, in this order; fp32. Not for temperature 0."""
    logits_BV = logits_BV.float() / sampling.temperature
    if 0 < sampling.top_k < logits_BV.shape[1]:
        least = logits_BV.topk(sampling.top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least, -torch.inf)
    p_BV = torch.softmax(logits_BV, dim=-1)
    if sampling.top_p < 1.0:
        ordered, places = p_BV.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # the token that crosses p stays
        p_BV = p_BV.scatter(1, places, ordered.masked_fill(before >= sampling.top_p, 0.0))
        p_BV = p_BV / p_BV.sum(dim=-1, keepdim=True)
    return p_BV


def choose(logits_BV: Tensor, sampling: Sampling, generators: list[torch.Generator]) -> Tensor:
    """The next token of each row, [B]. Each row draws from its own generator, so a row does not depend on its batch."""
    if sampling.temperature == 0.0:
        return logits_BV.argmax(dim=-1)
    p_BV = distribution(logits_BV, sampling).cpu()
    points = torch.stack([torch.rand(1, generator=generator) for generator in generators])
    cumulative = p_BV.double().cumsum(dim=-1)
    drawn = torch.searchsorted(cumulative, points.double() * cumulative[:, -1:], right=True).squeeze(1)
    last = p_BV.shape[1] - 1 - p_BV.flip(1).ne(0).int().argmax(dim=-1)  # rounding must not choose an excluded token
    return torch.minimum(drawn, last).to(logits_BV.device)
