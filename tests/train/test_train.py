"""The one training loop, its optimizers and its checkpoints."""

import dataclasses
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput, MissingInput, UserError
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import IGNORED, Transformer
from crawltalk.recipe import Machine, Optim
from crawltalk.train import checkpoint, loop
from crawltalk.train.loop import compute_dtype, gradients
from crawltalk.train.optimizers import (
    Muon,
    learning_rate_factor,
    make_optimizers,
    orthogonalize,
    split_parameters,
)
from support.trainings import FP32, OPTIM, SHAPE, batches, fresh, rows_of, train

BF16 = Machine(workers=1, device="cpu", dtype="bfloat16")


@pytest.mark.parametrize("machine", [FP32, BF16], ids=["fp32", "bf16"])
def test_training_learns_to_count(tmp_path, machine):
    metrics = train(fresh(), tmp_path, steps=50, machine=machine, optim=Optim(lr=0.02, adam_lr=0.02))
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(50))
    assert rows[0]["loss"] == pytest.approx(4.11, abs=0.1)  # ln 61: an untrained model knows nothing
    assert metrics["loss"] < 0.3


@pytest.mark.parametrize("machine", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("stop", [2, 4, 9])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, machine, stop):
    def look(done, model):
        return {"looked": done}

    whole, resumed = fresh(), fresh()
    train(whole, tmp_path / "whole", machine=machine, look=look, look_every=3)

    class Killed(Exception):
        pass

    def until_killed(step):
        if step == stop:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        train(fresh(), tmp_path / "killed", machine=machine, source=until_killed, look=look, look_every=3)
    train(resumed, tmp_path / "killed", machine=machine, look=look, look_every=3)
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")


def test_a_resumed_run_keeps_the_dtype_that_it_began_with(tmp_path):
    train(fresh(), tmp_path, machine=BF16)
    assert train(fresh(), tmp_path, steps=16, machine=Machine(workers=1, device="cpu"))["dtype"] == "bfloat16"


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    weights = fresh()

    def poisoned(step):
        if step == 6:
            with torch.no_grad():
                weights.embedding.weight.fill_(torch.nan)
        return batches(step)

    with pytest.raises(UserError, match=r"loss of step 6 is nan.*lower the learning rates"):
        train(weights, tmp_path, source=poisoned)
    good = fresh()
    optimizers = make_optimizers(good, OPTIM)
    rescued = tmp_path / "rescued" / "step-000004.safetensors"
    checkpoint.load(rescued, good, optimizers)
    assert checkpoint.header(rescued) == (4, "float32")
    assert all(bool(weight.isfinite().all()) for weight in good.parameters())


def test_a_loss_that_rises_and_stays_stops_the_run_with_a_checkpoint_to_go_on_from(tmp_path):
    def noise_from_step_30(step):
        tokens, targets = batches(step)
        return tokens, targets if step < 30 else targets.flatten()[torch.randperm(128)].view(8, 16)

    with pytest.raises(UserError, match=r"risen to .* by step 34 and stayed there; lower the learning rates"):
        train(fresh(), tmp_path, steps=50, source=noise_from_step_30, optim=Optim(lr=0.02, adam_lr=0.02))
    assert rows_of(tmp_path)[-1]["step"] == 31
    assert [path.name for path in (tmp_path / "rescued").iterdir()] == ["step-000028.safetensors"]
    calm = Optim(lr=0.02, adam_lr=0.02, spike=0.0)
    train(fresh(), tmp_path / "calm", steps=40, source=noise_from_step_30, optim=calm)


def test_a_training_goes_on_from_a_rescued_checkpoint_with_other_rates(tmp_path):
    whole = fresh()
    train(whole, tmp_path / "whole", save_keep=3)
    start = str(tmp_path / "whole" / "state" / "step-000008.safetensors")
    same, calmer = fresh(), fresh()
    train(same, tmp_path / "same", start=start)
    train(calmer, tmp_path / "calmer", start=start, optim=Optim(lr=0.001, adam_lr=0.0001))
    assert [row["step"] for row in rows_of(tmp_path / "same")] == [8, 9, 10, 11]
    for a, b, c in zip(whole.parameters(), same.parameters(), calmer.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # inside of torch's compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_training_learns_the_same(tmp_path):
    train(fresh(), tmp_path / "eager", steps=4)
    train(fresh(), tmp_path / "compiled", steps=4, machine=dataclasses.replace(FP32, compile=True))
    eager, compiled = ([row["loss"] for row in rows_of(tmp_path / name)] for name in ("eager", "compiled"))
    assert compiled == pytest.approx(eager, abs=1e-4)


def test_a_start_that_is_not_there_no_checkpoint_or_too_late_is_refused(tmp_path):
    with pytest.raises(MissingInput, match="is not there; checkpoints that were kept"):
        train(fresh(), tmp_path, start=str(tmp_path / "absent"))
    (tmp_path / "other").write_text("no checkpoint")
    with pytest.raises(BadInput, match="is no checkpoint"):
        train(fresh(), tmp_path, start=str(tmp_path / "other"))
    train(fresh(), tmp_path / "whole")
    with pytest.raises(BadInput, match="has done 12 steps, and this training has 10"):
        train(
            fresh(), tmp_path, steps=10, start=str(tmp_path / "whole" / "state" / "step-000012.safetensors")
        )


def test_the_newest_checkpoints_are_kept(tmp_path):
    train(fresh(), tmp_path, steps=20)
    assert [step for step, _ in checkpoint.all_in(tmp_path / "state")] == [16, 20]


def test_tensorboard_reads_the_losses_of_a_resumed_run(tmp_path):
    machine = Machine(workers=1, device="cpu", dtype="float32", tensorboard=str(tmp_path / "events"))

    def until_killed(step):
        if step == 6:
            raise KeyboardInterrupt
        return batches(step)

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), tmp_path / "run", machine=machine, source=until_killed)
    train(fresh(), tmp_path / "run", machine=machine)
    seen = {}
    for path in sorted((tmp_path / "events" / "run").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        seen |= losses_in(path.read_bytes())
    assert seen == {row["step"]: pytest.approx(row["loss"], rel=1e-6) for row in rows_of(tmp_path / "run")}


def losses_in(data):
    """Steps and losses of an event file (TFRecord: length, checksum, event, checksum)."""
    from tensorboardX.proto.event_pb2 import Event

    found, place = {}, 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 8], "little")
        event = Event.FromString(data[place + 12 : place + 12 + size])
        found.update((event.step, value.simple_value) for value in event.summary.value if value.tag == "loss")
        place += 16 + size
    return found


def test_micro_batches_give_the_gradient_of_the_whole_batch(monkeypatch):
    tokens, targets = batches(0)
    targets = targets.clone()
    targets[0] = IGNORED  # so that micro-batches count unequal numbers of targets
    found = []
    for size in (16, 10_000):
        monkeypatch.setitem(loop.MICRO_TOKENS, "cpu", size)
        model = fresh()
        loss, norm = gradients(model, model, tokens, targets, clip=0.5)
        assert norm > 0.5
        clipped = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
        assert float(clipped) == pytest.approx(0.5, rel=1e-3)
        found.append((loss, [weight.grad for weight in model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    model = fresh()
    checkpoint.save(
        tmp_path / "c.safetensors", checkpoint.collect(model, make_optimizers(model, OPTIM)), 7, "float32"
    )
    other = Transformer(
        Shape(vocab_size=61, layers=1, width=32, heads=2, kv_heads=2, head_dim=16, mlp=64, context=16)
    )
    wide = Transformer(
        Shape(vocab_size=61, layers=2, width=64, heads=2, kv_heads=2, head_dim=16, mlp=64, context=16)
    )
    for stranger in (other, wide):
        with pytest.raises(BadInput, match="another model"):
            checkpoint.load(tmp_path / "c.safetensors", stranger, make_optimizers(stranger, OPTIM))


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = fresh()
    matrices, rest = split_parameters(model)
    assert len(matrices) == 4 * SHAPE.layers
    assert len(matrices) + len(rest) == len(list(model.parameters()))
    assert any(weight is model.embedding.weight for weight in rest)


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


@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.5), cooldown=st.floats(0, 0.5))
def test_the_schedule_rises_stays_and_falls_within_bounds(steps, warmup, cooldown):
    config = Optim(lr=1.0, adam_lr=1.0, warmup=warmup, cooldown=cooldown)
    factors = [learning_rate_factor(step, steps, config) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UserError, match="float32 or bfloat16, not 'int4'"):
        compute_dtype(Machine(dtype="int4"))
