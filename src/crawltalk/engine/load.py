"""Loading an engine from a folder. In int8 a gate comes with it: a model whose perplexity rises is refused."""

import math
from pathlib import Path

import torch

from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.engine.backends.cpu import Precision
from crawltalk.engine.engine import Engine, make_backend
from crawltalk.engine.sampling import Sampling
from crawltalk.model.hf import load_model

MAX_PERPLEXITY_RISE = 0.005
"""The share by which int8 may raise the perplexity."""
_ROWS, _TOKENS = 8, 64
"""Texts that the perplexity is measured on, and the tokens of each."""


def load_engine(
    folder: str | Path,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    cache_bytes: int | None = None,
) -> Engine:
    """An engine from a folder in Hugging Face's layout. Raises MissingInput or BadInput, also if the model is
    not good enough in int8.

    `cache_bytes`: the size of the key/value cache (None: an eighth of the memory, at most 1 GiB).
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    folder = Path(folder)
    model, chat = load_model(folder, device=device, dtype=dtype), ChatRenderer.load(folder)
    engine = Engine(model, chat.tokenizer, make_backend(model, precision, cache_bytes), chat)
    if precision == "int8":
        check_perplexity(Engine(model, chat.tokenizer), engine)
    return engine


def perplexity_rise(exact: Engine, quantized: Engine) -> float:
    """How far the quantized engine's perplexity is above the exact one's, as a share of it, on text that the
    exact one generates at temperature 1.

    On such text the mean logarithm of the ratio is the Kullback-Leibler divergence of the two, summed over
    all tokens that might have come: so some hundred positions are enough, and no other text is needed.
    """
    sampling = Sampling(max_tokens=min(_TOKENS, exact.context - 1))
    texts = exact.generate([[exact.tokenizer.eot]] * _ROWS, sampling, frozenset())
    divergences = []
    for text in texts:
        p_TV, q_TV = (torch.log_softmax(engine.logits(text), dim=-1) for engine in (exact, quantized))
        divergences.append((p_TV.exp() * (p_TV - q_TV)).sum(dim=-1))
    return math.expm1(float(torch.cat(divergences).mean()))


def check_perplexity(exact: Engine, quantized: Engine) -> None:
    """Raises BadInput if the perplexity in int8 rises by more than MAX_PERPLEXITY_RISE."""
    rise = perplexity_rise(exact, quantized)
    if rise > MAX_PERPLEXITY_RISE:
        raise BadInput(
            f"int8 makes this model's perplexity {rise:.1%} higher, more than {MAX_PERPLEXITY_RISE:.1%}; "
            "choose bfloat16 or float32"
        )
