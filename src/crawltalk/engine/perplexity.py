"""Whether a coarser precision is good enough: the perplexity of text under it, against that under float32."""

import math

import torch

from crawltalk.core.errors import BadInput
from crawltalk.engine.engine import Engine
from crawltalk.engine.sampling import Sampling

MOST = 0.005
"""The share by which perplexity may rise."""
ROWS, TOKENS = 8, 64


def rise(exact: Engine, coarse: Engine) -> float:
    """By what share the coarse engine's perplexity is above the exact one's, on text that the exact one says
    at temperature 1.

    On such text the mean logarithm of the ratio is the Kullback-Leibler divergence of the two, summed over
    all tokens that might have come: so some hundred places are enough, and no other text is needed.
    """
    texts = exact.generate(
        [[exact.tokenizer.eot]] * ROWS, Sampling(max_tokens=min(TOKENS, exact.context - 1)), frozenset()
    )
    found = []
    for text in texts:
        p_TV, q_TV = (
            torch.log_softmax(e.scheduler.read(text, e.backend.forward), dim=-1) for e in (exact, coarse)
        )
        found.append((p_TV.exp() * (p_TV - q_TV)).sum(dim=-1))
    return math.expm1(float(torch.cat(found).mean()))


def check(exact: Engine, coarse: Engine, precision: str) -> None:
    """Raise BadInput if the coarse engine is not good enough."""
    found = rise(exact, coarse)
    if found > MOST:
        raise BadInput(
            f"{precision} makes this model's perplexity {found:.1%} higher, more than {MOST:.1%}; choose bfloat16 or float32"
        )
