"""Prompts in which vectors stand instead of tokens."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.engine import Engine, PromptEmbeddings, Sampling
from crawltalk.engine.sequence import Request, Token
from crawltalk.model.cache import BLOCK_SIZE
from support.engines import BACKENDS, NEVER, SHAPE, TOKENIZER
from support.models import GPT2, QWEN, SPEEDRUN, random_model

LONG = replace(SHAPE, context=400)
MODELS = {
    family.family: random_model(replace(LONG, family=family.family, kv_heads=2)) for family in (QWEN, GPT2)
}
SAMPLING = Sampling(max_tokens=6, seed=3, logprobs=2)
PLACEHOLDER = 0


def reply(engine: Engine, *requests: Request) -> dict[int, list[Token]]:
    """Row -> its tokens, with their log-probabilities."""
    tokens: dict[int, list[Token]] = {request.row: [] for request in requests}
    for output in engine.run(requests):
        tokens[output.request.row] += output.tokens
    return tokens


def as_vectors(ids: list[int], spans: list[tuple[int, int]], table: np.ndarray) -> tuple[list[int], list]:
    """The prompt with placeholders, and the vectors that stand for the tokens that were there."""
    prompt, embeddings = list(ids), []
    for start, end in spans:
        embeddings.append(PromptEmbeddings(start, table[ids[start:end]]))
        prompt[start:end] = [PLACEHOLDER] * (end - start)
    return prompt, embeddings


@st.composite
def prompts(draw) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids, and some spans of them; most longer than one step computes."""
    length = draw(st.sampled_from([1, 5, 40, 300]))
    ids = np.random.default_rng(draw(st.integers(0, 99))).integers(1, LONG.vocab_size, length).tolist()
    borders = sorted(draw(st.sets(st.integers(0, length), max_size=6)))
    return ids, list(zip(borders[::2], borders[1::2], strict=False))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", MODELS)
@given(st.lists(prompts(), min_size=1, max_size=3))
@settings(max_examples=8, deadline=None)
def test_rows_of_the_embedding_table_given_as_vectors_are_read_as_their_tokens_to_the_last_bit(
    family, backend, cases
):
    model = MODELS[family]
    weight = model.embedding.weight.detach()
    table = (weight.bfloat16().float() if backend in ("bfloat16", "int8") else weight).numpy()
    engine, other = (Engine(model, TOKENIZER, BACKENDS[backend](model)) for _ in range(2))
    given_ids = [engine.request(ids, SAMPLING, NEVER, row=row) for row, (ids, _) in enumerate(cases)]
    given_vectors = []
    for row, (ids, spans) in enumerate(cases):
        prompt, embeddings = as_vectors(ids, spans, table)
        given_vectors.append(other.request(prompt, SAMPLING, NEVER, row=row, embeddings=embeddings))
    expected = reply(engine, *given_ids)
    assert reply(other, *given_vectors) == expected
    again = [replace(request, cancelled=False) for request in given_vectors]
    if backend != "torch":  # whose last bits depend on the batch
        assert reply(other, *again) == expected  # now from the cache


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_ids_share_no_block_behind_other_vectors(backend):
    model = MODELS["qwen3"]
    engine = Engine(model, TOKENIZER, BACKENDS[backend](model))
    image, other = np.random.default_rng(0).standard_normal((2, 20, LONG.width)).astype(np.float32)
    prompt = [5] * 20 + [PLACEHOLDER] * 20 + [6] * 30

    def cached(start: int, vectors: np.ndarray | None, ids: list[int] = prompt) -> int:
        embeddings = [] if vectors is None else [PromptEmbeddings(start, vectors)]
        request = engine.request(ids, SAMPLING, NEVER, embeddings=embeddings)
        outputs = reply(engine, request)
        fresh = Engine(model, TOKENIZER, BACKENDS[backend](model))
        alone = reply(fresh, fresh.request(ids, SAMPLING, NEVER, embeddings=embeddings))
        assert [token.id for token in outputs[0]] == [token.id for token in alone[0]]
        return request.cached_tokens

    assert cached(20, image) == 0
    assert cached(20, image) == 4 * BLOCK_SIZE
    assert cached(20, other) == BLOCK_SIZE
    assert cached(20, None) == BLOCK_SIZE
    assert cached(21, image) == BLOCK_SIZE  # the same vectors, a position later
    assert cached(20, image, [*prompt[:68], 9, 9]) == 4 * BLOCK_SIZE
    assert cached(0, image, prompt[20:]) == 0


def test_vectors_of_an_image_change_the_reply_and_its_preemption_does_not():
    model = MODELS["qwen3"]
    image = np.random.default_rng(0).standard_normal((20, LONG.width)).astype(np.float32)
    prompt, sampling = [PLACEHOLDER] * 20 + [6, 7], Sampling(temperature=0.0, max_tokens=40)

    def requests(engine: Engine) -> list[Request]:
        return [
            engine.request([*prompt, n], sampling, NEVER, row=n, embeddings=[PromptEmbeddings(0, image)])
            for n in range(4)
        ]

    engine, short_of_blocks = Engine(model, TOKENIZER), Engine(model, TOKENIZER)
    short_of_blocks.scheduler.pool = type(engine.scheduler.pool)(8)
    expected = reply(engine, *requests(engine))
    assert reply(short_of_blocks, *requests(short_of_blocks)) == expected
    assert short_of_blocks.scheduler.counts["preempted"] > 0
    blind = reply(engine, *(engine.request([*prompt, n], sampling, NEVER, row=n) for n in range(4)))
    assert blind != expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_how_vectors_lie_in_memory_does_not_matter(backend):
    model = MODELS["qwen3"]
    image = np.random.default_rng(0).standard_normal((20, LONG.width)).astype(np.float32)
    laid_out = [image, np.asfortranarray(image), image.repeat(2, axis=0)[::2]]
    replies = []
    for vectors in laid_out:
        engine = Engine(model, TOKENIZER, BACKENDS[backend](model))
        request = engine.request(
            [PLACEHOLDER] * 20, SAMPLING, NEVER, embeddings=[PromptEmbeddings(0, vectors)]
        )
        replies.append(reply(engine, request))
    assert replies == [replies[0]] * 3


def test_embeddings_that_do_not_fit_are_refused():
    engine = Engine(MODELS["qwen3"], TOKENIZER)
    three = np.zeros((3, LONG.width), np.float32)
    for start in (-1, 3):
        with pytest.raises(BadInput, match="within the prompt, whose last position is 4"):
            engine.request([1] * 5, SAMPLING, embeddings=[PromptEmbeddings(start, three)])
    with pytest.raises(BadInput, match="in order, apart"):
        engine.request([1] * 9, SAMPLING, embeddings=[PromptEmbeddings(at, three) for at in (2, 4)])
    for wrong in (three[:, 1:], three.astype(np.float64), three[0]):
        with pytest.raises(BadInput, match=r"reads float32 of shape \[positions, 32\]"):
            engine.request([1] * 5, SAMPLING, embeddings=[PromptEmbeddings(0, wrong)])
    speedrun = Engine(random_model(replace(SPEEDRUN, vocab_size=TOKENIZER.vocab_size)), TOKENIZER)
    with pytest.raises(BadInput, match="speedrun read tokens only"):
        speedrun.request([1] * 5, SAMPLING, embeddings=[PromptEmbeddings(0, three)])


def test_torch_takes_vectors_where_a_transformer_is_called_directly():
    model = MODELS["gpt2"]
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(model.states(ids), model.states(ids, embeddings_BTD=model.embedding(ids)))
