"""bench rl: training a reward model against TRL's RewardTrainer: the same model, the same pairs of replies in a step;
each side in a process of its own, `python -m crawltalk.bench.reward SIDE FOLDER`, which prints one JSON object.
"""

import json
import random
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from crawltalk.bench.sft import WHOLE
from crawltalk.bench.tokenizer import memory
from crawltalk.bench.trl_settings import ON_CPU
from crawltalk.chat.render import Rendered
from crawltalk.posttraining.pairs import Pair
from crawltalk.posttraining.reward import batches_of_comparisons, load_for_scoring
from crawltalk.recipe import Lora, Machine, Optim
from crawltalk.run.stage import Progress
from crawltalk.train.allocator import keep_freed_memory
from crawltalk.train.loop import TrainingOptions, compute_copy, compute_gradients, longest_row, micro_batches
from crawltalk.train.objectives.bradley_terry import bradley_terry
from crawltalk.train.optimizers import make_optimizers
from crawltalk.train.precision import compute_dtype
from crawltalk.train.ranks import ALONE
from crawltalk.train.threads import Threads

THREADS = 2
WARM, STEPS, PAIRS = 1, 4, 64
"""Steps, and pairs in each."""
AT_ONCE = 16
"""Pairs that the peer takes at once: the fastest of several."""


def pairs() -> list[tuple[list[int], list[int]]]:
    """Chosen and rejected conversations of random ids, 64 to 256 tokens each."""
    rng = random.Random(0)

    def ids() -> list[int]:
        return [rng.randrange(WHOLE.vocab_size - 8) for _ in range(rng.randint(64, 256))]

    return [(ids(), ids()) for _ in range(PAIRS * (WARM + STEPS))]


def _ours(folder: Path, dtype: torch.dtype) -> list[tuple[float, float]]:
    keep_freed_memory()
    optim = Optim(muon_lr=0.001, adamw_lr=0.001)
    machine = Machine(device="cpu", workers=THREADS, dtype=str(dtype).removeprefix("torch."))
    options = TrainingOptions(
        steps=STEPS, optim=optim, machine=machine, progress=Progress(), out=folder / "out", save_every=0
    )
    model = load_for_scoring(folder, Lora(), options, 0, ALONE)
    both = [Pair(*(Rendered(ids, [True] * len(ids)) for ids in pair)) for pair in pairs()]
    batches = batches_of_comparisons(both, PAIRS, 0, longest_row(model))
    computing, threads, objective = compute_copy(model, dtype), Threads(THREADS), bradley_terry()
    optimizers = make_optimizers(model, optim, dtype, threads)
    ends = [(time.perf_counter(), time.process_time())]
    for number in range(WARM + STEPS):
        batch = batches(number)
        threads.share(len(micro_batches(batch, ALONE, torch.device("cpu"), model)))
        compute_gradients(model, computing, objective, batch, 1.0, ALONE, threads)
        for optimizer in optimizers:
            optimizer.step()
        ends.append((time.perf_counter(), time.process_time()))
    return ends


def _trl(folder: Path, dtype: torch.dtype, side: str) -> list[tuple[float, float]]:
    import transformers
    import trl
    from datasets import Dataset, disable_progress_bars
    from tokenizers import Tokenizer, models

    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=dtype if side == "bf16" else torch.float32, num_labels=1, pad_token_id=0
    )
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"w": 0}, unk_token="w")), eos_token="w", pad_token="w"
    )
    arguments = trl.RewardConfig(
        output_dir=str(folder / "trl"),
        max_steps=WARM + STEPS,
        per_device_train_batch_size=AT_ONCE,
        gradient_accumulation_steps=PAIRS // AT_ONCE,
        max_length=None,
        bf16=dtype == torch.bfloat16,
        **ON_CPU,
    )
    ends = [(0.0, 0.0)]

    class Timed(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append((time.perf_counter(), time.process_time()))

    rows = {
        name: [pair[side] for pair in pairs()] for side, name in enumerate(("chosen_ids", "rejected_ids"))
    }
    trainer = trl.RewardTrainer(
        model=model,
        args=arguments,
        processing_class=words,
        train_dataset=Dataset.from_dict(rows),
        callbacks=[Timed()],
    )
    trainer.train()
    return ends


def main(side: str, folder: str) -> None:
    """Time some steps of one side."""
    torch.set_num_threads(THREADS)
    dtype = compute_dtype(Machine(device="cpu"))
    ends = _ours(Path(folder), dtype) if side == "ours" else _trl(Path(folder), dtype, side)
    steps = [(end - began, used - before) for (began, before), (end, used) in pairwise(ends[WARM:])]
    seconds, cpu_seconds = (statistics.median(column) for column in zip(*steps, strict=True))
    name = str(dtype).removeprefix("torch.")
    figures = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": memory("VmHWM"), "dtype": name}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
