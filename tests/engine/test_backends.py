"""Native code against torch: the same numbers, whatever else is in the batch."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.backends import Backend, Batch
from crawltalk.engine.backends.cpu import CpuBackend, interleave_panels, quantize
from crawltalk.engine.backends.torch import TorchBackend
from crawltalk.engine.engine import make_backend
from crawltalk.engine.load import MAX_PERPLEXITY_RISE, check_perplexity, load_engine, perplexity_rise
from crawltalk.engine.sampling import sample
from crawltalk.model.cache import BLOCK_SIZE
from crawltalk.model.shape import Shape
from crawltalk.run.native import COMPILERS
from support.engines import NEVER, TOKENIZER
from support.models import GPT2, LLAMA, QWEN, SPEEDRUN, random_model

pytestmark = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler is installed")

SIZES = {
    "width": 64,
    "heads": 4,
    "head_dim": 16,
    "mlp": 112,
    "context": 96,
    "vocab_size": TOKENIZER.vocab_size,
}
SHAPES = {
    shape.family: replace(shape, **SIZES, kv_heads=4 if shape.family == "gpt2" else 2)
    for shape in (QWEN, LLAMA, GPT2)
}
WIDE = Shape(
    vocab_size=TOKENIZER.vocab_size, layers=2, width=128, heads=2, kv_heads=1, head_dim=64, mlp=96, context=96
)
TOLERANCE = {"float32": 2e-5, "bfloat16": 0.06, "int8": 0.1}
"""Of logits, relative to the largest."""


def rows_of(*sequences: tuple[int, int, list[int]], everywhere: bool = False) -> Batch:
    """(slot, position of the first, tokens) of each; logits after the last token, or after each."""
    tokens, positions, slots, logits_indices = [], [], [], []
    for slot, start, ids in sequences:
        tokens += ids
        positions += range(start, start + len(ids))
        slots += [slot] * len(ids)
        logits_indices += range(len(tokens) - len(ids), len(tokens)) if everywhere else [len(tokens) - 1]
    return Batch(*(np.array(values, np.int32) for values in (tokens, positions, slots, logits_indices)))


def give_blocks(backend: Backend) -> None:
    """To three sequences, in disorder."""
    order = np.random.default_rng(1).permutation(18)
    backend.block_tables[:3, :6] = order.reshape(3, 6)


def logits_of(backend: Backend, texts: list[list[int]]) -> torch.Tensor:
    """Logits of three texts, the first parts of which are computed in chunks, the rest one by one."""
    give_blocks(backend)
    one, two, three = texts
    actual = [backend.forward(rows_of((0, 0, one[:20]), (1, 0, two[:3]), everywhere=True)).clone()]
    actual.append(backend.forward(rows_of((1, 3, two[3:4]), (0, 20, one[20:37]), (2, 0, three[:1]))).clone())
    for step in range(12):
        batch = rows_of(
            (0, 37 + step, [one[37 + step]]), (2, 1 + step, [three[1 + step]]), (1, 4 + step, [two[4 + step]])
        )
        actual.append(backend.forward(batch).clone())
    return torch.cat(actual)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("shape", [*SHAPES.values(), WIDE], ids=[*SHAPES, "wide"])
def test_native_logits_are_those_of_torch(shape, precision):
    model = random_model(shape)
    texts = np.random.default_rng(0).integers(0, shape.vocab_size, (3, 60)).tolist()
    expected = logits_of(TorchBackend(model), texts)
    actual = logits_of(CpuBackend(model, precision, threads=2), texts)
    assert float((actual - expected).abs().max() / expected.abs().max()) < TOLERANCE[precision]


def targets() -> list[str]:
    """Processors whose code this one can run: itself and, if it has AVX2, any other that has, and AMD's Zen
    3.
    """
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    has_avx2 = {"avx2", "fma", "bmi2"} <= set(info.split())
    return ["native", *(("x86-64-v3", "znver3") if has_avx2 else ())]


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_native_result_is_the_same_to_the_last_bit_for_any_batch_and_any_number_of_threads(
    precision, target
):
    model = random_model(WIDE)
    alone, many = (CpuBackend(model, precision, threads=threads, target=target) for threads in (1, 3))
    text = np.random.default_rng(2).integers(0, WIDE.vocab_size, 60).tolist()
    other = np.random.default_rng(3).integers(0, WIDE.vocab_size, 60).tolist()
    give_blocks(alone)
    give_blocks(many)
    one_by_one = torch.cat([alone.forward(rows_of((0, p, [text[p]]))).clone() for p in range(60)])
    at_once = many.forward(rows_of((1, 0, other[:7]), (0, 0, text), (2, 0, other[:29]), everywhere=True))[
        7:67
    ]
    assert torch.equal(one_by_one, at_once)
    for _ in range(40):  # both ways of sharing the work are tried
        again = many.forward(rows_of((1, 0, other[:7]), (0, 0, text), (2, 0, other[:29]), everywhere=True))[
            7:67
        ]
        assert torch.equal(one_by_one, again)


def test_the_reference_is_the_same_to_the_last_bit_for_any_batch_if_rows_are_computed_one_by_one():
    model = random_model(SHAPES["qwen3"])
    prompts = [[index + 1, *range(20 + 3 * index)] for index in range(9)]
    engine = Engine(model, TOKENIZER, TorchBackend(model, batch_invariant=True))
    together = {}
    for output in engine.run(
        [engine.request(prompt, Sampling(max_tokens=9, logprobs=0), NEVER) for prompt in prompts]
    ):
        together.setdefault(tuple(output.request.prompt), []).extend(output.tokens)
    for prompt in prompts:
        fresh = Engine(model, TOKENIZER, TorchBackend(model, batch_invariant=True))
        alone = fresh.run([fresh.request(prompt, Sampling(max_tokens=9, logprobs=0), NEVER)])
        assert [token for output in alone for token in output.tokens] == together[tuple(prompt)]


def test_native_text_is_the_same_alone_in_a_batch_after_a_cached_prefix_and_after_being_preempted():
    model = random_model(SHAPES["qwen3"])
    prompts = [[*range(5, 45), index] for index in range(6)]
    sampling = Sampling(max_tokens=30, seed=5)
    alone = [Engine(model, TOKENIZER).generate([prompt], sampling, NEVER)[0] for prompt in prompts[:1]]
    engine = Engine(model, TOKENIZER)
    together = engine.generate(prompts, sampling, NEVER)
    assert together[0] == alone[0]
    again = engine.generate(prompts, sampling, NEVER)
    assert engine.scheduler.counts["cached_tokens"] >= 6 * 2 * BLOCK_SIZE
    assert again == together
    short_of_blocks = Engine(model, TOKENIZER)
    short_of_blocks.scheduler.pool = type(engine.scheduler.pool)(9)
    assert short_of_blocks.generate(prompts, sampling, NEVER) == together
    assert short_of_blocks.scheduler.counts["preempted"] > 0


def test_states_are_those_of_torch():
    model = random_model(SHAPES["llama"])
    actual, expected = (
        Engine(model, TOKENIZER, backend) for backend in (CpuBackend(model, "float32"), TorchBackend(model))
    )
    for ids in ([[1, 2, 3]], [[5] * 90, [7]]):
        np.testing.assert_allclose(actual.embed(ids), expected.embed(ids), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(actual.embed(ids), axis=1), 1.0, rtol=1e-5)


@given(
    st.lists(st.integers(-400, 400).map(lambda number: number / 50), min_size=2, max_size=150, unique=True),
    st.sampled_from([0, 1, 3, 40, 500]),
    st.sampled_from([1.0, 0.999, 0.7, 0.2]),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([0.0, 0.4, 1.0, 3.0]),
    st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=300, deadline=None)
def test_native_draws_are_those_of_torch(logits, top_k, top_p, min_p, temperature, draw):
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    model = random_model(replace(SHAPES["llama"], layers=1, vocab_size=len(logits)))
    rows = torch.tensor([logits, logits])
    native = CpuBackend(model, "float32", threads=2)
    # a hair's breadth beside: sums in another order may fall on the other side of a border
    draws = [min(max(draw + shift, 0.0), 1 - 1e-9) for shift in (-1e-5, 0.0, 1e-5)]
    borders = [min(top_p + shift, 1.0) for shift in (-1e-5, 0.0, 1e-5)] if top_p < 1 else [1.0]
    settings_near = [replace(sampling, top_p=border) for border in borders]
    near = {int(sample(rows[:1], setting, [one])[0]) for setting in settings_near for one in draws}
    assert set(native.sample(rows, [sampling, sampling], [draw, draw])) <= near


@pytest.mark.parametrize("kind", [-np.inf, np.nan], ids=["ruled out", "no number"])
def test_a_token_is_drawn_where_none_is_left_and_from_a_share_that_vanishes(kind):
    native = CpuBackend(random_model(SHAPES["llama"]), "float32", threads=2)
    nothing = torch.full((2, native.vocab_size), kind)
    for top_k in (0, 3):
        for top_p in (0.5, 1e-60):
            sampling = Sampling(top_k=top_k, top_p=top_p)
            assert all(
                0 <= token < native.vocab_size for token in native.sample(nothing, [sampling] * 2, [0.5] * 2)
            )
            logits = torch.arange(2.0 * native.vocab_size).view(2, -1)
            if top_p < 0.1:
                assert native.sample(logits, [sampling] * 2, [0.0, 0.99]) == [native.vocab_size - 1] * 2


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=32, max_size=32))
def test_quantized_weights_are_at_most_half_a_step_off(numbers):
    weights = torch.tensor(numbers).view(1, 32)
    q, scale = quantize(weights)
    assert int(q.abs().max()) <= 127
    assert float((q * scale[:, None] - weights).abs().max()) <= float(scale.max()) * 0.501 + 1e-30
    assert torch.equal(scale, scale.bfloat16().float())


def test_gates_and_inner_rows_take_turns_in_panels():
    assert interleave_panels(torch.arange(64)[:, None], 16)[:, 0].tolist() == [
        *range(16),
        *range(32, 48),
        *range(16, 32),
        *range(48, 64),
    ]


def test_what_has_no_native_code_is_computed_by_torch_and_refused_in_int8():
    assert isinstance(Engine(random_model(SPEEDRUN), TOKENIZER).backend, TorchBackend)
    with pytest.raises(BadInput, match="int8 needs native code"):
        make_backend(random_model(SPEEDRUN), "int8")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_coarser_precisions_keep_the_perplexity_of_a_trained_model(nano, precision):
    exact = load_engine(nano / "sft")
    coarse = load_engine(nano / "sft", precision=precision)  # passes the gate
    assert perplexity_rise(exact, coarse) < MAX_PERPLEXITY_RISE


def test_a_model_that_int8_spoils_is_refused():
    model = random_model(SHAPES["llama"])
    with pytest.raises(BadInput, match=r"perplexity .* higher, more than 0\.5%; choose bfloat16"):
        other = random_model(replace(SHAPES["llama"], layers=1))
        check_perplexity(Engine(model, TOKENIZER), Engine(other, TOKENIZER))
