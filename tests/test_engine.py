"""The one decoder."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.core.types import Message
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.prompts import as_assistant, few_shot, first_line
from crawltalk.engine.sampling import choose, distribution, uniform
from crawltalk.model.shape import Shape
from crawltalk.tokenizer import Tokenizer
from test_model import QWEN, random_model

TOKENIZER = Tokenizer.trained([(116, 104), (256, 101)])
SHAPE = Shape(vocab_size=TOKENIZER.size, layers=2, width=32, heads=2, kv_heads=1, head_dim=16, mlp=48, context=48)
MODEL = random_model(SHAPE)
ENGINE = Engine(MODEL, TOKENIZER)
NEVER = frozenset[int]()


def greedy_without_cache(prompt: list[int], steps: int) -> list[int]:
    ids = list(prompt)
    for _ in range(steps):
        if len(ids) > SHAPE.context:
            break
        with torch.no_grad():
            ids.append(int(MODEL(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=20), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_greedy_decoding_in_a_batch_equals_one_by_one_without_a_cache(prompts):
    sampling = Sampling(temperature=0.0, max_tokens=8)
    assert ENGINE.generate(prompts, sampling, NEVER) == [greedy_without_cache(prompt, 8) for prompt in prompts]


def test_samples_depend_on_seed_and_row_but_not_on_the_batch():
    prompts = [[1, 2, 3], [4], [5] * 9, [1, 2, 3]]
    sampling = Sampling(max_tokens=12, seed=7)
    together = ENGINE.generate(prompts, sampling, NEVER)
    assert together == ENGINE.generate(prompts, sampling, NEVER)
    assert together[0] == ENGINE.generate(prompts[:1], sampling, NEVER)[0]
    assert together[0] != together[3]
    assert together != ENGINE.generate(prompts, Sampling(max_tokens=12, seed=8), NEVER)


@torch.no_grad()
def test_the_probabilities_of_a_reply_are_those_of_the_model():
    prompt, reply = [1, 2, 3], [9, 8, 7, 6]
    p = torch.softmax(MODEL(torch.tensor([[*prompt, *reply]]))[0], -1)
    assert ENGINE.probabilities(prompt, reply) == pytest.approx(
        [float(p[2 + i, token]) for i, token in enumerate(reply)], rel=1e-4
    )
    assert ENGINE.probabilities(prompt, []) == []


def test_prompts_are_documents_in_which_the_answer_comes_next():
    assert few_shot([("cat", "chat"), ("dog", "chien")], "cow") == "cat: chat\ndog: chien\ncow:"
    asked = as_assistant([("Who are you?", "An assistant.")], "What is gold?")
    assert asked.endswith("Person: Who are you?\nAssistant: An assistant.\n\nPerson: What is gold?\nAssistant:")
    assert [first_line(reply) for reply in (" a metal.\nPerson: and", "\n\n x", "")] == ["a metal.", "x", ""]


def test_a_stop_token_ends_a_row_and_is_not_returned():
    free = ENGINE.generate([[1, 2]], Sampling(temperature=0.0, max_tokens=10), NEVER)[0]
    stop = free[4]
    assert (
        ENGINE.generate([[1, 2]], Sampling(temperature=0.0, max_tokens=10), frozenset({stop}))[0] == free[: free.index(stop)]
    )


def test_generation_ends_with_the_context():
    reply = ENGINE.generate([[3] * 40], Sampling(temperature=0.0, max_tokens=100), NEVER)[0]
    assert len(reply) == SHAPE.context - 40 + 1  # the last token is said, not read
    assert len(ENGINE.generate([[3] * 400], Sampling(temperature=0.0, max_tokens=100), NEVER)[0]) == 2


def test_streaming_equals_generating():
    sampling = Sampling(temperature=0.9, max_tokens=16, seed=3)
    assert list(ENGINE.stream([9, 8], sampling, NEVER)) == ENGINE.generate([[9, 8]], sampling, NEVER)[0]


@given(
    st.lists(st.integers(-50, 50).map(lambda tenths: tenths / 10), min_size=2, max_size=12, unique=True),
    st.integers(0, 12),
    st.floats(0.05, 1.0),
    st.floats(0.2, 2.0),
)
@settings(deadline=None)
def test_top_k_and_top_p_keep_what_a_plain_reference_keeps(logits, top_k, top_p, temperature):
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    p = distribution(torch.tensor([logits]), sampling)[0]
    order = sorted(range(len(logits)), key=lambda i: -torch.tensor(logits[i]).item())
    if 0 < top_k < len(logits):
        order = order[:top_k]
    weights = torch.softmax(torch.tensor([logits[i] for i in order]) / temperature, dim=0)
    before = weights.cumsum(0) - weights
    certain = {i for i, b in zip(order, before, strict=True) if b < top_p - 1e-4 or top_p == 1.0}
    possible = {i for i, b in zip(order, before, strict=True) if b < top_p + 1e-4 or top_p == 1.0}
    kept = {i for i in range(len(logits)) if p[i] > 0}
    assert {i for i in certain if weights[order.index(i)] > 1e-6} <= kept <= possible
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-4)


def test_sampling_follows_the_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(4000, 3)
    drawn = choose(logits, Sampling(), [uniform(7, row, 0) for row in range(4000)]).bincount(minlength=3) / 4000
    torch.testing.assert_close(drawn, torch.softmax(logits[0], 0), atol=0.03, rtol=0)


def test_the_oldest_turns_are_dropped_and_counted_when_a_conversation_is_too_long():
    turns = [Message("system", "s"), *[Message("user", "abcdef"), Message("assistant", "gh")] * 4, Message("user", "the")]
    ids, dropped = ENGINE.prompt(turns)
    assert dropped > 0
    assert len(ids) <= 36
    assert TOKENIZER.decode(ids).startswith("<|im_start|>system<|im_sep|>s<|im_end|>")
    assert "the<|im_end|>" in TOKENIZER.decode(ids)
    with pytest.raises(BadInput, match="make it shorter"):
        ENGINE.prompt([Message("user", "x" * 60)])


def test_a_base_model_without_a_chat_format_says_so():
    plain = Tokenizer({bytes([b]): b for b in range(96)}, [], ".", {"<|endoftext|>": 96})
    with pytest.raises(BadInput, match="crawltalk generate"):
        Engine(random_model(QWEN), plain).reply([Message("user", "hi")], Sampling())
