"""The one training loop: pretraining, fine-tuning and whatever else learns by gradient goes through `fit`.

Batches are a pure function of the step, so a run that was killed and resumed equals an uninterrupted one bit
for bit (on the same number of threads). Master weights and optimizer state are fp32; matrix products run in
`compute_dtype`.
"""

import copy
import ctypes
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from crawltalk.core.errors import BadInput, UserError
from crawltalk.core.files import write_atomically
from crawltalk.model.transformer import IGNORED, Transformer
from crawltalk.recipe import Machine, Optim
from crawltalk.run.stage import RESCUED, STATE, Metrics, Progress
from crawltalk.train import checkpoint
from crawltalk.train.optimizers import learning_rate_factor, make_optimizers
from crawltalk.train.ranks import ALONE, Ranks
from crawltalk.train.sharding import gather, sharded, whole

Batches = Callable[[int], tuple[Tensor, Tensor]]
"""step -> (tokens, targets), int64 [B, T] each; a target of -100 is not counted."""
Look = Callable[[int, Transformer], dict[str, Any]]
"""(steps done, model) -> what goes into the log, such as the validation loss and samples."""

CPU = torch.device("cpu")
COMPILED_STEPS = 1000
"""Steps on a GPU from which on `torch.compile` earns back its minute or so."""
RISEN = 5
"""Losses that must have risen before a training is given up."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of malloc.h."""
MICRO_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Positions in one forward and backward pass: on a CPU what stays near its caches, see EXPERIMENTS.md."""


def fit(
    model: Transformer,
    batches: Batches,
    *,
    steps: int,
    optim: Optim,
    out: Path,
    save_every: int,
    progress: Progress,
    machine: Machine,
    look: Look | None = None,
    look_every: int = 0,
    save_keep: int = 2,
    keep: Callable[[int, Transformer], None] | None = None,
    keep_every: int = 0,
    start: str = "",
    ranks: Ranks = ALONE,
) -> Metrics:
    """Train `model` in place for `steps` steps, of which each takes the batch of all `ranks` together.

    Rank 0 writes out/log.jsonl and, while it works, out/state/ with the `save_keep` newest checkpoints;
    `keep` gets (steps done, model) every `keep_every` steps. A new training begins with the checkpoint
    `start`, if there is one. Raises UserError if the loss is no number any more, or rises and stays.
    """
    device = ranks.device(machine.device)
    if device.type == "cpu":
        torch.set_num_threads(max(1, (machine.workers or torch.get_num_threads()) // ranks.neighbours))
        keep_freed_memory()
    state = out / STATE
    saved = [path for _, path in checkpoint.all_in(state)] or ([Path(start)] if start else [])
    if saved:
        first, name = checkpoint.header(saved[-1])
        dtype = getattr(torch, name)  # not what a new probe finds: the run must go on as it began
        if saved == [Path(start)] and first >= steps:
            raise BadInput(
                f"{start} has done {first} steps, and this training has {steps}; give it more, or an earlier start"
            )
    else:
        first, dtype = 0, getattr(torch, ranks.agreed(str(compute_dtype(machine)).removeprefix("torch.")))
    model.recompute = machine.recompute
    shared = machine.shard and ranks.world > 1
    master = sharded(model, ranks, device, dtype) if shared else model.to(device)
    optimizers = make_optimizers(master, optim)
    optimizers[0].dtype = dtype
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    if saved:
        checkpoint.load(saved[-1], master, optimizers)
    events = Events(machine.tensorboard, out, first) if machine.tensorboard and ranks.rank == 0 else None
    log = Log(out / "log.jsonl", first, events)
    long = device.type == "cuda" and steps - first >= COMPILED_STEPS
    compiled = long if machine.compile is None else machine.compile
    worker = master if shared or (dtype == torch.float32 and not compiled) else copy.deepcopy(model).to(dtype)
    if compiled:  # a copy's: what looks at the model feeds it many shapes
        worker.states = torch.compile(worker.states, dynamic=False)
    trained, loss, began = 0, math.nan, time.monotonic()
    for step in range(first, steps):
        factor = learning_rate_factor(step, steps, optim)
        for optimizer, rates in zip(optimizers, peaks, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        tokens_BT, targets_BT = batches(step)
        mine, wanted = (ranks.share(part).to(device) for part in (tokens_BT, targets_BT))
        loss, norm = gradients(master, worker, mine, wanted, optim.clip, ranks)
        if not math.isfinite(loss) or not math.isfinite(norm):
            _rescue(out, step, ranks)
            raise UserError(f"the loss of step {step} is {loss} (gradient {norm}); {_advice(optim)}")
        for optimizer in optimizers:
            optimizer.step()
        trained += tokens_BT.numel()
        rate = trained / (time.monotonic() - began)
        log.add({"step": step, "loss": loss, "norm": norm, "lr": factor, "tokens_per_second": round(rate)})
        if optim.spike and diverged(log.losses, optim.spike):
            _rescue(out, step - RISEN + 1, ranks)
            why = f"the loss has risen to {loss:.2f} by step {step} and stayed there"
            raise UserError(f"{why}; {_advice(optim)}, or allow it with optim.spike 0")
        progress.update(step + 1, steps, "steps", loss=round(loss, 4), tokens_per_second=round(rate))
        done = step + 1
        looks = look is not None and look_every > 0 and (done % look_every == 0 or done == steps)
        keeps = keep is not None and keep_every > 0 and done % keep_every == 0
        if shared and (looks or keeps or done == steps):
            gather(master, model)
        if ranks.rank == 0:
            if look is not None and looks:
                log.add({"step": step, **look(done, model)})
            if keep is not None and keeps:
                keep(done, model)
        if done % save_every == 0 or done == steps:
            tensors = checkpoint.collect(master, optimizers)
            if ranks.rank == 0:
                log.flush()
                checkpoint.save(
                    checkpoint.path_of(state, done), tensors, done, str(dtype).removeprefix("torch.")
                )
                checkpoint.keep_newest(state, save_keep)
    if events is not None:
        events.close()
    seconds = time.monotonic() - began
    speed = round(trained / seconds) if trained else 0
    return {
        "steps": steps,
        "loss": log.last_loss(),
        "tokens_per_second": speed,
        "dtype": str(dtype).removeprefix("torch."),
    }


def gradients(
    model: Transformer,
    worker: Transformer,
    tokens_BT: Tensor,
    targets_BT: Tensor,
    clip: float,
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """Fill `model`'s gradients with those of the mean loss over all ranks, clipped to norm `clip`; (loss,
    norm before clipping).

    `worker` is the model itself or its copy in a smaller dtype, whose weights are refreshed here.
    """
    parameters = list(model.parameters())
    workers = list(worker.parameters())
    if worker is not model:
        with torch.no_grad():
            for weight, master in zip(workers, parameters, strict=True):
                weight.copy_(master)
    for weight in parameters:
        weight.grad = None
    rows = max(1, MICRO_TOKENS[tokens_BT.device.type] // tokens_BT.shape[1])
    total, counted = 0.0, 0
    shared = isinstance(parameters[0], DTensor)
    if shared:  # ranks gather layers together, so each must take as many micro-batches
        tokens_BT, targets_BT = ranks.fill_up(tokens_BT, 0), ranks.fill_up(targets_BT, IGNORED)
    for start in range(0, len(tokens_BT), rows):
        summed, count = worker.loss(tokens_BT[start : start + rows], targets_BT[start : start + rows])
        summed.backward()
        total += float(summed.detach())
        counted += int(count)
        if worker is not model:  # sum over micro-batches in fp32
            for weight, master in zip(workers, parameters, strict=True):
                assert weight.grad is not None
                master.grad = weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
                weight.grad = None
    sums = torch.tensor([total, counted], dtype=torch.float64, device=tokens_BT.device)
    ranks.sum([sums])
    total, counted = float(sums[0]), int(sums[1])
    for weight in parameters:
        if weight.grad is None:  # no row of the batch was this rank's
            weight.grad = torch.zeros_like(weight)
    if not shared:
        ranks.sum([weight.grad for weight in parameters if weight.grad is not None])
    scale = 1.0 / max(counted, 1)
    norm = (
        float(whole(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])))
        * scale
    )
    scale *= min(1.0, clip / (norm + 1e-6))
    for weight in parameters:
        assert weight.grad is not None
        weight.grad.mul_(scale)
    return total / max(counted, 1), norm


def diverged(losses: list[float], limit: float) -> bool:
    """Whether the last `RISEN` losses are each more than `limit` above the mean of the twenty before them."""
    before, last = losses[-20 - RISEN : -RISEN], losses[-RISEN:]
    return len(before) == 20 and min(last) > sum(before) / 20 + limit


def _advice(optim: Optim) -> str:
    return f"lower the learning rates (optim.lr {optim.lr:g}, optim.adam_lr {optim.adam_lr:g})"


def _rescue(out: Path, step: int, ranks: Ranks) -> None:
    """Put the newest checkpoint from before `step` aside: the engine keeps it when the recipe changes, and
    says where it is.
    """
    good = [path for done, path in checkpoint.all_in(out / STATE) if done <= step]
    if good and ranks.rank == 0:
        (out / RESCUED).mkdir(exist_ok=True)
        good[-1].replace(out / RESCUED / good[-1].name)


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next one (on other C libraries: nothing happens).

    By default every large tensor is fresh memory of the system: some 80,000 page faults a step at 4 million
    parameters, a tenth of the time, and several times the step on a virtual machine whose host takes free
    memory back.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def compute_dtype(machine: Machine) -> torch.dtype:
    """The type of matrix products: the recipe's, or the faster of fp32 and bf16 by a probe of some
    milliseconds.
    """
    if machine.dtype is not None:
        if machine.dtype not in ("float32", "bfloat16"):
            raise UserError(f"machine.dtype is float32 or bfloat16, not {machine.dtype!r}")
        return getattr(torch, machine.dtype)
    if machine.device == "cuda":
        return torch.bfloat16
    seconds = {dtype: _time_product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return min(seconds, key=lambda dtype: seconds[dtype])


def _time_product(dtype: torch.dtype, size: int = 512, device: torch.device = CPU) -> float:
    """Seconds of a product of [2 x size, size] and [size, size]."""
    left, right = (torch.ones(rows, size, dtype=dtype, device=device) for rows in (2 * size, size))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return sorted(times)[2]


def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP a second that this machine reaches in one large product of matrices, on the threads that are set."""
    size = 8192 if device.type == "cuda" else 1536
    return 4 * size**3 / _time_product(dtype, size, device)


class Log:
    """out/log.jsonl: written with each checkpoint; rows beyond the checkpoint that is resumed from are
    forgotten.
    """

    def __init__(self, path: Path, done: int, events: "Events | None" = None) -> None:
        self.path, self.events = path, events
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows: list[dict[str, Any]] = [row for row in map(json.loads, lines) if row["step"] < done]
        self.losses: list[float] = [row["loss"] for row in self.rows if "loss" in row]

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self.rows.append(row)
        self.losses += [row["loss"]] if "loss" in row else []
        if self.events is not None:
            self.events.add(row)

    def flush(self) -> None:
        """Write all rows."""
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())

    def last_loss(self) -> float:
        """The mean loss over the last tenth of the steps: one batch says little."""
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return round(sum(tail) / len(tail), 4)


class Events:
    """Event files of TensorBoard, in FOLDER/NAME OF THE STAGE'S FOLDER; steps that are done again replace
    their older rows.
    """

    def __init__(self, folder: str, out: Path, done: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError(
                "machine.tensorboard needs tensorboardX; get it with: pip install tensorboardX"
            ) from None
        self._writer = SummaryWriter(
            str(Path(folder) / out.name), purge_step=done, filename_suffix=f".{done}"
        )

    def add(self, row: dict[str, Any]) -> None:
        """The numbers of a row of the log."""
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """The training is over."""
        self._writer.close()
