"""New weights in a running engine."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch

from crawltalk.core.errors import BadInput
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.backends.torch import TorchBackend
from crawltalk.model.cache import BLOCK_SIZE
from crawltalk.model.transformer import Transformer
from support.engines import BACKENDS, MODEL, NEVER, SHAPE, TOKENIZER
from support.models import GPT2, LLAMA, QWEN, SPEEDRUN, random_model

SAME_BITS = BACKENDS | {"torch": partial(TorchBackend, batch_invariant=True)}
"""Backends whose results do not depend on the batch, nor on what is cached."""
GREEDY = Sampling(temperature=0.0, max_tokens=8, logprobs=0)
PROMPTS = [[7] * 35, [7] * 33 + [3, 4], [1, 2]]
SIZES = {
    "width": 32,
    "heads": 2,
    "head_dim": 16,
    "mlp": 48,
    "context": 48,
    "vocab_size": TOKENIZER.vocab_size,
}


def replies(engine: Engine) -> list[list[tuple[int, float | None]]]:
    """Tokens and log-probabilities of each prompt's reply."""
    results = []
    for prompt in PROMPTS:
        outputs = engine.run([engine.request(prompt, GREEDY, NEVER)])
        results.append([(token.id, token.logprob) for output in outputs for token in output.tokens])
    return results


def engine_of(model: Transformer, backend: str) -> Engine:
    return Engine(model, TOKENIZER, SAME_BITS[backend](model))


@pytest.mark.parametrize(
    ("family", "backend"),
    [(family, backend) for family in (QWEN, LLAMA, GPT2) for backend in BACKENDS] + [(SPEEDRUN, "torch")],
    ids=lambda one: one if isinstance(one, str) else one.family,
)
def test_an_updated_engine_is_a_new_one_and_finds_no_prefix_of_the_old_weights(family, backend):
    shape = replace(family, **SIZES, kv_heads=2 if family is GPT2 else 1)
    old, new = random_model(shape, 1), random_model(shape, 2)
    engine = engine_of(old, backend)
    before = replies(engine)
    cached = engine.scheduler.counts["cached_tokens"]
    assert cached == 2 * BLOCK_SIZE
    engine.update_weights(new)
    after = replies(engine)
    assert engine.scheduler.counts["cached_tokens"] == 2 * cached
    assert after == replies(engine_of(new, backend)) != before
    engine.update_weights(old)
    assert replies(engine) == before
    assert all(map(torch.equal, old.parameters(), random_model(shape, 1).parameters()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_trains_on_changes_no_engine_before_the_update(backend):
    model = copy.deepcopy(MODEL)
    engine = engine_of(model, backend)
    before = replies(engine)
    for _ in range(2):
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.5)
        assert replies(engine) == before
        engine.update_weights(model)
        before = replies(engine)
        assert before == replies(engine_of(model, backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_that_runs_goes_on_under_the_new_weights_after_the_tokens_it_has(backend):
    old, new = random_model(SHAPE, 1), random_model(SHAPE, 2)
    engine = engine_of(old, backend)
    request = engine.request([7] * 20, Sampling(temperature=0.0, max_tokens=12), NEVER)
    engine.scheduler.add(request)
    tokens = [token.id for _ in range(5) for output in engine.scheduler.step() for token in output.tokens]
    engine.update_weights(new)
    assert engine.scheduler.pool.num_used == 0
    while engine.scheduler.busy:
        tokens += [token.id for output in engine.scheduler.step() for token in output.tokens]
    rest = Sampling(temperature=0.0, max_tokens=7)
    assert tokens[5:] == engine_of(new, backend).generate([[7] * 20 + tokens[:5]], rest, NEVER)[0]
    assert tokens[:5] == engine_of(old, backend).generate([[7] * 20], rest, NEVER)[0][:5]


def test_weights_of_another_shape_are_refused():
    engine = Engine(MODEL, TOKENIZER)
    before = replies(engine)
    with pytest.raises(BadInput, match=r"another shape \(layers 1, not 2\): make a new engine"):
        engine.update_weights(random_model(replace(SHAPE, layers=1)))
    assert replies(engine) == before
