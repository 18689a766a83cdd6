"""bench rl: a step of reinforcement learning against TRL's GRPOTrainer, with adapters against TRL and PEFT: the same
model, prompts, groups and lengths of replies, the same positions learned from; each side in a process of its own.

`python -m crawltalk.bench.rl SIDE SIZE FOLDER` is such a process. It reinforces the model in FOLDER and prints one JSON
object: seconds of a step, and the peak memory of the process.

Replies are as long as they may be, on both sides: so no side pads. The peer takes its weights in fp32 under autocast to
bf16, or in bf16, which rounds each update: whichever is faster counts for speed, whichever takes less for memory.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

from crawltalk.bench.data import figure
from crawltalk.bench.engine_trace import pair_tokenizer
from crawltalk.bench.sft import SMOLLM2, WHOLE
from crawltalk.bench.tokenizer import memory
from crawltalk.bench.trl_settings import ON_CPU
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import UserError
from crawltalk.core.types import Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.engine.backends.cpu import Precision
from crawltalk.model.hf import save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.reinforce import Group, Replies
from crawltalk.posttraining.rollouts import EngineRollouts, Rollout, Rollouts, rollout_backend
from crawltalk.posttraining.tuning import load_for_tuning
from crawltalk.recipe import Lora, Machine, Optim, Reinforce
from crawltalk.rewards.verdict import Verdict, correct
from crawltalk.run.stage import Progress
from crawltalk.train.allocator import keep_freed_memory
from crawltalk.train.loop import TrainingOptions, compute_copy, compute_gradients, micro_batches
from crawltalk.train.objectives.policy_gradient import policy_gradient
from crawltalk.train.optimizers import make_optimizers
from crawltalk.train.precision import compute_dtype
from crawltalk.train.ranks import ALONE
from crawltalk.train.threads import Threads

THREADS = 2
WARM, STEPS = 1, 3
PROMPT = 64
"""Tokens."""
LORA = Lora(rank=16)
RELOAD = Path(__file__).with_name("rl_reload.py")


class Case(NamedTuple):
    """What is reinforced, and on how much."""

    shape: Shape
    groups: int
    samples: int
    reply: int
    """Tokens."""
    lora: bool
    at_once: int
    """Replies that the peer learns from at once: the fastest of several."""


TINY = Shape(vocab_size=512, layers=4, width=96, heads=3, kv_heads=3, head_dim=32, mlp=192, context=512)
"""0.4 million parameters, as in the lab."""
CASES = {
    "0.4M": Case(TINY, 8, 32, 256, False, 32),
    "3M": Case(WHOLE, 8, 32, 128, False, 32),
    "135M": Case(SMOLLM2, 4, 8, 64, True, 8),
}
PEERS = ("autocast", "bf16")


def rl(runs: int, peer: Path | None = None) -> Iterator[dict[str, Any]]:
    """One figure per comparison, as soon as it is known. `peer`: the checkout of crawltalk whose `generate`, with
    weights from disk, is compared; None: this one.
    """
    for size, case in CASES.items():
        with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as folder:
            write_model(case, Path(folder))
            rounds = [_round("crawltalk.bench.rl", size, folder) for _ in range(runs)]
            if size == "3M":
                scored = [_round("crawltalk.bench.reward", folder) for _ in range(runs)]
                ours, theirs = ([row[side]["seconds"] for row in scored] for side in ("ours", "peer"))
                yield figure("rl.reward_model", "s", ours, theirs, "TRL RewardTrainer, 64 pairs", THREADS)
            reloaded = [] if case.lora else [_reload(case, folder, peer) for _ in range(runs)]
        about = f"{case.groups} x {case.samples} replies of {case.reply} tokens, {rounds[0]['ours']['dtype']}"
        name = "TRL and PEFT" if case.lora else "TRL GRPOTrainer"
        ours, theirs = ([row[side]["seconds"] for row in rounds] for side in ("ours", "peer"))
        yield figure(f"rl.step_{size}", "s", ours, theirs, f"{name}, {about}", THREADS)
        speeds = [row["ours"]["rollout"] for row in rounds]
        label = "generate with weights from disk, fp32" if reloaded else None
        yield figure(f"rl.rollout_{size}", "tokens/s", speeds, reloaded or None, label, THREADS)
        shares = [row["ours"]["outside"] for row in rounds]
        yield figure(f"rl.overhead_{size}", "of a step", shares, None, None, THREADS)
        if case.lora:
            ours, theirs = ([row[side]["peak_mb"] for row in rounds] for side in ("ours", "peer"))
            yield figure(f"rl.memory_{size}", "MB", ours, theirs, f"{name}, {about}", THREADS)


def write_model(case: Case, folder: Path) -> None:
    """A random model in Hugging Face's layout."""
    model = Transformer(case.shape)
    model.initialize(0)
    tokenizer = pair_tokenizer(case.shape.vocab_size)
    save_model(model, folder, eos=tokenizer.eot)
    ChatRenderer(tokenizer).save(folder)


def prompts(case: Case) -> list[list[int]]:
    """Those of all steps, random ids: a step takes `groups` of them."""
    rng = random.Random(0)
    count = case.groups * (WARM + STEPS)
    return [[rng.randrange(case.shape.vocab_size - 8) for _ in range(PROMPT)] for _ in range(count)]


def _round(module: str, *arguments: str) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for side in ("ours", *PEERS):
        command = [sys.executable, "-m", module, side, *arguments]
        results[side] = json.loads(_output(command, side))
    best = min(PEERS, key=lambda side: results[side]["seconds"])
    least = min(results[side]["peak_mb"] for side in PEERS)
    return {"ours": results["ours"], "peer": results[best] | {"peak_mb": least}}


def _reload(case: Case, folder: str, peer: Path | None) -> float:
    """Tokens a second of an engine that reads its weights from disk at each step."""
    source = Path(__file__).parents[2] if peer is None else peer.resolve() / "src"
    sizes = (case.groups, case.samples, PROMPT, case.reply, WARM + STEPS, THREADS)
    command = [sys.executable, str(RELOAD), folder, *map(str, sizes)]
    return float(_output(command, "generate", {**os.environ, "PYTHONPATH": str(source)}))


def _output(command: Sequence[str], side: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{side} failed ({last}); its peer is installed with: pip install --group test")
    return done.stdout.strip().splitlines()[-1]


class _Timed(Rollouts):
    """Rollouts, and the seconds that they take with the update of their weights."""

    def __init__(self, rollouts: EngineRollouts) -> None:
        self.rollouts, self.seconds, self.max_tokens = rollouts, 0.0, rollouts.max_tokens

    def fits(self, problem: Problem) -> bool:
        return self.rollouts.fits(problem)

    def update_weights(self, model: Transformer) -> None:
        began = time.perf_counter()
        self.rollouts.update_weights(model)
        self.seconds += time.perf_counter() - began

    def sample(
        self, problems: Sequence[Problem], numbers: Sequence[int], samples: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        began = time.perf_counter()
        rolled = self.rollouts.sample(problems, numbers, samples, sampling)
        self.seconds += time.perf_counter() - began
        return rolled


def _ours(case: Case, folder: Path, dtype: torch.dtype) -> dict[str, float]:
    keep_freed_memory()
    machine = Machine(device="cpu", workers=THREADS, dtype=str(dtype).removeprefix("torch."))
    optim = Optim(muon_lr=0.0005, adamw_lr=0.0005)
    options = TrainingOptions(
        steps=STEPS, optim=optim, machine=machine, progress=Progress(), out=folder / "out", save_every=0
    )
    Path(options.out).mkdir(exist_ok=True)
    model = load_for_tuning(folder, LORA if case.lora else Lora(), options, 0, ALONE)
    asked = prompts(case)
    precision: Precision = "bfloat16" if dtype == torch.bfloat16 else "float32"
    backend = rollout_backend(model, precision, case.groups * case.samples, PROMPT + case.reply)
    engine = Engine(model, pair_tokenizer(case.shape.vocab_size), backend)
    rollouts = _Timed(
        EngineRollouts(engine, lambda problem: asked[int(problem.prompt)], case.reply, frozenset())
    )

    def problems(draw: int, _: Sequence[Group]) -> list[Problem]:
        numbers = range(draw * case.groups, (draw + 1) * case.groups)
        return [Problem(prompt=str(number), answer="", task="even") for number in numbers]

    config = Reinforce(groups=case.groups, samples=case.samples, max_tokens=case.reply)
    replies = Replies(model, rollouts, problems, _even, config, Path(options.out), 0)
    computing, objective = compute_copy(model, dtype), policy_gradient()
    threads = Threads(THREADS)
    optimizers = make_optimizers(model, optim, dtype, threads)
    steps, spans = list[tuple[float, float]](), list[tuple[float, float]]()
    for number in range(WARM + STEPS):
        rollouts.seconds, began, used = 0.0, time.perf_counter(), time.process_time()
        batch = replies(number)
        sampled = time.perf_counter() - began
        threads.share(len(micro_batches(batch, ALONE, torch.device("cpu"), model)))
        compute_gradients(model, computing, objective, batch, 1.0, ALONE, threads)
        for optimizer in optimizers:
            optimizer.step()
        steps.append((time.perf_counter() - began, time.process_time() - used))
        spans.append((rollouts.seconds, sampled - rollouts.seconds))
    seconds, cpu_seconds = (statistics.median(column) for column in zip(*steps[WARM:], strict=True))
    engine_seconds, outside = (statistics.median(column) for column in zip(*spans[WARM:], strict=True))
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "rollout": case.groups * case.samples * case.reply / engine_seconds,
        "outside": outside / seconds,
    }


def _even(problems: Sequence[Problem], replies: Sequence[str]) -> list[Verdict]:
    """The share of even bytes in a reply: no two are worth the same."""
    return [
        correct(sum(byte % 2 == 0 for byte in reply.encode()) / max(1, len(reply.encode())))
        for reply in replies
    ]


def _trl(case: Case, folder: Path, dtype: torch.dtype, side: str) -> dict[str, float]:
    import transformers
    import trl
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from tokenizers import Tokenizer, models, pre_tokenizers

    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    weights = dtype if side == "bf16" else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=weights)
    last = case.shape.vocab_size - 1
    words = Tokenizer(models.WordLevel({str(number): number for number in range(last + 1)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=str(last), pad_token=str(last)
    )
    rows = case.groups * case.samples
    arguments = trl.GRPOConfig(
        output_dir=str(folder / "trl"),
        max_steps=WARM + STEPS,
        per_device_train_batch_size=case.at_once,
        gradient_accumulation_steps=rows // case.at_once,
        num_generations=case.samples,
        max_completion_length=case.reply,
        generation_kwargs={"min_new_tokens": case.reply},
        learning_rate=5e-4,
        bf16=dtype == torch.bfloat16,
        **ON_CPU,
    )
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(r=LORA.rank, lora_alpha=2 * LORA.rank, target_modules=modules, task_type="CAUSAL_LM")
    ends = [(0.0, 0.0)]

    class Timed(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append((time.perf_counter(), time.process_time()))

    def even(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        return [sum(id % 2 == 0 for id in ids) / max(1, len(ids)) for ids in completion_ids]

    texts = [" ".join(map(str, ids)) for ids in prompts(case)]
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=even,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": texts}),
        peft_config=lora if case.lora else None,
        callbacks=[Timed()],
    )
    trainer.train()
    wall, used = (
        statistics.median(after - before for before, after in pairwise(column[WARM:]))
        for column in zip(*ends, strict=True)
    )
    return {"seconds": wall, "cpu_seconds": used}


def main(side: str, size: str, folder: str) -> None:
    """Time some steps of one side."""
    torch.set_num_threads(THREADS)
    dtype = compute_dtype(Machine(device="cpu"))
    if side == "ours":
        figures = _ours(CASES[size], Path(folder), dtype)
    else:
        figures = _trl(CASES[size], Path(folder), dtype, side)
    name = str(dtype).removeprefix("torch.")
    print(json.dumps({**figures, "peak_mb": memory("VmHWM"), "dtype": name}))


if __name__ == "__main__":
    main(*sys.argv[1:])
