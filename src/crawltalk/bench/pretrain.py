"""bench pretrain: a training step against that of transformers, of the same shape and batch, each side in a
process of its own.

`python -m crawltalk.bench.pretrain SIDE FAMILY VOCABULARY CONTEXT ROWS` is such a process. It prints one JSON
object: tokens a second, bytes of memory for each token of a batch beyond weights and optimizer, the share of
the measured matmul peak. Both sides compute in bf16 where that is the faster type (transformers under
autocast), else in fp32. transformers trains with fused AdamW, the whole batch at once or in parts of 4,096
positions: whichever is faster counts for speed, whichever takes less counts for memory.
"""

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from crawltalk.bench.data import figure
from crawltalk.bench.tokenizer import memory
from crawltalk.core.errors import UserError
from crawltalk.model.config import config_of
from crawltalk.model.transformer import Transformer
from crawltalk.pretraining.pretrain import shape_of
from crawltalk.recipe import Family, Machine, Model, Optim, cost
from crawltalk.train.allocator import keep_freed_memory
from crawltalk.train.batches import Batch
from crawltalk.train.loop import compute_gradients, micro_batches
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.optimizers import make_optimizers
from crawltalk.train.precision import compute_dtype, matmul_peak
from crawltalk.train.ranks import ALONE
from crawltalk.train.threads import Threads

THREADS = 2
WARM, STEPS = 2, 5
PART_TOKENS = 4096
"""Positions in a part of the peer's batch."""
SIDES = {"qwen3": "transformers' Qwen3", "gpt2": "transformers' GPT-2"}
Step = Callable[[torch.Tensor], Any]


def pretrain(runs: int) -> Iterator[dict[str, Any]]:
    """One figure per comparison, as soon as it is known."""
    for family, label in SIDES.items():
        rounds = [_rounds(family, 4096, 512, 16) for _ in range(runs)]
        ours, peer = ([row[side]["tokens_per_second"] for row in rounds] for side in ("ours", "peer"))
        what = f"{label}, 12 M parameters, 16 x 512 tokens, {rounds[0]['ours']['dtype']}"
        yield figure(f"pretrain.throughput_{family}", "tokens/s", ours, peer, what, THREADS)
        ours, peer = ([row[side]["peak_fraction"] for row in rounds] for side in ("ours", "peer"))
        yield figure("pretrain.peak_fraction", "of the matmul peak", ours, peer, what, THREADS)
        rounds = [_rounds(family, 32_768, 1024, 4) for _ in range(runs)]
        ours, peer = ([row[side]["bytes_per_token"] for row in rounds] for side in ("ours", "peer"))
        what = f"{label}, 4 x 1,024 tokens, vocabulary of 32,768"
        yield figure(f"pretrain.memory_{family}", "bytes/token", ours, peer, what, THREADS)


def _rounds(family: str, vocabulary: int, context: int, rows: int) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for side in ("ours", "whole", "parts"):
        words = (side, family, vocabulary, context, rows)
        command = [sys.executable, "-m", "crawltalk.bench.pretrain", *map(str, words)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(
                f"{side} failed ({last}); transformers is installed with: pip install --group test"
            )
        results[side] = json.loads(done.stdout)
    best = max(("whole", "parts"), key=lambda side: results[side]["tokens_per_second"])
    least = min(results[side]["bytes_per_token"] for side in ("whole", "parts"))
    return {"ours": results["ours"], "peer": results[best] | {"bytes_per_token": least}}


def _model(family: Family, context: int) -> Model:
    """12 million parameters with a vocabulary of 4,096."""
    mlp = 1536 if family == "gpt2" else 1024
    return Model(
        family=family, depth=6, width=384, heads=6, kv_heads=6, head_dim=64, mlp=mlp, context=context
    )


def _ours(model: Model, vocabulary: int, rows: int, dtype: torch.dtype) -> Step:
    keep_freed_memory()
    master = Transformer(shape_of(model, vocabulary))
    master.initialize(0)
    compute_model = master if dtype == torch.float32 else copy.deepcopy(master).to(dtype)
    largest = torch.zeros((rows, model.context), dtype=torch.int64)
    threads = Threads(THREADS, len(micro_batches(Batch(largest, largest), ALONE, largest.device, master)))
    optimizers = make_optimizers(master, Optim(muon_lr=0.02, adamw_lr=0.003), dtype, threads)

    def step(tokens_BT: torch.Tensor) -> None:
        batch = Batch(tokens_BT[:, :-1], tokens_BT[:, 1:])
        compute_gradients(master, compute_model, cross_entropy, batch, 1.0, ALONE, threads)
        for optimizer in optimizers:
            optimizer.step()

    return step


def _transformers(model: Model, vocabulary: int, rows: int, dtype: torch.dtype) -> Step:
    import transformers

    config = transformers.AutoConfig.for_model(**config_of(shape_of(model, vocabulary)))
    peer = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    optimizer = torch.optim.AdamW(peer.parameters(), lr=3e-4, fused=True)

    def step(tokens_BT: torch.Tensor) -> None:
        for part in tokens_BT[:, :-1].split(rows):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = peer(input_ids=part, labels=part).loss
            (loss * (len(part) / len(tokens_BT))).backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main(side: str, family: Family, vocabulary: int, context: int, rows: int) -> None:
    """Time some steps of one side."""
    torch.set_num_threads(THREADS)
    model, dtype = _model(family, context), compute_dtype(Machine(device="cpu"))
    parts = rows if side == "whole" else max(1, PART_TOKENS // context)
    step = (
        _ours(model, vocabulary, rows, dtype)
        if side == "ours"
        else _transformers(model, vocabulary, parts, dtype)
    )
    tokens_BT = torch.randint(0, vocabulary, (rows, context + 1), generator=torch.Generator().manual_seed(0))
    step(tokens_BT[:1, :9])  # makes gradients and the optimizer's state
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    for _ in range(WARM):
        step(tokens_BT)
    began = time.perf_counter()
    for _ in range(STEPS):
        step(tokens_BT)
    speed = STEPS * rows * context / (time.perf_counter() - began)
    beyond = (memory("VmHWM") - before) * 1e6
    torch.set_num_threads(THREADS)  # ours has one in each operation
    peak = matmul_peak(dtype, torch.device("cpu"))
    fraction = speed * cost.training_flops(model, vocabulary, 1) / peak
    figures = {
        "tokens_per_second": speed,
        "bytes_per_token": beyond / (rows * context),
        "peak_fraction": fraction,
    }
    print(json.dumps(figures | {"dtype": str(dtype).removeprefix("torch.")}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))  # type: ignore[arg-type]
