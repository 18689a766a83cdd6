"""How the next token is chosen: `apply_penalties` changes logits, `distribution` makes probabilities of them,
`sample` draws.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from crawltalk.core.errors import BadInput

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_k": (0, 2**31),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "max_tokens": (0, 2**31),
    "seed": (-(2**63), 2**64),
    "logprobs": (0, 1000),
}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of one generation. Raises BadInput for a value out of range."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_k: int = 0
    """Only the k likeliest tokens (0: all)."""
    top_p: float = 1.0
    """Only the fewest tokens whose probability reaches p (nucleus sampling, Holtzman et al. 2019)."""
    min_p: float = 0.0
    """Only tokens of at least this share of the likeliest one's probability (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens that occur in prompt or reply (Keskar et al.
    2019, section 4.1).
    """
    presence_penalty: float = 0.0
    """Subtracted from the logit of a token that occurs in the reply."""
    frequency_penalty: float = 0.0
    """Subtracted from the logit of a token for each time that it occurs in the reply."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id -> the number that is added to its logit."""
    max_tokens: int = 128
    whole: bool = False
    """Whether a reply that obeys a schema has to end within `max_tokens`: close to that limit it takes a short way."""
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Strings that end a reply and are no part of it."""
    logprobs: int | None = None
    """k: also compute the log-probability of each generated token and of the k likeliest at its position.
    None: compute none.
    """
    schema: str | None = None
    """A JSON schema, as JSON text, that the reply obeys; "{}": any JSON value."""

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise BadInput(f"{name} is {value}; it must be between {least:g} and {most:g}")
        if self.top_p == 0.0 or "" in self.stop:
            raise BadInput(
                "top_p must be above 0" if self.top_p == 0.0 else "a stop string must not be empty"
            )

    @cached_property
    def filters(self) -> tuple[float, int, float, float]:
        """The settings that decide the distribution, given the logits."""
        return self.temperature, self.top_k, self.top_p, self.min_p

    @cached_property
    def has_penalties(self) -> bool:
        """Whether `apply_penalties` changes anything."""
        penalties = (
            self.repetition_penalty != 1.0,
            self.presence_penalty,
            self.frequency_penalty,
            self.logit_bias,
        )
        return any(penalties)


def uniform(seed: int, row: int, position: int) -> float:
    """A number of [0, 1) that depends on nothing but its arguments, so that a draw does not depend on the
    batch.

    SplitMix64 (Steele et al. 2014) over the three.
    """
    mixed = 0
    for part in (seed, row, position):
        mixed = (mixed + part + 0x9E3779B97F4A7C15) % 2**64
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
        mixed ^= mixed >> 31
    return (mixed >> 11) * 2.0**-53


def apply_penalties(
    logits_V: Tensor, sampling: Sampling, prompt: Sequence[int], generated: Sequence[int]
) -> None:
    """Apply penalties and biases to the logits, in place."""
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*prompt, *generated}), device=logits_V.device)
        logits, penalty = logits_V[seen], sampling.repetition_penalty
        logits_V[seen] = torch.where(logits > 0, logits / penalty, logits * penalty)
    if generated and (sampling.presence_penalty or sampling.frequency_penalty):
        counts = Counter(generated)
        penalties = [
            sampling.presence_penalty + sampling.frequency_penalty * count for count in counts.values()
        ]
        logits_V[list(counts)] -= torch.tensor(penalties, device=logits_V.device)
    if sampling.logit_bias:
        logits_V[list(sampling.logit_bias)] += torch.tensor(
            list(sampling.logit_bias.values()), device=logits_V.device
        )


def distribution(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities [B, V] after temperature, top-k, top-p and min-p, in this order; fp32. Not for
    temperature 0.
    """
    logits_BV = logits_BV.float() / sampling.temperature
    if 0 < sampling.top_k < logits_BV.shape[1]:
        least = logits_BV.topk(sampling.top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least, -torch.inf)
    p_BV = torch.softmax(logits_BV, dim=-1)
    if sampling.top_p < 1.0:
        ordered, indices = p_BV.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # the token that crosses p stays
        p_BV = p_BV.scatter(1, indices, ordered.masked_fill(before >= sampling.top_p, 0.0))
    if sampling.min_p > 0.0:
        p_BV = p_BV.masked_fill(p_BV < sampling.min_p * p_BV.amax(dim=-1, keepdim=True), 0.0)
    return p_BV / p_BV.sum(dim=-1, keepdim=True)


def sample(logits_BV: Tensor, sampling: Sampling, draws: Sequence[float]) -> Tensor:
    """The next token of each row, [B]: the one in whose share of the distribution the row's draw of [0, 1)
    falls.
    """
    if sampling.temperature == 0.0:
        return logits_BV.argmax(dim=-1)
    p_BV = distribution(logits_BV, sampling)
    cumulative = p_BV.double().cumsum(dim=-1)
    targets = torch.tensor(draws, dtype=torch.float64, device=p_BV.device)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, targets, right=True).squeeze(1)
    # rounding must not lead to an excluded token
    last = p_BV.shape[1] - 1 - p_BV.flip(1).ne(0).int().argmax(dim=-1)
    return torch.minimum(tokens, last)
