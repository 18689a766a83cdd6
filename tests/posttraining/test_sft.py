"""Batches of conversations."""

import random
from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.model.transformer import IGNORED
from crawltalk.posttraining.sft import padded_batches


@given(st.lists(st.integers(2, 40), min_size=1, max_size=60), st.integers(40, 200), st.integers(0, 5))
def test_an_epoch_holds_every_row_once_within_the_batch_size(lengths, batch_tokens, seed):
    rng = random.Random(seed)
    rows = [
        ([number + 1] * length, [rng.random() < 0.5 for _ in range(length)])
        for number, length in enumerate(lengths)
    ]
    batch, per_epoch = padded_batches(rows, batch_tokens, seed)
    for epoch in (0, 1):
        seen: Counter[int] = Counter()
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            tokens, targets = batch(step)
            assert tokens.shape == targets.shape
            assert tokens.shape[0] * (tokens.shape[1] + 1) <= batch_tokens
            for ids, wanted in zip(tokens.tolist(), targets.tolist(), strict=True):
                number = ids[0] - 1
                seen[number] += 1
                counted = [place for place, target in enumerate(wanted) if target != IGNORED]
                assert counted == [place for place, spoken in enumerate(rows[number][1][1:]) if spoken]
                assert all(wanted[place] == ids[0] for place in counted)
        assert seen == Counter(range(len(rows)))


def test_batches_are_a_pure_function_of_the_step():
    rows = [([number] * 5, [True] * 5) for number in range(20)]
    one, two = padded_batches(rows, 25, 1)[0], padded_batches(rows, 25, 1)[0]
    two(7)
    assert all(torch.equal(a, b) for a, b in zip(one(3), two(3), strict=True))
