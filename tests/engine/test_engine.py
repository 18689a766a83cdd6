"""The one decoder."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.chat.messages import Message
from crawltalk.chat.prompts import as_assistant, few_shot, first_line
from crawltalk.core.errors import BadInput
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.blocks import BlockContent, BlockPool
from crawltalk.engine.sampling import apply_penalties, distribution, sample, uniform
from crawltalk.engine.sequence import Detokenizer, Request, StepOutput
from crawltalk.model.cache import BLOCK_SIZE
from crawltalk.tokenizer import Tokenizer
from support.engines import MODEL, NEVER, SHAPE, TOKENIZER
from support.models import QWEN, random_model

ENGINE = Engine(MODEL, TOKENIZER)


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
    assert ENGINE.generate(prompts, sampling, NEVER) == [
        greedy_without_cache(prompt, 8) for prompt in prompts
    ]


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
    prompt = as_assistant([("Who are you?", "An assistant.")], "What is gold?")
    assert prompt.endswith(
        "Person: Who are you?\nAssistant: An assistant.\n\nPerson: What is gold?\nAssistant:"
    )
    assert [first_line(reply) for reply in (" a metal.\nPerson: and", "\n\n x", "")] == ["a metal.", "x", ""]


def test_a_stop_token_ends_a_row_and_is_not_returned():
    free = ENGINE.generate([[1, 2]], Sampling(temperature=0.0, max_tokens=10), NEVER)[0]
    stop = free[4]
    assert (
        ENGINE.generate([[1, 2]], Sampling(temperature=0.0, max_tokens=10), frozenset({stop}))[0]
        == free[: free.index(stop)]
    )


def test_generation_ends_with_the_context():
    reply = ENGINE.generate([[3] * 40], Sampling(temperature=0.0, max_tokens=100), NEVER)[0]
    assert len(reply) == SHAPE.context - 40 + 1  # the last token is generated, not read
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
    drawn = (
        sample(logits, Sampling(), [uniform(7, row, 0) for row in range(4000)]).bincount(minlength=3) / 4000
    )
    torch.testing.assert_close(drawn, torch.softmax(logits[0], 0), atol=0.03, rtol=0)


def test_the_oldest_turns_are_dropped_and_counted_when_a_conversation_is_too_long():
    turns = [
        Message("system", "s"),
        *[Message("user", "abcdef"), Message("assistant", "gh")] * 4,
        Message("user", "the"),
    ]
    ids, dropped = ENGINE.chat_prompt(turns)
    assert dropped > 0
    assert len(ids) <= 36
    assert TOKENIZER.decode(ids).startswith("<|im_start|>system<|im_sep|>s<|im_end|>")
    assert "the<|im_end|>" in TOKENIZER.decode(ids)
    with pytest.raises(BadInput, match="make it shorter"):
        ENGINE.chat_prompt([Message("user", "x" * 60)])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.booleans())
@settings(max_examples=40, deadline=None)
def test_as_few_of_the_oldest_turns_are_dropped_as_will_do(sizes, with_system):
    system = [Message("system", "s")] if with_system else []
    turns = [Message("assistant" if index % 2 else "user", "x" * size) for index, size in enumerate(sizes)]
    ids, dropped = ENGINE.chat_prompt([*system, *turns])
    assert ids == ENGINE.renderer.encode_chat([*system, *turns[dropped:]], add_generation_prompt=True)
    assert len(ids) <= 36
    if dropped:
        assert (
            len(ENGINE.renderer.encode_chat([*system, *turns[dropped - 1 :]], add_generation_prompt=True))
            > 36
        )


def test_a_base_model_without_a_chat_format_says_so():
    plain = Tokenizer({bytes([b]): b for b in range(96)}, [], ".", {"<|endoftext|>": 96})
    with pytest.raises(BadInput, match="crawltalk generate"):
        Engine(random_model(QWEN), plain).reply([Message("user", "hi")], Sampling())


def test_values_out_of_range_are_refused_by_name():
    for name, value in (
        ("temperature", -0.1),
        ("top_p", 1.5),
        ("top_p", 0.0),
        ("min_p", 2),
        ("top_k", -1),
        ("max_tokens", -1),
    ):
        with pytest.raises(BadInput, match=name):
            Sampling(**{name: value})
    with pytest.raises(BadInput, match="stop string"):
        Sampling(stop=("",))
    with pytest.raises(BadInput, match="maximum context length is 48"):
        ENGINE.request([1] * 49, Sampling())
    with pytest.raises(BadInput, match="no token 5000"):
        ENGINE.request([1], Sampling(logit_bias={5000: 1.0}))
    with pytest.raises(BadInput, match="cannot be obeyed"):
        ENGINE.request([1], Sampling(schema='{"type": "nothing"}'))


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), st.data())
def test_a_text_ends_before_the_first_stop_string_however_it_is_cut_into_tokens(whole, stop, data):
    text, shown = Detokenizer(stop), ""
    left = whole.encode()
    while left and not text.stopped:
        size = data.draw(st.integers(1, len(left)))
        shown += text.add(left[:size])
        left = left[size:]
        assert not any(string in shown for string in stop)
    shown += "" if text.stopped else text.add(b"", final=True)
    ends = [index for string in stop if (index := whole.find(string)) >= 0]
    assert text.stopped == bool(ends)
    if not ends:
        assert shown == whole
    else:  # of several that end in one token, the one that begins first counts
        assert whole.startswith(shown)
        assert not any(string in shown for string in stop)


def test_a_character_is_shown_when_its_last_byte_is_there():
    text = Detokenizer(())
    assert [text.add(byte) for byte in (b"\xe2", b"\x82", b"\xac", b"\xc3")] == ["", "", "€", ""]
    assert text.add(b"", final=True) == "\ufffd"


def outputs_of(engine: Engine, *requests: Request) -> dict[int, list[StepOutput]]:
    outputs: dict[int, list[StepOutput]] = {request.id: [] for request in requests}
    for output in engine.run(requests):
        outputs[output.request.id].append(output)
    return outputs


def test_several_samples_compute_their_prompt_once():
    engine = Engine(MODEL, TOKENIZER)
    request = engine.request([7] * 40, Sampling(max_tokens=4), NEVER, samples=5)
    outputs = outputs_of(engine, request)[request.id]
    assert sorted(output.index for output in outputs if output.finish_reason) == [0, 1, 2, 3, 4]
    assert engine.scheduler.counts["cached_tokens"] == 4 * 32
    replies = {n: [t.id for output in outputs if output.index == n for t in output.tokens] for n in range(5)}
    for number, reply in replies.items():
        alone = engine.request([7] * 40, Sampling(max_tokens=4), NEVER, row=number)
        assert [
            token.id for output in outputs_of(engine, alone)[alone.id] for token in output.tokens
        ] == reply


def test_a_cached_prefix_is_found_and_evicted_from_its_end():
    pool = BlockPool(4)
    first, second, third = (BlockContent((number,) * BLOCK_SIZE, ()) for number in range(3))
    blocks, prefix = [pool.allocate() for _ in range(3)], 0
    for block, content in zip(blocks, (first, second, third), strict=True):
        prefix = pool.cache_block(block, prefix, content)
    pool.free(blocks)
    assert pool.num_used == 0
    assert pool.match_prefix([first, second, third]) == (blocks, prefix)
    pool.free(blocks)
    assert pool.match_prefix([second, third]) == ([], 0)
    assert [pool.allocate() for _ in range(2)] == [3, blocks[2]]
    assert pool.match_prefix([first, second, third])[0] == blocks[:2]


def test_a_prompt_found_whole_in_the_cache_leaves_a_token_to_compute():
    engine = Engine(MODEL, TOKENIZER)
    for prompt in ([5] * (2 * BLOCK_SIZE), [5] * (2 * BLOCK_SIZE), [5] * (2 * BLOCK_SIZE + 1)):
        request = engine.request(prompt, Sampling(max_tokens=1), NEVER)
        outputs_of(engine, request)
    assert engine.scheduler.counts["cached_tokens"] == BLOCK_SIZE + 2 * BLOCK_SIZE


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=8))
@settings(max_examples=20, deadline=None)
def test_nothing_is_owned_when_everything_has_ended(jobs):
    engine = Engine(MODEL, TOKENIZER)
    engine.scheduler.pool = BlockPool(7)
    requests = [
        engine.request([1 + a] * (n + 1), Sampling(max_tokens=m), NEVER, client=str(a)) for a, n, m in jobs
    ]
    outputs = outputs_of(engine, *requests)
    assert engine.scheduler.pool.num_used == 0
    assert not engine.scheduler.busy
    for request in requests:
        assert [output.finish_reason for output in outputs[request.id]][-1] == "length"
        generated = sum(len(output.tokens) for output in outputs[request.id])
        assert generated == min(request.sampling.max_tokens, 48 - len(request.prompt) + 1)


def test_a_cancelled_request_is_gone_before_the_next_step():
    engine = Engine(MODEL, TOKENIZER)
    stays, goes = (engine.request([n] * 20, Sampling(max_tokens=20), NEVER) for n in (1, 2))
    engine.scheduler.add(stays)
    engine.scheduler.add(goes)
    engine.scheduler.step()
    used = engine.scheduler.pool.num_used
    goes.cancelled = True
    outputs = engine.scheduler.step()
    assert [output.finish_reason for output in outputs if output.request is goes] == ["cancelled"]
    assert engine.scheduler.pool.num_used == used - 2
    assert [sequence.request for sequence in engine.scheduler.running] == [stays]


def test_clients_take_turns():
    engine = Engine(MODEL, TOKENIZER)
    engine.scheduler._slots = [0, 1]  # two run at once
    many = [engine.request([n], Sampling(max_tokens=2), NEVER, client="many") for n in range(1, 9)]
    few = [engine.request([n], Sampling(max_tokens=2), NEVER, client="few") for n in (11, 12)]
    ended = [output.request for output in engine.run([*many, *few]) if output.finish_reason]
    assert [request.client for request in ended[:4]] == ["many", "few", "many", "few"]


def test_penalties_and_biases_change_what_is_generated():
    free = ENGINE.generate([[1, 2]], Sampling(temperature=0.0, max_tokens=8), NEVER)[0]
    biased = ENGINE.generate(
        [[1, 2]], Sampling(temperature=0.0, max_tokens=8, logit_bias={free[0]: -100.0, 65: 90.0}), NEVER
    )[0]
    assert biased == [65] * 8
    for name in ("presence_penalty", "frequency_penalty"):
        fined = Sampling(
            temperature=0.0, max_tokens=8, logit_bias={65: 91.0, 66: 90.0, 67: 89.5}, **{name: 2.0}
        )
        assert set(ENGINE.generate([[1, 2]], fined, NEVER)[0]) == {65, 66, 67}
    logits = torch.tensor([2.0, -2.0, 1.0])
    apply_penalties(logits, Sampling(repetition_penalty=2.0), [0], [1])
    assert logits.tolist() == [1.0, -4.0, 1.0]


def test_log_probabilities_are_the_models_own_whatever_the_settings():
    request = ENGINE.request(
        [1, 2, 3], Sampling(temperature=0.5, top_k=3, max_tokens=5, logprobs=4), NEVER, prompt_logprobs=True
    )
    tokens = [token for output in outputs_of(ENGINE, request)[request.id] for token in output.tokens]
    with torch.no_grad():
        p = torch.log_softmax(MODEL(torch.tensor([[1, 2, 3, *(token.id for token in tokens)]]))[0], -1)
    for position, token in enumerate(tokens, start=2):
        assert token.logprob == pytest.approx(float(p[position, token.id]), abs=1e-4)
        assert [index for index, _ in token.top] == p[position].topk(4).indices.tolist()
    assert request.prompt_tokens[0].logprob is None
    assert [t.id for t in request.prompt_tokens] == [1, 2, 3]
    assert request.prompt_tokens[2].logprob == pytest.approx(float(p[1, 3]), abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_a_reply_obeys_its_schema(seed):
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 99},
            "is": {"enum": ["gold", "lead"]},
        },
        "required": ["n", "is"],
        "additionalProperties": False,
    }
    plain = Engine(random_model(replace(SHAPE, context=200)), TOKENIZER)
    sampling = Sampling(
        max_tokens=180, seed=seed, schema=json.dumps(schema), logit_bias={9: -99, 10: -99, 13: -99, 32: -99}
    )
    reply = TOKENIZER.decode(plain.generate([[1]], sampling)[0])
    result = json.loads(reply)
    assert 1 <= result["n"] <= 99
    assert result["is"] in ("gold", "lead")


def test_replies_are_scored_as_without_a_cache_and_prompts_that_begin_alike_are_computed_once():
    prompt = TOKENIZER.encode("the tree that the three then heat, and the rest")[:33]
    replies = [TOKENIZER.encode(text) for text in ("the", "a", "then the")]
    engine = Engine(MODEL, TOKENIZER)
    engine.generate([prompt], Sampling(max_tokens=0))
    before = engine.scheduler.counts["cached_tokens"]
    scored = engine.logprobs([(prompt, reply) for reply in replies])
    assert engine.scheduler.counts["cached_tokens"] - before == len(replies) * (
        (len(prompt) - 1) // BLOCK_SIZE * BLOCK_SIZE
    )
    for reply, values in zip(replies, scored, strict=True):
        rows = torch.log_softmax(engine.logits([*prompt, *reply]), dim=-1)
        expected = [float(rows[len(prompt) - 1 + i, token]) for i, token in enumerate(reply)]
        assert values == pytest.approx(expected, abs=1e-4)
    assert engine.logprobs([(prompt, [])]) == [[]]
