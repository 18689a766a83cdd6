"""Many tokens of a sequence at once, and what the samples of a prompt share."""

import pytest
import torch

from crawltalk.engine import Engine, Sampling
from crawltalk.model.adapters import add_adapters, merged
from crawltalk.model.cache import BLOCK_SIZE
from crawltalk.recipe import Lora
from support.engines import BACKENDS, MODEL, NEVER, SHAPE, TOKENIZER
from support.models import QWEN, random_model

PROMPTS = [[7] * 20, [*range(35)], [1, 2], [9] * 17]
SETTINGS = [
    Sampling(max_tokens=20, seed=3, logprobs=0),
    Sampling(temperature=0.0, max_tokens=7),
    Sampling(temperature=0.7, top_k=20, top_p=0.9, max_tokens=40, seed=-4, logprobs=0),
    Sampling(max_tokens=11, logprobs=2),
]


def replies(engine, most, settings, stop_ids=NEVER, samples=3):
    """Of each sample the ids, log-probabilities, text, why it ended, and the stop token."""
    requests = [
        engine.request(prompt, sampling, stop_ids, row=10 * row, samples=samples)
        for row, (prompt, sampling) in enumerate(zip(PROMPTS, settings, strict=True))
    ]
    numbers = {request.id: number for number, request in enumerate(requests)}
    found = {}
    for output in engine.run(requests, most):
        tokens, text, *_ = found.get((numbers[output.request.id], output.index), ((), ""))
        last = output.stop_token and (output.stop_token.id, output.stop_token.logprob)
        tokens += tuple((token.id, token.logprob) for token in output.tokens)
        found[numbers[output.request.id], output.index] = (
            tokens,
            text + output.text,
            output.finish_reason,
            last,
        )
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stop_ids", [NEVER, frozenset(range(100, 130))], ids=["no stop", "stop"])
def test_tokens_in_bundles_are_those_that_come_one_by_one(backend, stop_ids):
    for settings in (SETTINGS, [SETTINGS[0]] * 4, [SETTINGS[2]] * 4):
        engines = [Engine(MODEL, TOKENIZER, BACKENDS[backend](MODEL)) for _ in range(2)]
        one_by_one, bundled = (
            replies(engine, most, settings, stop_ids) for engine, most in zip(engines, (1, 16), strict=True)
        )
        if backend == "torch":  # its last bits depend on the batch
            assert {key: value[1:3] for key, value in bundled.items()} == {
                key: value[1:3] for key, value in one_by_one.items()
            }
        else:
            assert bundled == one_by_one
        assert all(engine.scheduler.pool.num_used == 0 for engine in engines)


def test_all_prompts_with_samples_are_computed_before_any_is_continued():
    engine = Engine(MODEL, TOKENIZER)
    sampling = Sampling(max_tokens=1 + 16)
    requests = [engine.request([number] * 9, sampling, NEVER, samples=4) for number in range(20)]
    for request in requests:
        engine.scheduler.add(request)
    sizes = []
    while engine.scheduler.busy:
        outputs = engine.scheduler.step(16)
        sizes.append(sum(len(output.tokens) for output in outputs))
    assert sizes == [20, 60 * 16 + 20 * 16, 60]


def test_equal_prompts_that_follow_each_other_are_computed_once_and_differ_as_before():
    engine, sampling = Engine(MODEL, TOKENIZER), Sampling(max_tokens=9, seed=5)
    prompts = [[7] * 20, [7] * 20, [1, 2], [7] * 20, [7] * 20, [7] * 20]
    together = engine.generate(prompts, sampling, NEVER)
    alone = [
        [
            token.id
            for output in engine.run([engine.request(prompt, sampling, NEVER, row=row)])
            for token in output.tokens
        ]
        for row, prompt in enumerate(prompts)
    ]
    assert together == alone
    assert together[0] != together[1]


def test_bundles_fall_back_to_single_tokens_where_blocks_run_out():
    engine, short_of_blocks = (Engine(MODEL, TOKENIZER) for _ in range(2))
    short_of_blocks.scheduler.pool = type(engine.scheduler.pool)(9)
    settings = [SETTINGS[0]] * 4
    assert replies(short_of_blocks, 16, settings) == replies(engine, 16, settings)
    assert short_of_blocks.scheduler.counts["preempted"] > 0


def test_the_samples_of_a_prompt_compute_one_token_of_it_each():
    computed = []

    class Counting(type(Engine(MODEL, TOKENIZER).backend)):
        def forward(self, batch):
            computed.append(len(batch.tokens))
            return super().forward(batch)

    backend = Counting(MODEL, "float32") if "float32" in BACKENDS else Counting(MODEL)
    engine = Engine(MODEL, TOKENIZER, backend)
    request = engine.request([*range(2 * BLOCK_SIZE + 7)], Sampling(max_tokens=2), NEVER, samples=8)
    assert len(list(engine.run([request]))) == 16
    assert sum(computed) == len(request.prompt) + 7 + 8  # the last of two tokens is not read


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_engine_gets_the_weights_of_a_model_with_its_adapters(backend):
    model = random_model(SHAPE)
    engine = Engine(model, TOKENIZER, BACKENDS[backend](model))
    add_adapters(model, Lora(rank=2), 0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora" in name:
                weight.normal_(0.0, 0.3)
    engine.update_weights(model)
    other = Engine(merged(model), TOKENIZER, BACKENDS[backend](merged(model)))
    made_with_them = Engine(model, TOKENIZER, BACKENDS[backend](model))
    expected = other.logits(PROMPTS[1])
    assert torch.equal(engine.logits(PROMPTS[1]), expected)
    assert torch.equal(made_with_them.logits(PROMPTS[1]), expected)
    assert not torch.allclose(Engine(random_model(SHAPE), TOKENIZER).logits(PROMPTS[1]), expected, atol=0.01)


def test_new_weights_take_blocks_from_the_first_one_on():
    engine = Engine(random_model(QWEN), TOKENIZER)
    requests = [engine.request([number] * 20, Sampling(max_tokens=4), NEVER) for number in range(5)]
    for _ in engine.run(requests):
        pass
    engine.update_weights(random_model(QWEN, 1))
    assert engine.scheduler.pool.allocate() == 0
