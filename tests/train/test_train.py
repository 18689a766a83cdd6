"""The one training loop and its checkpoints."""

import dataclasses
import shutil

import msgspec
import pytest
import torch

from crawltalk.core.errors import BadInput, MissingInput, UserError
from crawltalk.model.hf import load_model, save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Machine, Optim
from crawltalk.train import checkpoint, loop
from crawltalk.train.batches import IGNORE_INDEX, Batch
from crawltalk.train.loop import compute_gradients, micro_batches
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.optimizers import make_optimizers, trained_weights
from crawltalk.train.precision import compute_dtype
from crawltalk.train.ranks import ALONE
from crawltalk.train.threads import Threads
from support.trainings import (
    FP32,
    OPTIM,
    SHAPE,
    adapters_only,
    batches,
    fresh,
    last_block_only,
    pairs,
    preference,
    rows_of,
    train,
)

BF16 = Machine(workers=1, device="cpu", dtype="bfloat16")
FROZEN = pytest.mark.parametrize("make", [last_block_only, adapters_only], ids=["last block", "adapters"])


class Killed(Exception):
    """Ends a training as a signal would."""


def killed_at(stop):
    def source(step):
        if step == stop:
            raise Killed
        return batches(step)

    return source


def losses(out):
    return [row["loss"] for row in rows_of(out)]


def test_training_learns_to_count(tmp_path):
    metrics = train(fresh(), tmp_path, steps=50, optim=Optim(muon_lr=0.02, adamw_lr=0.02))
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(50))
    assert rows[0]["loss"] == pytest.approx(4.11, abs=0.1)  # ln 61: an untrained model knows nothing
    assert metrics["loss"] < 0.3


def test_a_training_in_bf16_learns_nearly_the_same(tmp_path):
    train(fresh(), tmp_path / "fp32", steps=6)
    assert train(fresh(), tmp_path / "bf16", steps=6, machine=BF16)["dtype"] == "bfloat16"
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=0.02)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "fp32")


@pytest.mark.parametrize(
    ("machine", "steps", "stop"), [(FP32, 12, 2), (FP32, 12, 4), (FP32, 12, 9), (BF16, 6, 5)]
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, machine, steps, stop):
    def evaluate(done, model):
        return {"evaluated": done}

    settings = {"steps": steps, "machine": machine, "evaluate": evaluate, "evaluate_every": 3}
    whole, resumed = fresh(), fresh()
    train(whole, tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        train(fresh(), tmp_path / "killed", source=killed_at(stop), **settings)
    train(resumed, tmp_path / "killed", **settings)
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")


def test_a_resumed_run_keeps_the_dtype_that_it_began_with(tmp_path):
    train(fresh(), tmp_path, steps=1, machine=BF16)
    assert train(fresh(), tmp_path, steps=2, machine=Machine(workers=1, device="cpu"))["dtype"] == "bfloat16"


def test_evaluations_and_saved_models_come_when_they_are_due_and_the_last_step_is_evaluated(tmp_path):
    saved = []
    train(
        fresh(),
        tmp_path,
        steps=7,
        evaluate=lambda done, model: {"evaluated": done},
        evaluate_every=3,
        save_model=lambda done, model: saved.append(done),
        save_model_every=2,
    )
    assert [row["evaluated"] for row in rows_of(tmp_path) if "evaluated" in row] == [3, 6, 7]
    assert saved == [2, 4, 6]


def test_an_objective_of_ten_lines_is_learned_and_its_figures_are_in_the_log(tmp_path):
    train(fresh(), tmp_path, source=pairs, objective=preference, optim=Optim(muon_lr=0.02, adamw_lr=0.02))
    rows = rows_of(tmp_path)
    assert rows[0]["loss"] == pytest.approx(0.69, abs=0.1)  # ln 2: neither reply is preferred
    assert rows[-1]["loss"] < 0.5
    assert rows[-1]["accuracy"] == 1.0
    assert all(0 <= row["accuracy"] <= 1 for row in rows)


def test_the_log_stays_json_and_keeps_its_own_columns_whatever_the_figures(tmp_path):
    def objective(model, batch):
        total, count, _ = cross_entropy(model, batch)
        return total, count, {"step": 5.0, "loss": 0.0, "advantage": float("nan")}

    train(fresh(), tmp_path, objective=objective)
    rows = [msgspec.json.decode(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert all(row["loss"] > 0 and row["advantage"] is None for row in rows)


def test_a_log_can_be_read_between_two_checkpoints(tmp_path):
    with pytest.raises(Killed):
        train(fresh(), tmp_path, source=killed_at(2))
    assert [row["step"] for row in rows_of(tmp_path)][:1] == [0]
    assert not (tmp_path / loop.STATE).exists()


def test_a_training_of_no_weight_is_refused(tmp_path):
    with pytest.raises(BadInput, match="all weights are frozen"):
        train(fresh().requires_grad_(False), tmp_path)


@FROZEN
def test_frozen_weights_have_no_gradient_and_no_state_and_stay_as_they_are(make, tmp_path):
    before, model = make(), make()
    train(model, tmp_path, steps=4)
    for (name, old), new in zip(before.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(old, new) != new.requires_grad, name
        assert (new.grad is None) != new.requires_grad, name
    saved = checkpoint.collect(model, make_optimizers(model, OPTIM))
    assert set(saved) == {f"model.{name}" for name in trained_weights(model)}
    optimizers = make_optimizers(model, OPTIM)
    checkpoint.load(tmp_path / "state" / "step-000004.safetensors", model, optimizers)
    held = {id(weight) for optimizer in optimizers for weight in optimizer.state}
    assert held == {id(weight) for weight in trained_weights(model).values()}


@FROZEN
def test_the_norm_that_is_clipped_is_that_of_the_trained_weights(make):
    model = make()
    everything = make().requires_grad_(True)
    batch = batches(0)
    _, norm, _ = compute_gradients(model, model, cross_entropy, batch, clip=1e9)
    _, larger, _ = compute_gradients(everything, everything, cross_entropy, batch, clip=1e9)
    grads = [weight.grad for weight in trained_weights(model).values()]
    assert norm == pytest.approx(float(torch.nn.utils.get_total_norm(grads)))
    assert norm < larger
    for name, weight in trained_weights(model).items():
        torch.testing.assert_close(weight.grad, dict(everything.named_parameters())[name].grad)


@FROZEN
@pytest.mark.parametrize("machine", [FP32, BF16], ids=["fp32", "bf16"])
def test_a_resumed_run_with_frozen_weights_equals_an_uninterrupted_one(make, machine, tmp_path):
    whole, resumed = make(), make()
    train(whole, tmp_path / "whole", steps=4, machine=machine, save_every=2)
    with pytest.raises(Killed):
        train(make(), tmp_path / "killed", steps=4, machine=machine, save_every=2, source=killed_at(3))
    train(resumed, tmp_path / "killed", steps=4, machine=machine, save_every=2)
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_model_that_was_trained_in_part_is_exported_whole(tmp_path):
    model = last_block_only()
    train(model, tmp_path, steps=2)
    save_model(model, tmp_path / "model", eos=0)
    for ours, theirs in zip(model.parameters(), load_model(tmp_path / "model").parameters(), strict=True):
        assert torch.equal(ours, theirs)


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
    assert checkpoint.read_header(rescued) == (4, "float32")
    assert all(bool(weight.isfinite().all()) for weight in good.parameters())


def test_a_loss_that_rises_and_stays_stops_the_run_with_a_checkpoint_to_go_on_from(tmp_path):
    def noise_from_step_30(step):
        batch = batches(step)
        noise = batch.targets.flatten()[torch.randperm(128)].view(8, 16)
        return batch if step < 30 else Batch(batch.tokens, noise)

    with pytest.raises(UserError, match=r"risen to .* by step 34 and stayed there; lower the learning rates"):
        train(
            fresh(), tmp_path, steps=50, source=noise_from_step_30, optim=Optim(muon_lr=0.02, adamw_lr=0.02)
        )
    assert rows_of(tmp_path)[-1]["step"] >= 31  # the last checkpoint, or later if somebody could have watched
    assert [path.name for path in (tmp_path / "rescued").iterdir()] == ["step-000028.safetensors"]
    calm = Optim(muon_lr=0.02, adamw_lr=0.02, spike=0.0)
    train(fresh(), tmp_path / "calm", steps=40, source=noise_from_step_30, optim=calm)


def test_a_training_goes_on_from_a_rescued_checkpoint_with_other_rates(tmp_path):
    whole = fresh()
    train(whole, tmp_path / "whole", save_keep=3)
    rescued = str(tmp_path / "whole" / "state" / "step-000008.safetensors")
    same, calmer = fresh(), fresh()
    train(same, tmp_path / "same", resume_from=rescued)
    train(calmer, tmp_path / "calmer", resume_from=rescued, optim=Optim(muon_lr=0.001, adamw_lr=0.0001))
    assert [row["step"] for row in rows_of(tmp_path / "same")] == [8, 9, 10, 11]
    for a, b, c in zip(whole.parameters(), same.parameters(), calmer.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # inside of torch's compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_training_learns_the_same(tmp_path):
    def one_block():
        model = Transformer(dataclasses.replace(SHAPE, layers=1))
        model.initialize(3)
        return model

    train(one_block(), tmp_path / "eager", steps=3)
    train(one_block(), tmp_path / "compiled", steps=3, machine=dataclasses.replace(FP32, compile=True))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), abs=1e-4)


def test_a_checkpoint_that_is_not_there_is_none_or_has_too_many_steps_is_refused(tmp_path):
    with pytest.raises(MissingInput, match="is not there; checkpoints that were kept"):
        train(fresh(), tmp_path, resume_from=str(tmp_path / "absent"))
    (tmp_path / "other").write_text("no checkpoint")
    with pytest.raises(BadInput, match="is no checkpoint"):
        train(fresh(), tmp_path, resume_from=str(tmp_path / "other"))
    train(fresh(), tmp_path / "whole")
    with pytest.raises(BadInput, match="has done 12 steps, and this training has 10"):
        train(
            fresh(),
            tmp_path,
            steps=10,
            resume_from=str(tmp_path / "whole" / "state" / "step-000012.safetensors"),
        )


def test_the_newest_checkpoints_are_kept(tmp_path):
    train(fresh(), tmp_path, steps=20)
    assert [step for step, _ in checkpoint.list_all(tmp_path / "state")] == [16, 20]


def test_tensorboard_reads_the_losses_of_a_resumed_run(tmp_path):
    machine = Machine(workers=1, device="cpu", dtype="float32", tensorboard=str(tmp_path / "events"))

    with pytest.raises(Killed):
        train(fresh(), tmp_path / "run", machine=machine, source=killed_at(6))
    train(fresh(), tmp_path / "run", machine=machine)
    seen = {}
    for path in sorted((tmp_path / "events" / "run").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        seen |= losses_in(path.read_bytes())
    assert seen == {row["step"]: pytest.approx(row["loss"], rel=1e-6) for row in rows_of(tmp_path / "run")}


def losses_in(data):
    """Steps and losses of an event file (TFRecord: length, checksum, event, checksum)."""
    from tensorboardX.proto.event_pb2 import Event

    read, offset = {}, 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 8], "little")
        event = Event.FromString(data[offset + 12 : offset + 12 + size])
        read.update((event.step, value.simple_value) for value in event.summary.value if value.tag == "loss")
        offset += 16 + size
    return read


def test_micro_batches_give_the_gradient_of_the_whole_batch(monkeypatch):
    batch = Batch(batches(0).tokens, batches(0).targets.clone())
    batch.targets[0] = IGNORE_INDEX  # so that micro-batches count unequal numbers of targets
    results = []
    for size in (16, 10_000):
        monkeypatch.setitem(loop.MICRO_BATCH_TOKENS, "cpu", size)
        model = fresh()
        loss, norm, _ = compute_gradients(model, model, cross_entropy, batch, clip=0.5)
        assert norm > 0.5
        clipped = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
        assert float(clipped) == pytest.approx(0.5, rel=1e-3)
        results.append((loss, [weight.grad for weight in model.parameters()]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_step_is_the_same_to_the_last_bit_on_any_number_of_threads(monkeypatch):
    monkeypatch.setitem(loop.MICRO_BATCH_TOKENS, "cpu", 16)
    parts, results = micro_batches(batches(0), ALONE, torch.device("cpu"), fresh()), []
    assert len(parts) > 3
    for count in (1, 2, 3):
        threads = Threads(count, len(parts))
        model = fresh()
        optimizers = make_optimizers(model, OPTIM, threads=threads)
        for step in range(3):
            figures = compute_gradients(model, model, cross_entropy, batches(step), 0.5, ALONE, threads)
            for optimizer in optimizers:
                optimizer.step()
        threads.close()
        results.append((figures, list(model.parameters())))
    for figures, weights in results[1:]:
        assert figures == results[0][0]
        assert all(map(torch.equal, weights, results[0][1]))


def test_threads_beyond_the_parts_of_a_step_work_inside_of_the_operations():
    before = torch.get_num_threads()
    threads = Threads(4, 2)
    assert (threads.count, torch.get_num_threads()) == (2, 2)
    assert list(threads.map(lambda item: item * item, range(9))) == [item * item for item in range(9)]
    with threads.inside():
        assert torch.get_num_threads() == 4
    threads.close()
    torch.set_num_threads(before)


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


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UserError, match="float32 or bfloat16, not 'int4'"):
        compute_dtype(Machine(dtype="int4"))
