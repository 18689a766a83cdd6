"""Muon, AdamW's part, and the schedule."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.recipe import Optim
from crawltalk.train.optimizers import AdamW, Muon, learning_rate_factor, orthogonalize, split_parameters
from support.trainings import SHAPE, fresh, last_block_only


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = fresh()
    matrices, rest = split_parameters(model)
    assert len(matrices) == 4 * SHAPE.layers
    assert len(matrices) + len(rest) == len(list(model.parameters()))
    assert any(weight is model.embedding.weight for weight in rest)


def test_frozen_weights_have_no_optimizer():
    matrices, rest = split_parameters(last_block_only())
    assert len(matrices) == 4
    assert len(rest) == 4  # the norms of the block, of its queries and of its keys


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(48, 32), (32, 48), (64, 16)])
def test_an_orthogonalized_matrix_keeps_its_directions_and_has_singular_values_near_one(size, dtype):
    matrix = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(matrix.to(dtype)).float()
    values = torch.linalg.svdvals(result)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    exact = left @ right
    assert float((result * exact).sum() / (result.norm() * exact.norm())) > 0.97


@pytest.mark.parametrize("size", [(48, 32), (32, 48)])
def test_our_muon_steps_like_that_of_torch(size):
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(size, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.1, momentum=0.95, weight_decay=0.1)
    reference = torch.optim.Muon(
        [theirs], lr=0.1, momentum=0.95, weight_decay=0.1, nesterov=True, adjust_lr_fn="original"
    )
    for _ in range(3):
        gradient = torch.randn(size, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    # bf16 iterations; the steps add up to about 0.05 a weight
    torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0.0)
    assert float((ours.detach() - start).norm()) > 0.5


def test_our_adamw_steps_as_that_of_torch_to_the_last_bit():
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(size, generator=generator) for size in ((7, 3), (5,), (2, 2))]
    ours, theirs = ([torch.nn.Parameter(weight.clone()) for weight in start] for _ in range(2))
    settings = {"lr": 0.1, "eps": 1e-8, "weight_decay": 0.1}
    mine = AdamW(ours, beta1=0.8, beta2=0.95, **settings)
    reference = torch.optim.AdamW(theirs, betas=(0.8, 0.95), foreach=True, **settings)
    for step in range(3):
        mine.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        for one, other in zip(
            ours[: step + 1], theirs, strict=False
        ):  # the later ones have no gradient at first
            gradient = torch.randn(one.shape, generator=generator)
            one.grad, other.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert not any(torch.equal(one, weight) for one, weight in zip(ours, start, strict=True))


@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.5), cooldown=st.floats(0, 0.5))
def test_the_schedule_rises_stays_and_falls_within_bounds(steps, warmup, cooldown):
    config = Optim(muon_lr=1.0, adamw_lr=1.0, warmup=warmup, cooldown=cooldown)
    factors = [learning_rate_factor(step, steps, config) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
