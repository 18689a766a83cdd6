"""bench gpu: training, decoding and reinforcement on a GPU, in less than ten minutes. On a machine without one the same
code runs in miniature (a tiny model, gloo, no torch.compile).

Each part is a process of its own, `python -m crawltalk.bench.gpu PART DEVICE FOLDER`, with its own limit of time. It
prints rows; a part that fails or runs over has one row that says so, and the next part goes on.

The torch backend decodes without CUDA graphs: every kernel is launched by itself, and the row says so.
"""

import copy
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from crawltalk.bench.data import figure
from crawltalk.bench.engine_trace import pair_tokenizer
from crawltalk.bench.tokenizer import memory
from crawltalk.core.types import Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.backends.torch import TorchBackend
from crawltalk.model.hf import save_model
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.reinforce import Group, reinforce
from crawltalk.posttraining.rollouts import EngineRollouts
from crawltalk.pretraining.pretrain import shape_of
from crawltalk.recipe import Machine, Model, Optim, Reinforce, cost
from crawltalk.recipe.model import derive_model
from crawltalk.rewards.problems import read_problems
from crawltalk.rewards.verdict import Verdict, correct
from crawltalk.run.stage import Progress
from crawltalk.train.batches import Batch, Batches
from crawltalk.train.loop import TrainingOptions, compute_gradients, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.optimizers import make_optimizers
from crawltalk.train.precision import compute_dtype, matmul_peak
from crawltalk.train.ranks import Ranks
from crawltalk.train.sharding import shard_model

OPTIM = Optim(muon_lr=0.01, adamw_lr=0.001, spike=0.0)
WANTED_MFU = 0.5
GSM8K = Path("shared/data/gsm8k/train.jsonl")
"""Prompts to reinforce on, where the folder in which this runs has them."""
TOLERANCE = 1e-2
"""How far two losses of the same training may lie apart, in nats: sums of bf16 in another order."""


class Size(NamedTuple):
    """What is trained and decoded on a kind of device."""

    model: Model
    vocabulary: int
    rows: int
    steps: int
    prompt: int
    reply: int
    decoded_rows: int
    rl_steps: int
    rl_samples: int


SIZES = {
    "cuda": Size(
        derive_model(Model(family="gpt2", depth=12, width=768, context=1024)),
        50_304,
        256,
        24,
        64,
        128,
        8,
        12,
        16,
    ),
    "cpu": Size(derive_model(Model(family="gpt2", depth=2, width=64, context=32)), 512, 4, 6, 4, 8, 2, 20, 8),
}
"""On a GPU GPT-2's smallest shape, 124 million parameters, and 262,144 tokens a step."""


def gpu() -> Iterator[dict[str, Any]]:
    """The rows of every part, as soon as it ends."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for part, limit in LIMITS.items():
        yield from run_part(part, device, limit)


def run_part(part: str, device: str, limit: float) -> list[dict[str, Any]]:
    """The rows of one part; one row with the `problem` if it fails or takes more than `limit` seconds."""
    launcher = [sys.executable, "-m"]
    if part == "ranks":
        count = max(1, torch.cuda.device_count()) if device == "cuda" else 1
        launcher += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
    with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as folder:
        child = subprocess.Popen(
            [*launcher, "crawltalk.bench.gpu", part, device, folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            output, errors = child.communicate(timeout=limit)
            problem = (errors.strip().splitlines() or ["no message"])[-1] if child.returncode else None
        except subprocess.TimeoutExpired:
            child.terminate()  # torchrun ends its ranks
            output, problem = child.communicate()[0], f"not done after {limit:g} s"
        except BaseException:
            child.terminate()
            child.wait()
            raise
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if problem is not None:
        empty = dict.fromkeys(figure("", "", [1.0], None, None))
        rows.append(empty | {"name": f"gpu.{part}", "unit": f"failed: {problem}", "passed": False})
    return rows


def train(device: torch.device, folder: Path) -> Iterator[dict[str, Any]]:
    """Speed, share of the peak and memory of training, in the faster dtype, compiled on a GPU."""
    size = SIZES[device.type]
    machine = Machine(device=device.type, compile=device.type == "cuda")
    dtype = compute_dtype(machine)
    began: dict[int, float] = {}

    def timed(step: int) -> Batch:
        began[step] = time.perf_counter()
        return _batches(size)(step)

    _fit(_model(size), timed, size.steps, machine, folder)
    seconds = [after - before for before, after in pairwise(began.values())][size.steps // 2 :]
    speeds = [size.rows * size.model.context / one for one in seconds]
    peak, source = _peak(dtype, device)
    flops = cost.training_flops(size.model, size.vocabulary, 1)
    about = f"{dtype}, {size.rows} x {size.model.context} tokens a step"
    yield figure("gpu.train", "tokens/s", speeds, None, about) | {"passed": True}
    shares = [speed * flops / peak for speed in speeds]
    passed = device.type == "cpu" or statistics.median(shares) >= WANTED_MFU
    yield figure("gpu.train_mfu", f"of {source}", shares, None, about) | {"passed": passed}
    used = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else memory("VmHWM")
    yield figure("gpu.train_memory", "MB", [used], None, about) | {"passed": True}


def resume(device: torch.device, folder: Path) -> Iterator[dict[str, Any]]:
    """A training that is interrupted and resumed has the losses of one that is not."""
    size = SIZES[device.type]
    machine, batches, steps = Machine(device=device.type, compile=False), _batches(size), 6

    def stopping(step: int) -> Batch:
        if step == steps // 2:
            raise InterruptedError
        return batches(step)

    _fit(_model(size), batches, steps, machine, folder / "whole")
    try:
        _fit(_model(size), stopping, steps, machine, folder / "resumed", save_every=steps // 2)
    except InterruptedError:
        _fit(_model(size), batches, steps, machine, folder / "resumed")
    whole, resumed = (_losses(folder / name) for name in ("whole", "resumed"))
    apart = [abs(a - b) for a, b in zip(whole, resumed, strict=True)]
    yield figure("gpu.resume", "nats apart, the most", [max(apart)], None, "itself, not interrupted") | {
        "passed": max(apart) <= TOLERANCE
    }


def ranks(device: torch.device, folder: Path) -> Iterator[dict[str, Any]]:
    """On every rank of torchrun: copies of the model (DDP) and shards of it (FSDP2) learn alike."""
    size, own = SIZES[device.type], Ranks.from_environment()
    if device.type == "cuda":
        device = own.device("cuda")
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    dtype, losses = compute_dtype(Machine(device=device.type)), {}
    for way in ("copies", "shards"):
        model = _model(size)
        master = shard_model(model, own, device, dtype) if way == "shards" else model.to(device)
        computing = master if way == "shards" or dtype == torch.float32 else copy.deepcopy(master).to(dtype)
        optimizers = make_optimizers(master, OPTIM, dtype)
        losses[way], seconds = [], []
        for step in range(size.steps // 3):
            began = time.perf_counter()
            batch = _batches(size)(step)
            loss, _, _ = compute_gradients(master, computing, cross_entropy, batch, 1.0, own)
            for optimizer in optimizers:
                optimizer.step()
            losses[way].append(loss)
            seconds.append(time.perf_counter() - began)
        speeds = [size.rows * size.model.context / one for one in seconds[1:]]
        apart = max(abs(a - b) for a, b in zip(losses["copies"], losses[way], strict=True))
        about = f"{own.world_size} ranks, {way}; losses {apart:.1e} nats from those of copies"
        if own.rank == 0:
            yield figure(f"gpu.ranks_{way}", "tokens/s", speeds, None, about) | {"passed": apart <= TOLERANCE}
    dist.destroy_process_group()


def decode(device: torch.device, folder: Path) -> Iterator[dict[str, Any]]:
    """Greedy ids against the CPU's, and the speed against transformers' `generate`."""
    from transformers import AutoModelForCausalLM

    tiny = SIZES["cpu"]
    prompts = torch.randint(0, 256, (tiny.decoded_rows, tiny.prompt)).tolist()
    there, here = (
        _greedy(_random(tiny).to(one), prompts, tiny.reply) for one in (device, torch.device("cpu"))
    )
    same = sum(a == b for a, b in zip(there, here, strict=True))
    yield figure("gpu.decode_ids", f"of {len(here)} replies as on the CPU", [same], None, "float32") | {
        "passed": there == here
    }
    size, dtype = SIZES[device.type], compute_dtype(Machine(device=device.type))
    model = _random(size)
    save_model(model, folder / "model", eos=0)
    peer = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype).to(device).eval()
    rows, reply = size.decoded_rows, size.reply
    rounds = torch.randint(
        0, 256, (4, rows, size.prompt), device=device
    )  # no round finds its prompts in a cache
    backend = TorchBackend(model.to(device, dtype))
    engine = Engine(backend.model, pair_tokenizer(size.vocabulary), backend)

    def ours(inputs: torch.Tensor) -> None:
        engine.generate(inputs.tolist(), Sampling(temperature=0.0, max_tokens=reply), frozenset())

    def theirs(inputs: torch.Tensor) -> None:
        mask = torch.ones_like(inputs)
        peer.generate(
            inputs, attention_mask=mask, do_sample=False, min_new_tokens=reply, max_new_tokens=reply
        )

    times: dict[Callable[[torch.Tensor], None], list[float]] = {ours: [], theirs: []}
    for inputs in rounds:
        for side, seconds in times.items():
            began = time.perf_counter()
            side(inputs)
            seconds.append(time.perf_counter() - began)
    speeds = [[rows * reply / one for one in seconds[1:]] for seconds in times.values()]
    about = f"transformers' generate, {dtype}, {rows} rows; ours without CUDA graphs"
    yield figure("gpu.decode", "tokens/s", speeds[0], speeds[1], about) | {"passed": True}


def _model(size: Size) -> Transformer:
    model = Transformer(shape_of(size.model, size.vocabulary))
    model.initialize(0)
    return model


def _random(size: Size) -> Transformer:
    """A model whose logits lie far apart, so that no two tokens are equally good."""
    model = _model(size)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(4.0)
    return model


def _batches(size: Size) -> Batches:
    """Rows that count: there is something to learn."""

    def batch(step: int) -> Batch:
        generator = torch.Generator().manual_seed(step)
        starts = torch.randint(0, size.vocabulary, (size.rows, 1), generator=generator)
        rows = (starts + torch.arange(size.model.context + 1)) % size.vocabulary
        return Batch(rows[:, :-1], rows[:, 1:])

    return batch


def _fit(
    model: Transformer, batches: Batches, steps: int, machine: Machine, out: Path, save_every: int = 1000
) -> None:
    options = TrainingOptions(
        steps=steps, optim=OPTIM, machine=machine, progress=Progress(), out=out, save_every=save_every
    )
    fit(model, batches, cross_entropy, options)


def _losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def _peak(dtype: torch.dtype, device: torch.device) -> tuple[float, str]:
    """FLOP/s that the device can reach: of its data sheet if it is known and computes in bf16, else measured."""
    name = torch.cuda.get_device_name(device).lower() if device.type == "cuda" else ""
    known = next((known for known in cost.HARDWARE if known in name), None)
    if known is not None and dtype == torch.bfloat16:
        return cost.HARDWARE[known].flops, f"the peak of {known.upper()}"
    return matmul_peak(dtype, device), "the measured matmul peak"


def _greedy(model: Transformer, prompts: list[list[int]], reply: int) -> list[list[int]]:
    engine = Engine(model, pair_tokenizer(model.shape.vocab_size), TorchBackend(model))
    return [
        list(one)
        for one in engine.generate(prompts, Sampling(temperature=0.0, max_tokens=reply), frozenset())
    ]


def rl(device: torch.device, folder: Path) -> Iterator[dict[str, Any]]:
    """Steps of GRPO with random weights on prompts of GSM8K: sampler and training agree about each token, and what is
    rewarded, even bytes, becomes more.
    """
    size = SIZES[device.type]
    model, tokenizer = _model(size).to(device), pair_tokenizer(size.vocabulary)
    backend = TorchBackend(model)
    rollouts = EngineRollouts(
        Engine(model, tokenizer, backend),
        lambda problem: tokenizer.encode(problem.prompt)[: size.prompt],
        size.reply,
        frozenset(),
    )
    asked = read_problems(GSM8K)[0] if GSM8K.exists() else [Problem(prompt="1 + 1 =", answer="2", task="sum")]
    config = Reinforce(steps=size.rl_steps, groups=8, samples=size.rl_samples, max_tokens=size.reply)
    machine = Machine(device=device.type, dtype="float32", compile=False)
    options = TrainingOptions(
        steps=config.steps,
        optim=Optim(muon_lr=0.01, adamw_lr=0.01, spike=0.0),
        machine=machine,
        progress=Progress(),
        out=folder,
        save_every=config.steps,
    )

    def problems(draw: int, _: Sequence[Group]) -> list[Problem]:
        return random.Random(draw).choices(asked, k=config.groups)

    reinforce(model, rollouts, problems, _even, config, options, 0)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    about = f"float32, 8 x {config.samples} replies of {size.reply} tokens; {len(asked)} prompts"
    speeds = [row["rollout_tokens_per_second"] for row in rows[1:]]
    yield figure("gpu.rl_rollout", "tokens/s", speeds, None, about) | {"passed": True}
    apart = max(row["sampler_difference"] for row in rows)
    yield figure("gpu.rl_sampler", "nats apart", [apart], None, about) | {"passed": apart <= TOLERANCE}
    before, after = (statistics.mean(row["reward"] for row in some) for some in (rows[:3], rows[-3:]))
    yield figure("gpu.rl_reward", "at the end", [after], [before], "at the beginning") | {
        "passed": after > before
    }


def _even(problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
    """The share of even bytes in a reply."""
    texts = [reply.encode() for reply in replies]
    return [correct(sum(byte % 2 == 0 for byte in text) / max(1, len(text))) for text in texts]


PARTS = {"train": train, "resume": resume, "ranks": ranks, "decode": decode, "rl": rl}
LIMITS = {"train": 180.0, "resume": 90.0, "ranks": 100.0, "decode": 100.0, "rl": 110.0}
"""Seconds; less than ten minutes in all."""


if __name__ == "__main__":
    for row in PARTS[sys.argv[1]](torch.device(sys.argv[2]), Path(sys.argv[3])):
        print(json.dumps(row), flush=True)
    sys.stdout.flush()
    os._exit(0)  # as a stage's process ends (run/child.py)
