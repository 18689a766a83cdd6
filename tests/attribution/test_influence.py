"""Gradients of single examples, and what training examples are worth to a text."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.attribution.gradients import Example, Recorder, padded
from crawltalk.attribution.influence import influence
from crawltalk.core.errors import BadInput
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Machine, Optim
from crawltalk.run.stage import Progress
from crawltalk.train.batches import Batch
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy
from support.models import GPT2, LLAMA, QWEN, SPEEDRUN, random_model

METHODS = [("dot", True), ("cosine", True), ("layer_cosine", True), ("fisher", True), ("fisher", False)]


@st.composite
def examples(draw: Any, count: int = 3, longest: int = 12) -> list[Example]:
    """Ids with at least one token to learn behind the first."""
    made: list[Example] = []
    for _ in range(draw(st.integers(1, count))):
        ids = draw(st.lists(st.integers(0, 96), min_size=2, max_size=longest))
        learned = [False, *draw(st.lists(st.booleans(), min_size=len(ids) - 1, max_size=len(ids) - 1))]
        learned[draw(st.integers(1, len(ids) - 1))] = True
        made.append((ids, learned))
    return made


def by_autograd(model: Transformer, example: Example) -> dict[str, torch.Tensor]:
    """All gradients of one example's loss, by the training's own objective."""
    names, weights = zip(*model.named_parameters(), strict=True)
    tokens, targets = padded([example], model.shape.context)
    gradients = torch.autograd.grad(
        cross_entropy(model, Batch(tokens, targets))[0], weights, allow_unused=True
    )
    return {name: gradient for name, gradient in zip(names, gradients, strict=True) if gradient is not None}


def vector(gradients: dict[str, torch.Tensor], names: Sequence[str]) -> torch.Tensor:
    return torch.cat([gradients[name].flatten() for name in names])


@settings(deadline=None, max_examples=15)
@given(shape=st.sampled_from([QWEN, LLAMA, GPT2, SPEEDRUN]), rows=examples())
def test_gradients_of_examples_equal_those_that_autograd_gives_one_by_one(shape: Shape, rows: list[Example]):
    model = random_model(shape)
    recorder = Recorder(model)
    matrices = {name for name, weight in model.named_parameters() if weight.ndim == 2}
    assert matrices - set(recorder.sizes) <= {
        "positions.weight",
        "skips.values.0.weight",
        "skips.values.1.weight",
    }
    expected = [by_autograd(model, row) for row in rows]
    seen = set()
    for numbers, name, gradients in recorder.gradients(rows):
        for number, gradient in zip(numbers, gradients, strict=True):
            scale = expected[number][name].abs().max() + 1e-3
            torch.testing.assert_close(gradient / scale, expected[number][name] / scale, rtol=0, atol=2e-5)
            seen.add((number, name))
    assert seen == {(number, name) for number in range(len(rows)) for name in recorder.sizes}


@settings(deadline=None, max_examples=10)
@given(queries=examples(2), rows=examples(4))
def test_each_method_is_what_it_is_of_whole_gradients(queries: list[Example], rows: list[Example]):
    model = random_model(LLAMA)
    names = list(Recorder(model).sizes)
    asked, learned = ([by_autograd(model, row) for row in part] for part in (queries, rows))

    def product(names: Sequence[str], cosine: bool) -> torch.Tensor:
        one, two = (torch.stack([vector(row, names) for row in part]) for part in (asked, learned))
        if cosine:
            one, two = (torch.nn.functional.normalize(part, dim=1) for part in (one, two))
        return one @ two.T

    def same(found: torch.Tensor, expected: torch.Tensor) -> None:
        scale = expected.abs().max() + 1e-6
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-4)

    same(influence(model, queries, rows, method="dot", blocks=True), product(names, False))
    same(influence(model, queries, rows, method="cosine", blocks=True), product(names, True))
    layers = torch.stack([product([name], True) for name in names]).mean(0)
    same(influence(model, queries, rows, method="layer_cosine", blocks=True), layers)
    same(influence(model, queries, rows, method="dot"), product(["embedding.weight", "head.weight"], False))


def test_an_example_is_worth_less_where_all_examples_pull():
    model = random_model(dataclasses.replace(QWEN, layers=1))
    torch.manual_seed(0)
    rows = [([0, *row], [True] * 5) for row in torch.randint(1, 97, (8, 4)).tolist()]
    one = influence(model, rows, rows)
    again = influence(model, rows, [*rows, rows[0], rows[0], rows[0]])
    assert again[0, 0] < one[0, 0]
    assert (one.argmax(1) == torch.arange(8)).all()


def test_influence_finds_the_document_that_was_planted(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shape = dataclasses.replace(QWEN, width=32, mlp=64)
    model = Transformer(shape)
    model.initialize(0)
    rows = torch.randint(1, 97, (24, 17), generator=generator)
    secret = rows[7, 6:]  # a part of what one document says is asked about
    options = TrainingOptions(
        steps=10,
        optim=Optim(muon_lr=0.02, adamw_lr=0.01, spike=0.0),
        machine=Machine(workers=1, device="cpu", dtype="float32"),
        progress=Progress(),
        out=tmp_path,
        save_every=10,
    )
    fit(model, lambda step: Batch(rows[:, :-1], rows[:, 1:]), cross_entropy, options)
    learned = [(row, [True] * len(row)) for row in rows.tolist()]
    query = secret.tolist(), [True] * len(secret)
    for method, blocks in METHODS:
        scores = influence(model, [query], learned, method=method, blocks=blocks)
        assert int(scores.argmax()) == 7, method


def test_bad_input_is_one_line():
    model, fine = random_model(QWEN), ([1, 2], [False, True])
    for rows, method, message in (
        ([([1, 2, 3], [True, False, False])], "dot", "no token to learn"),
        ([([1] * 66, [True] * 66)], "dot", "an example of 66 tokens does not fit into the context of 64"),
        ([fine], "guess", "there is no method 'guess' of influence; there are dot, cosine"),
    ):
        with pytest.raises(BadInput, match=message):
            influence(model, [fine], rows, method=method)
