"""Batches: their rows, and where they come from."""

import random
from collections import Counter

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.shards import ShardIndex, TokenShards, write_index, write_split
from crawltalk.train.batches import IGNORE_INDEX, Batch, padded_rows, windows


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


@given(st.lists(st.integers(2, 40), min_size=1, max_size=60), st.integers(40, 200), st.integers(0, 5))
def test_an_epoch_holds_every_row_once_within_the_batch_size(lengths, batch_tokens, seed):
    rng = random.Random(seed)
    rows = [
        ([number + 1] * length, [rng.random() < 0.5 for _ in range(length)])
        for number, length in enumerate(lengths)
    ]
    batch, per_epoch = padded_rows(rows, batch_tokens, seed)
    for epoch in (0, 1):
        seen: Counter[int] = Counter()
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            tokens, targets = batch(step).tokens, batch(step).targets
            assert tokens.shape == targets.shape
            assert tokens.shape[0] * (tokens.shape[1] + 1) <= batch_tokens
            for ids, row_targets in zip(tokens.tolist(), targets.tolist(), strict=True):
                number = ids[0] - 1
                seen[number] += 1
                counted = [index for index, target in enumerate(row_targets) if target != IGNORE_INDEX]
                assert counted == [index for index, learned in enumerate(rows[number][1][1:]) if learned]
                assert all(row_targets[index] == ids[0] for index in counted)
        assert seen == Counter(range(len(rows)))


def test_batches_are_a_pure_function_of_the_step():
    rows = [([number] * 5, [True] * 5) for number in range(20)]
    one, two = padded_rows(rows, 25, 1)[0], padded_rows(rows, 25, 1)[0]
    two(7)
    assert torch.equal(one(3).tokens, two(3).tokens)
    assert torch.equal(one(3).targets, two(3).targets)
