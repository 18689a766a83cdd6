"""Batches: their rows, and where they come from."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.core.shards import ShardIndex, TokenShards, write_index, write_split
from crawltalk.train.batches import IGNORE_INDEX, Batch, packed_rows, windows


@given(rows=st.integers(1, 9), world=st.integers(1, 5), size=st.integers(1, 4))
def test_the_shares_of_all_ranks_in_micro_batches_are_the_batch_and_rank_0_has_the_most(rows, world, size):
    tokens = torch.arange(3 * rows).view(rows, 3)
    batch = Batch(tokens, -tokens, tokens + 1, {"advantages": torch.arange(rows)})
    shares = [batch.share(rank, world) for rank in range(world)]
    assert len(shares[0]) == max(map(len, shares))
    parts = [share[start : start + size] for share in shares for start in range(0, len(share), size)]
    assert torch.equal(torch.cat([part.tokens for part in parts]), batch.tokens)
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
    assert torch.equal(torch.cat([part.documents for part in parts]), batch.documents)
    assert torch.equal(torch.cat([part.extras["advantages"] for part in parts]), batch.extras["advantages"])


def test_windows_carry_the_numbers_of_documents_when_attention_is_to_stay_within_them(tmp_path):
    documents = [(str(number), np.arange(1, 8), 7) for number in range(6)]
    split = write_split(tmp_path, "train", documents, 0, "uint16")
    write_index(tmp_path, ShardIndex(dtype="uint16", vocab_size=8, eot=0, train=split, val=split))
    shards = TokenShards(tmp_path, "train")
    assert windows(shards, 2, 16, 0)(0).documents is None
    batch = windows(shards, 2, 16, 0, document_mask=True)(0)
    assert batch.documents.shape == batch.tokens.shape
    for tokens, numbers in zip(batch.tokens.tolist(), batch.documents.tolist(), strict=True):
        assert numbers == [tokens[: index + 1].count(0) for index in range(16)]


@given(
    length=st.integers(40, 400), rows=st.integers(1, 7), context=st.integers(1, 39), seed=st.integers(0, 9)
)
@settings(max_examples=30, deadline=None)
def test_in_each_pass_no_token_is_predicted_twice_and_less_than_a_window_is_left_out(
    tmp_path_factory, length, rows, context, seed
):
    folder = tmp_path_factory.mktemp("shards")
    split = write_split(folder, "train", [("a", np.arange(1, length), 1)], 0, "uint16")
    write_index(folder, ShardIndex(dtype="uint16", vocab_size=length, eot=0, train=split, val=split))
    shards = TokenShards(folder, "train")
    batch = windows(shards, rows, context, seed)
    count = length // context
    steps = -(-2 * count // rows)
    made = [batch(step) for step in range(steps)]
    tokens, targets = torch.cat([one.tokens for one in made]), torch.cat([one.targets for one in made])
    # token i is the number i, so each is followed by the next
    assert torch.equal((tokens + 1) % length, targets)
    for epoch in range(2):
        predicted = targets[epoch * count : (epoch + 1) * count].flatten().tolist()
        assert len(predicted) == len(set(predicted)) > length - context


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=60),
    length=st.integers(40, 64),
    batch_tokens=st.integers(40, 200),
    seed=st.integers(0, 5),
)
def test_an_epoch_holds_every_conversation_once_and_each_is_a_document_of_its_own(
    lengths, length, batch_tokens, seed
):
    rng = random.Random(seed)
    rows = [
        ([number + 1] * size, [rng.random() < 0.5 for _ in range(size)])
        for number, size in enumerate(lengths)
    ]
    batch, per_epoch = packed_rows(rows, length, batch_tokens, seed)
    for epoch in (0, 1):
        seen: Counter[int] = Counter()
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            made = batch(step)
            assert made.tokens.shape == made.targets.shape == made.documents.shape
            assert 1 <= len(made) <= max(1, batch_tokens // length)
            for ids, targets, documents in zip(
                made.tokens.tolist(), made.targets.tolist(), made.documents.tolist(), strict=True
            ):
                for document in set(documents) - {-1}:
                    start, end = documents.index(document), length - documents[::-1].index(document)
                    number = ids[start] - 1
                    seen[number] += 1
                    assert ids[start:end] == rows[number][0]
                    learned = [IGNORE_INDEX if not mask else number + 1 for mask in rows[number][1][1:]]
                    assert targets[start:end] == [*learned, IGNORE_INDEX]
                padding = [
                    target for target, document in zip(targets, documents, strict=True) if document < 0
                ]
                assert set(padding) <= {IGNORE_INDEX}
        assert seen == Counter(range(len(rows)))


def test_little_of_a_row_is_padding():
    rng = random.Random(0)
    rows = [([1] * size, [True] * size) for size in (rng.randint(10, 60) for _ in range(500))]
    batch, per_epoch = packed_rows(rows, 256, 1024, 0)
    padding = sum(int((batch(step).documents < 0).sum()) for step in range(per_epoch))
    assert padding < 0.02 * sum(len(ids) for ids, _ in rows) + 1024


def test_a_conversation_that_is_longer_than_a_row_is_refused():
    with pytest.raises(BadInput, match="50 tokens does not fit into a row of 40"):
        packed_rows([([1] * 50, [True] * 50)], 40, 80, 0)


def test_batches_are_a_pure_function_of_the_step():
    rows = [([number] * 5, [True] * 5) for number in range(20)]
    one, two = packed_rows(rows, 10, 25, 1)[0], packed_rows(rows, 10, 25, 1)[0]
    two(7)
    assert torch.equal(one(3).tokens, two(3).tokens)
    assert torch.equal(one(3).targets, two(3).targets)
