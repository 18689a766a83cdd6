"""The one training loop: pretraining, fine-tuning and whatever else learns by gradient goes through `fit`.

Batches are a pure function of the step, so a run that was killed and resumed equals an uninterrupted one bit
for bit (on the same number of threads). Master weights and optimizer state are fp32; matrix products run in
`compute_dtype`.

A weight whose `requires_grad` is off is frozen: it has no gradient and no optimizer state, does not count in
the norm, and is not in the checkpoints, as it is what it was when the training began.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from crawltalk.core.errors import BadInput, UserError
from crawltalk.model.trainable import Trainable
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Machine, Optim
from crawltalk.run.stage import RESCUED, STATE, Metrics, Progress
from crawltalk.train import checkpoint
from crawltalk.train.allocator import keep_freed_memory
from crawltalk.train.batches import Batch, Batches
from crawltalk.train.log import TensorBoardEvents, TrainingLog
from crawltalk.train.objectives import Objective
from crawltalk.train.optimizers import learning_rate_factor, make_optimizers, trained_weights
from crawltalk.train.precision import compute_dtype
from crawltalk.train.ranks import ALONE, Ranks
from crawltalk.train.sharding import full_tensor, gather_weights, is_sharded, shard_model
from crawltalk.train.threads import Threads

Model = TypeVar("Model", bound=Trainable)

MIN_COMPILED_STEPS = 1000
"""Steps on a GPU from which on `torch.compile` makes up for its minute or so of compilation."""
PATIENCE = 5
"""High losses in a row after which a training is given up."""
MICRO_BATCH_TOKENS = {"cpu": 1024, "cuda": 65536}
"""Positions in one forward and backward pass of a thread: on a CPU as few as keep the products fast, so that caches
hold them and the threads finish together. See EXPERIMENTS.md.
"""
WIDE, WIDE_MICRO_BATCH_TOKENS = 512, 512
"""Models of this width and more compute so many positions at once on a CPU: products are as fast, and what is kept
for the backward pass takes half the memory.
"""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How long a training lasts, how it steps, where it runs, and when it saves."""

    steps: int
    optim: Optim
    machine: Machine
    progress: Progress
    out: str | Path
    """Folder of log.jsonl and, while the training runs, of state/ with its checkpoints."""
    save_every: int
    """Steps between two checkpoints; there is one after the last step, too."""
    save_keep: int = 2
    """The number of checkpoints that are kept, the newest ones."""
    resume_from: str = ""
    """A checkpoint that a new training begins with; an interrupted one continues from its own."""
    evaluate_every: int = 0
    """Steps between two calls of `evaluate`; there is one after the last step, too. 0: none."""
    save_model_every: int = 0
    """Steps between two calls of `save_model`; 0: none."""


def fit(
    model: Model,
    batches: Batches,
    objective: Objective,
    options: TrainingOptions,
    *,
    evaluate: Callable[[int, Model], dict[str, Any]] | None = None,
    save_model: Callable[[int, Model], None] | None = None,
    stop: Callable[[Mapping[str, Any]], str | None] | None = None,
    ranks: Ranks = ALONE,
) -> Metrics:
    """Train `model` in place. Each step takes the batch of all `ranks` together.

    `evaluate` and `save_model` get (steps done, model), on rank 0; what `evaluate` returns goes into the log. `stop`
    gets the log's row of each step, on all ranks; the reason that it returns, if any, ends the training with a
    checkpoint, and is `stopped` in the metrics. Raises UserError if the loss is no longer finite, or rises and stays
    high.
    """
    machine, optim, steps, out = options.machine, options.optim, options.steps, Path(options.out)
    device = ranks.device(machine.device)
    workers = max(1, (machine.workers or torch.get_num_threads()) // ranks.local_world_size)
    if device.type == "cpu":
        keep_freed_memory()
    if not trained_weights(model):
        raise BadInput("all weights are frozen, so there is nothing to train; set requires_grad for some")
    out.mkdir(parents=True, exist_ok=True)
    state = out / STATE
    first, dtype, resumed = beginning(options, ranks)
    if resumed is not None and resumed.parent != state and first >= steps:
        raise BadInput(
            f"{resumed} has done {first} steps, and this training has {steps}; "
            "give it more, or an earlier checkpoint"
        )
    dtype_name = str(dtype).removeprefix("torch.")
    model.activation_checkpointing = machine.activation_checkpointing
    shard = machine.shard and ranks.world_size > 1
    master: Trainable = model.to(device)
    if shard:
        if not isinstance(model, Transformer):
            raise BadInput("only Transformers can be sharded: leave machine.shard out")
        master = shard_model(model, ranks, device, dtype)
    long = device.type == "cuda" and steps - first >= MIN_COMPILED_STEPS
    compiled = long if machine.compile is None else machine.compile
    # ranks that shard gather each layer together, so they compute one micro-batch at a time
    together = device.type != "cpu" or shard or compiled
    threads = Threads(workers)
    optimizers = make_optimizers(master, optim, dtype, threads)
    peak_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    if resumed is not None:
        checkpoint.load(resumed, master, optimizers)
    events = None
    if machine.tensorboard and ranks.rank == 0:
        events = TensorBoardEvents(machine.tensorboard, out.name, first)
    log = TrainingLog(out / "log.jsonl", first, events)
    compute_model = master if shard else compute_copy(model, dtype, apart=compiled)
    if compiled and isinstance(
        compute_model, Transformer
    ):  # a copy's: evaluations feed the model many shapes
        compute_model.states = torch.compile(compute_model.states, dynamic=False)
    trained, began = 0, time.monotonic()
    done, ended = first, None
    if stop is not None and log.losses:
        ended = stop(next(row for row in reversed(log.rows) if "loss" in row))
    with closing(threads):
        for step in range(first, first if ended else steps):
            factor = learning_rate_factor(step, steps, optim)
            for optimizer, rates in zip(optimizers, peak_rates, strict=True):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
            batch = batches(step)
            threads.share(1 if together else len(micro_batches(batch, ranks, device, master)))
            loss, norm, figures = compute_gradients(
                master, compute_model, objective, batch, optim.clip, ranks, threads
            )
            if not math.isfinite(loss) or not math.isfinite(norm):
                rescue(out, step, ranks)
                raise UserError(f"the loss of step {step} is {loss} (gradient {norm}); {_advice(optim)}")
            for optimizer in optimizers:
                optimizer.step()
            trained += batch.tokens.numel()
            speed = round(trained / (time.monotonic() - began))
            row = {"step": step, "loss": loss, "norm": norm, "lr_factor": factor, "tokens_per_second": speed}
            row = row | dict(batch.figures) | figures | row  # a figure never replaces what is in every row
            log.add(row)
            if ranks.rank == 0:
                log.flush_if_due()
            ended = stop(row) if stop is not None else None
            if optim.spike and diverged(log.losses, optim.spike):
                rescue(out, step - PATIENCE + 1, ranks)
                problem = f"the loss has risen to {loss:.2f} by step {step} and stayed there"
                raise UserError(f"{problem}; {_advice(optim)}, or allow it with optim.spike 0")
            shown = {name: round(row[name], 4) for name in ("loss", "reward") if name in row}
            options.progress.update(step + 1, steps, "steps", **shown, tokens_per_second=speed)
            done = step + 1
            last = done == steps or ended is not None
            evaluates = options.evaluate_every > 0 and (last or _due(done, options.evaluate_every))
            saves = _due(done, options.save_model_every)
            if shard and (evaluates or saves or last):
                gather_weights(master, model)
            if ranks.rank == 0:
                if evaluate is not None and evaluates:
                    with threads.inside():
                        log.add({"step": step, **evaluate(done, model)})
                if save_model is not None and saves:
                    save_model(done, model)
            if last or _due(done, options.save_every):
                tensors = checkpoint.collect(master, optimizers)
                if ranks.rank == 0:
                    log.flush()
                    checkpoint.save(checkpoint.path_of(state, done), tensors, done, dtype_name)
                    checkpoint.keep_newest(state, options.save_keep)
            if ended is not None:
                break
    if events is not None:
        events.close()
    speed = round(trained / (time.monotonic() - began)) if trained else 0
    stopped = {} if ended is None else {"stopped": ended}
    return {
        "steps": done,
        "loss": log.last_loss(),
        "tokens_per_second": speed,
        "dtype": dtype_name,
        **stopped,
    }


def beginning(options: TrainingOptions, ranks: Ranks = ALONE) -> tuple[int, torch.dtype, Path | None]:
    """Steps that are done already, the dtype of matrix products, and the checkpoint to continue from, if any: the
    training's own newest one, or `resume_from`. Then the dtype is that of the checkpoint: the run must continue as it
    began.
    """
    saved = [path for _, path in checkpoint.list_all(Path(options.out) / STATE)]
    resumed = saved[-1] if saved else Path(options.resume_from) if options.resume_from else None
    if resumed is not None:
        first, name = checkpoint.read_header(resumed)
        return first, getattr(torch, name), resumed
    name = str(compute_dtype(options.machine)).removeprefix("torch.")
    return 0, getattr(torch, ranks.broadcast(name)), None


def compute_copy(model: Model, dtype: torch.dtype, *, apart: bool = False) -> Model:
    """The model itself if it computes in `dtype`: fp32, or adapters beside frozen weights of that dtype. Else, or to
    keep it `apart`, a copy.
    """
    same = next(model.parameters()).dtype == dtype and not apart
    return model if same else copy.deepcopy(model).to(dtype)


def compute_gradients(
    model: Trainable,
    compute_model: Trainable,
    objective: Objective,
    batch: Batch,
    clip: float,
    ranks: Ranks = ALONE,
    threads: Threads | None = None,
) -> tuple[float, float, dict[str, float]]:
    """Fill the gradients of `model`'s trained weights with those of the mean loss over the batch of all ranks.

    They are clipped to norm `clip`. Returns (loss, norm before clipping, means of the objective's figures).
    `compute_model` is the model itself or its copy in a smaller dtype, whose weights are refreshed here.
    """
    weights, computed = (list(trained_weights(one).values()) for one in (model, compute_model))
    if compute_model is not model:
        with torch.no_grad():
            for copied, weight in zip(computed, weights, strict=True):
                copied.copy_(weight)
    for weight in weights:
        weight.grad = None
    device, sharded = weights[0].device, is_sharded(weights[0])

    def compute(part: Batch) -> tuple[float, int, dict[str, float], Sequence[Tensor | None]]:
        """Loss, count, figures and gradients of a micro-batch; those of an empty one are zero."""
        idle = len(part) == 0
        summed, count, figures = compute_model.compute(objective, batch[:1].to(device) if idle else part)
        if idle:
            summed, count, figures = summed * 0.0, 0, dict.fromkeys(figures, 0.0)
        if sharded:  # the gradients of shards are summed over ranks and micro-batches on the way
            summed.backward()
            grads: Sequence[Tensor | None] = ()
        else:  # of this micro-batch alone: threads compute several at once
            grads = torch.autograd.grad(summed, computed, allow_unused=True)
        return float(summed.detach()), int(count), {name: float(it) for name, it in figures.items()}, grads

    total, counted, sums = 0.0, 0, dict[str, float]()
    each = map if threads is None else threads.map
    for loss, count, figures, grads in each(compute, micro_batches(batch, ranks, device, model)):
        total += loss
        counted += count
        for name, figure in figures.items():
            sums[name] = sums.get(name, 0.0) + figure
        for weight, grad in zip(weights, grads, strict=not sharded):  # sum over micro-batches in fp32
            if grad is not None:
                weight.grad = (
                    grad.to(weight.dtype, copy=True) if weight.grad is None else weight.grad.add_(grad)
                )
    everything = torch.tensor([total, counted, *sums.values()], dtype=torch.float64, device=device)
    ranks.sum([everything])
    total, counted = float(everything[0]), int(everything[1])
    for weight in weights:
        if weight.grad is None:  # the objective does not use it
            weight.grad = torch.zeros_like(weight)
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if not sharded:
        ranks.sum(gradients)
    scale = 1.0 / max(counted, 1)
    norm = float(full_tensor(torch.nn.utils.get_total_norm(gradients))) * scale
    means = {name: float(value) * scale for name, value in zip(sums, everything[2:], strict=True)}
    scale *= min(1.0, clip / (norm + 1e-6))
    for gradient in gradients:
        gradient.mul_(scale)
    return total / max(counted, 1), norm, means


def micro_batches(batch: Batch, ranks: Ranks, device: torch.device, model: Trainable) -> list[Batch]:
    """What a rank computes of a batch, a few rows at a time: as many parts as rank 0 has, which has the most rows,
    so that ranks that shard gather their layers together. The last ones may be empty.
    """
    own, longest = batch.share(ranks.rank, ranks.world_size).to(device), len(batch.share(0, ranks.world_size))
    positions = model.micro_batch_tokens or MICRO_BATCH_TOKENS[device.type]
    if device.type == "cpu" and model.width >= WIDE:
        positions = min(positions, WIDE_MICRO_BATCH_TOKENS)
    rows = max(1, positions // batch.tokens.shape[1])
    return [own[start : start + rows] for start in range(0, longest, rows)]


def longest_row(model: Trainable) -> int:
    """Positions of a row that texts share, if no text needs more: as many as are computed at once on a CPU."""
    return WIDE_MICRO_BATCH_TOKENS if model.width >= WIDE else MICRO_BATCH_TOKENS["cpu"]


def diverged(losses: list[float], limit: float) -> bool:
    """Whether the last `PATIENCE` losses are each more than `limit` above the mean of the twenty before them."""
    before, last = losses[-20 - PATIENCE : -PATIENCE], losses[-PATIENCE:]
    return len(before) == 20 and min(last) > sum(before) / 20 + limit


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _advice(optim: Optim) -> str:
    rates = f"optim.muon_lr {optim.muon_lr:g}, optim.adamw_lr {optim.adamw_lr:g}"
    return f"lower the learning rates ({rates})"


def rescue(out: Path, step: int, ranks: Ranks = ALONE) -> None:
    """Put the newest checkpoint from before `step` aside, where the run keeps it when the recipe changes."""
    good = [path for done, path in checkpoint.list_all(out / STATE) if done <= step]
    if good and ranks.rank == 0:
        (out / RESCUED).mkdir(exist_ok=True)
        good[-1].replace(out / RESCUED / good[-1].name)
