"""Whether a coarser precision is good enough: the perplexity of text under it, against that under float32."""

import math

from crawltalk.core.errors import BadInput
from crawltalk.engine.engine import Engine
from crawltalk.engine.sampling import Sampling

MOST = 0.005
"""The share by which perplexity may rise."""
ROWS, TOKENS = 8, 64


def rise(exact: Engine, coarse: Engine) -> float:
    """By what share the coarse engine's perplexity is above the exact one's, on text that the exact one says at temperature 1.

    Of such text the logarithm of the ratio is the Kullback-Leibler divergence of the two, so that no other text is needed.
    """
    start = [exact.tokenizer.eot]
    texts = exact.generate([start] * ROWS, Sampling(max_tokens=min(TOKENS, exact.context - 1)), frozenset())
    said = [
        (math.log(a), math.log(b))
        for text in texts
        for a, b in zip(exact.probabilities(start, text), coarse.probabilities(start, text), strict=True)
    ]
    return math.expm1(sum(a - b for a, b in said) / max(1, len(said)))


def check(exact: Engine, coarse: Engine, precision: str) -> None:
    """Raise BadInput if the coarse engine is not good enough."""
    found = rise(exact, coarse)
    if found > MOST:
        raise BadInput(
            f"{precision} makes this model's perplexity {found:.1%} higher, more than {MOST:.1%}; choose bfloat16 or float32"
        )
