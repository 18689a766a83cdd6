"""bench sft: fine-tuning against TRL's SFTTrainer, and with adapters against TRL and PEFT: the same model, the same
conversations packed into rows of the same length, the same positions in a step; each side in a process of its own.

`python -m crawltalk.bench.sft SIDE WHAT FOLDER` is such a process. It trains the model in FOLDER on the conversations
beside it and prints one JSON object: tokens of the assistant a second, and the peak memory of the process.

The peer computes in bf16 where that is faster on this machine, without recomputing activations (its default, which is
slower), one packed row at a time or several: whichever is faster counts for speed, whichever takes less for memory.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from crawltalk.bench.data import figure
from crawltalk.bench.tokenizer import memory
from crawltalk.bench.trl_settings import ON_CPU
from crawltalk.core.errors import UserError
from crawltalk.core.files import write_atomically
from crawltalk.model.hf import save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.tuning import load_for_tuning
from crawltalk.recipe import Lora, Machine, Optim
from crawltalk.run.stage import Progress
from crawltalk.train.allocator import keep_freed_memory
from crawltalk.train.batches import IGNORE_INDEX, packed_rows
from crawltalk.train.loop import TrainingOptions, compute_copy, compute_gradients, micro_batches
from crawltalk.train.objectives.cross_entropy import cross_entropy
from crawltalk.train.optimizers import make_optimizers
from crawltalk.train.precision import compute_dtype
from crawltalk.train.ranks import ALONE
from crawltalk.train.threads import Threads

THREADS = 2
WARM, STEPS = 1, 4
LORA = Lora(rank=16)
WHOLE = Shape(vocab_size=4096, layers=4, width=192, heads=3, kv_heads=3, head_dim=64, mlp=640, context=512)
"""3 million parameters, as in the preset small."""
SMOLLM2 = Shape(
    family="llama",
    vocab_size=49_152,
    layers=30,
    width=576,
    heads=9,
    kv_heads=3,
    head_dim=64,
    mlp=1536,
    context=512,
    rope_theta=100_000.0,
    norm_eps=1e-5,
)
"""SmolLM2-135M."""
CASES: dict[str, tuple[Shape, int, int]] = {"whole": (WHOLE, 256, 16), "lora": (SMOLLM2, 512, 4)}
"""What is trained -> shape, positions of a row, rows of a step."""
PEERS = {"one": 1, "several": 4}
"""Packed rows that the peer takes at once."""
Rendered = tuple[list[int], list[bool]]


class Speed(NamedTuple):
    """Tokens of the assistant that were learned."""

    tokens_per_second: float
    tokens_per_cpu_second: float
    """Of all threads together: what a machine that does other work, too, changes little."""


def sft(runs: int) -> Iterator[dict[str, Any]]:
    """One figure per comparison, as soon as it is known."""
    for what, name, peer_name in (
        ("whole", "sft.tokens_3M", "TRL SFTTrainer"),
        ("lora", "sft.lora_135M", "TRL and PEFT"),
    ):
        shape, length, rows = CASES[what]
        with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as folder:
            model = Transformer(shape)
            model.initialize(0)
            save_model(model, folder, eos=0)
            text = json.dumps(conversations(shape.vocab_size, length, rows * (WARM + STEPS)))
            write_atomically(Path(folder) / "conversations.json", text.encode())
            del model
            rounds = [_round(what, folder) for _ in range(runs)]
        peer = f"{peer_name}, {rows} x {length} tokens, {rounds[0]['ours']['dtype']}"
        ours, theirs = ([row[side]["tokens_per_second"] for row in rounds] for side in ("ours", "peer"))
        yield figure(name, "assistant tokens/s", ours, theirs, peer, THREADS)
        if what == "lora":
            ours, theirs = ([row[side]["peak_mb"] for row in rounds] for side in ("ours", "peer"))
            yield figure("sft.memory_135M", "MB", ours, theirs, peer, THREADS)


def conversations(vocabulary: int, length: int, rows: int) -> list[Rendered]:
    """Conversations of random ids for some rows, of which an assistant wrote half, in turns."""
    rng = random.Random(0)
    made, room = list[Rendered](), rows * length
    while room > 0:
        turns = [rng.randrange(length // 32, length // 8) for _ in range(2 * rng.randint(1, 2))]
        ids = [rng.randrange(vocabulary) for _ in range(sum(turns))]
        made.append((ids, [index % 2 == 1 for index, turn in enumerate(turns) for _ in range(turn)]))
        room -= len(ids)
    return made


def _round(what: str, folder: str) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for side in ("ours", *PEERS):
        command = [sys.executable, "-m", "crawltalk.bench.sft", side, what, folder]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"{side} failed ({last}); its peer is installed with: pip install --group test")
        results[side] = json.loads(done.stdout.strip().splitlines()[-1])
    best = max(PEERS, key=lambda side: results[side]["tokens_per_second"])
    least = min(results[side]["peak_mb"] for side in PEERS)
    return {"ours": results["ours"], "peer": results[best] | {"peak_mb": least}}


def _ours(what: str, folder: Path, rendered: list[Rendered], dtype: torch.dtype) -> Speed:
    keep_freed_memory()
    _, length, rows = CASES[what]
    batches, _ = packed_rows(rendered, length, rows * length, 0)
    lora = LORA if what == "lora" else Lora()
    machine = Machine(device="cpu", workers=THREADS, dtype=str(dtype).removeprefix("torch."))
    optim = Optim(muon_lr=0.005, adamw_lr=0.001)
    options = TrainingOptions(
        steps=STEPS, optim=optim, machine=machine, progress=Progress(), out=folder / "out", save_every=0
    )
    model = load_for_tuning(folder, lora, options, 0, ALONE)
    computing = compute_copy(model, dtype)
    threads = Threads(THREADS, len(micro_batches(batches(0), ALONE, torch.device("cpu"), model)))
    optimizers = make_optimizers(model, optim, dtype, threads)

    def step(number: int) -> int:
        batch = batches(number)
        compute_gradients(model, computing, cross_entropy, batch, 1.0, ALONE, threads)
        for optimizer in optimizers:
            optimizer.step()
        return int((batch.targets != IGNORE_INDEX).sum())

    return _speed(step)


def _speed(step: Callable[[int], int]) -> Speed:
    """That of steps that return how many tokens they learned."""
    for number in range(WARM):
        step(number)
    began, used = time.perf_counter(), time.process_time()
    learned = sum(step(number) for number in range(WARM, WARM + STEPS))
    return Speed(learned / (time.perf_counter() - began), learned / (time.process_time() - used))


def _trl(what: str, folder: Path, rendered: list[Rendered], dtype: torch.dtype, at_once: int) -> Speed:
    import transformers
    import trl
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from tokenizers import Tokenizer, models

    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    _, length, rows = CASES[what]
    adapted = what == "lora"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype if adapted else torch.float32
    )
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"w": 0}, unk_token="w")), eos_token="w", pad_token="w"
    )
    labels = [
        [word if learned else -100 for word, learned in zip(ids, mask, strict=True)] for ids, mask in rendered
    ]
    columns = {"input_ids": [ids for ids, _ in rendered], "labels": labels}
    arguments = trl.SFTConfig(
        output_dir=str(folder / "out"),
        max_steps=WARM + STEPS,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=rows // at_once,
        packing=True,
        max_length=length,
        bf16=dtype == torch.bfloat16,
        **ON_CPU,
    )
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(r=LORA.rank, lora_alpha=2 * LORA.rank, target_modules=modules, task_type="CAUSAL_LM")
    ends, learned = [(0.0, 0.0)], [0]

    class Timed(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append((time.perf_counter(), time.process_time()))
            learned.append(0)

    class Trainer(trl.SFTTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            learned[-1] += int((inputs["labels"] != -100).sum())
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer = Trainer(
        model=model,
        args=arguments,
        processing_class=words,
        train_dataset=Dataset.from_dict(columns),
        peft_config=lora if adapted else None,
        callbacks=[Timed()],
    )
    trainer.train()
    total, (began, used), (end, used_then) = sum(learned[WARM:-1]), ends[WARM], ends[-1]
    return Speed(total / (end - began), total / (used_then - used))


def main(side: str, what: str, folder: str) -> None:
    """Time some steps of one side."""
    torch.set_num_threads(THREADS)
    dtype = compute_dtype(Machine(device="cpu"))
    rendered = json.loads((Path(folder) / "conversations.json").read_text())
    if side == "ours":
        speeds = _ours(what, Path(folder), rendered, dtype)
    else:
        speeds = _trl(what, Path(folder), rendered, dtype, PEERS[side])
    name = str(dtype).removeprefix("torch.")
    print(json.dumps({**speeds._asdict(), "peak_mb": memory("VmHWM"), "dtype": name}))


if __name__ == "__main__":
    main(*sys.argv[1:])
