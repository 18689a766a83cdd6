"""A pretraining of seconds, on shards of a few thousand tokens.

`pretraining.py INPUTS OUT` forks one for each line that it reads, and prints the id of its process.
"""

import os
import sys
from pathlib import Path

import numpy as np

from crawltalk.core.shards import ShardIndex, write_index, write_split
from crawltalk.pretraining.pretrain import pretrain
from crawltalk.recipe import Machine, Model, Optim, Pretrain
from crawltalk.run.stage import Job, Progress
from crawltalk.tokenizer import Tokenizer

TEXTS = [
    f"The element number {number} is element {number}, after {number - 1}.\n" for number in range(1, 160)
]
CONFIG = Pretrain(
    model=Model(depth=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp=64, context=32),
    optim=Optim(muon_lr=0.02, adamw_lr=0.01),
    tokens=256 * 30,
    batch_tokens=256,
    eval_every=10,
    save_every=5,
    prompts=("The element", "after 7"),
)


def write_inputs(folder: Path, texts: list[str] = TEXTS) -> dict[str, Path]:
    """A tokenizer of bytes and shards of the texts; the last ten are for validation."""
    tokenizer = Tokenizer.trained([])
    tokenizer.save(folder / "tokenizer")
    rows = [
        (str(number), np.array(tokenizer.encode(text)), len(text.encode()))
        for number, text in enumerate(texts)
    ]
    (folder / "tokens").mkdir(parents=True)
    train = write_split(folder / "tokens", "train", rows[:-10], tokenizer.eot, "uint16")
    val = write_split(folder / "tokens", "val", rows[-10:], tokenizer.eot, "uint16")
    index = ShardIndex(
        dtype="uint16", vocab_size=tokenizer.vocab_size, eot=tokenizer.eot, train=train, val=val
    )
    write_index(folder / "tokens", index)
    return {"tokens": folder / "tokens", "tokenizer": folder / "tokenizer"}


def run(inputs: dict[str, Path], out: Path, config: Pretrain = CONFIG) -> dict:
    out.mkdir(exist_ok=True)
    machine = Machine(workers=1, device="cpu", dtype="float32")
    return pretrain(Job(config=config, inputs=inputs, out=out, seed=5, machine=machine, progress=Progress()))


def main(folder: Path, out: Path) -> None:
    for _ in sys.stdin:
        if (child := os.fork()) == 0:
            run({"tokens": folder / "tokens", "tokenizer": folder / "tokenizer"}, out)
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
