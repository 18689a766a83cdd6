"""Objectives: what a training minimises."""

import pytest
import torch
from torch.nn import functional as F

from crawltalk.train.batches import IGNORE_INDEX, Batch, document_numbers
from crawltalk.train.objectives.cross_entropy import cross_entropy
from support.models import QWEN, SPEEDRUN, random_model


def test_the_fused_loss_and_its_gradients_are_those_of_plain_cross_entropy():
    model = random_model(QWEN)
    tokens = torch.randint(0, 97, (3, 20))
    targets = torch.randint(0, 97, (3, 20))
    targets[0, :5] = IGNORE_INDEX
    total, count, figures = cross_entropy(model, Batch(tokens, targets))
    assert figures == {}
    (total / count).backward()
    ours = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    plain = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX)
    plain.backward()
    torch.testing.assert_close(total / count, plain)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(ours[name], weight.grad, atol=1e-5, rtol=1e-4)


def test_the_loss_of_capped_logits_and_its_gradients_are_those_of_plain_cross_entropy():
    model, tokens = random_model(SPEEDRUN), torch.randint(0, 97, (2, 21))
    weights = list(model.parameters())
    fused, count, _ = cross_entropy(model, Batch(tokens[:, :-1], tokens[:, 1:]))
    plain = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    assert int(count) == 40
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(fused, weights), torch.autograd.grad(plain, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frozen", ["embedding", "head"])
def test_a_frozen_head_or_body_spares_its_half_of_the_gradients(frozen):
    model, tokens = random_model(SPEEDRUN), torch.randint(0, 97, (2, 21))
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    cross_entropy(model, batch)[0].backward()
    every = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith("head") == (frozen == "embedding"))
    cross_entropy(model, batch)[0].backward()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(weight.grad, every[name])
        else:
            assert weight.grad is None


@torch.no_grad()
def test_documents_of_a_batch_are_scored_as_if_each_stood_alone():
    model, tokens = random_model(QWEN), torch.randint(1, 97, (1, 30))
    tokens[0, 0] = tokens[0, 12] = 0
    targets = tokens.roll(-1, 1)
    packed, count, _ = cross_entropy(model, Batch(tokens, targets, document_numbers(tokens, eot=0)))
    alone = [
        cross_entropy(model, Batch(tokens[:, part], targets[:, part]))[0]
        for part in (slice(12), slice(12, 30))
    ]
    assert int(count) == 30
    torch.testing.assert_close(packed, alone[0] + alone[1], rtol=1e-4, atol=1e-3)
