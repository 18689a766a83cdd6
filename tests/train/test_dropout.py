"""Trainings of adapters, with dropout: they resume bit for bit, on any number of threads."""

import pytest
import torch

from crawltalk.model.adapters import adapted_layers, add_adapters
from crawltalk.recipe import Lora, Machine
from crawltalk.train import checkpoint
from crawltalk.train.dropout import with_dropout
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.optimizers import make_optimizers, trained_weights
from support.trainings import FP32, OPTIM, batches, fresh, train


class Killed(Exception):
    pass


LORA = Lora(rank=4, dropout=0.3)


def adapted(dtype=torch.float32, lora=LORA):
    model = fresh().to(dtype)
    add_adapters(model, lora, seed=0)
    return model


def fit(model, out, *, killed_at=None, machine=FP32, seed=0, **settings):
    def source(step):
        if step == killed_at:
            raise Killed
        return batches(step)

    seeded, dropping = with_dropout(source, cross_entropy, LORA, seed)
    return train(model, out, source=seeded, objective=dropping, machine=machine, save_every=2, **settings)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_of_adapters_that_was_killed_resumes_bit_for_bit(dtype, tmp_path):
    machine = Machine(workers=2, device="cpu", dtype=dtype)
    kind = getattr(torch, dtype)  # a frozen model needs no fp32 copy of its weights
    whole, killed, resumed = (adapted(kind) for _ in range(3))
    fit(whole, tmp_path / "whole", steps=5, machine=machine)
    with pytest.raises(Killed):
        fit(killed, tmp_path / "killed", steps=5, machine=machine, killed_at=3)
    fit(resumed, tmp_path / "killed", steps=5, machine=machine)
    start = dict(adapted(kind).named_parameters())
    for (name, ours), theirs in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert torch.equal(ours, start[name]) != ours.requires_grad, name


def test_what_is_dropped_does_not_depend_on_the_threads_and_follows_the_seed(tmp_path):
    models = [adapted() for _ in range(3)]
    for number, (model, workers, seed) in enumerate(zip(models, (1, 2, 2), (0, 0, 1), strict=True)):
        machine = Machine(workers=workers, device="cpu", dtype="float32")
        fit(model, tmp_path / str(number), steps=3, machine=machine, seed=seed)
    one, two, other = (model.blocks[0].mlp.down.lora_A for model in models)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_adapters_learn_by_adamw_and_only_they_are_in_a_checkpoint(tmp_path):
    model = adapted()
    muon, adamw = make_optimizers(model, OPTIM)
    assert not muon.param_groups[0]["params"]
    assert len(adamw.param_groups[0]["params"]) == 2 * len(list(adapted_layers(model)))
    first = train(model, tmp_path, steps=1)["loss"]
    assert train(model, tmp_path / "more", steps=30)["loss"] < first - 0.1
    saved = checkpoint.collect(model, make_optimizers(model, OPTIM))
    assert set(saved) == {f"model.{name}" for name in trained_weights(model)}
