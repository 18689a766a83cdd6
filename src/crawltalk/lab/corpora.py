"""What the claims about corpora share: the texts of a run's crawl, kept and dropped, and small base models that are
trained on a choice of them, each on equally many tokens, and measured on the same held-out pages.
"""

import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from crawltalk.core.documents import read_documents
from crawltalk.core.files import write_atomically
from crawltalk.core.shards import ShardIndex, write_index, write_split
from crawltalk.core.types import Document
from crawltalk.lab.experiment import Trial
from crawltalk.pretraining.pretrain import pretrain
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.folder import RunFolder
from crawltalk.run.stage import Job
from crawltalk.tokenizer import Tokenizer

HELD_OUT = 200
"""Kept pages that no model is trained on, and that have no near-duplicate in the crawl."""


class Corpora:
    """The texts of a run's data stage."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        documents = list(read_documents(run.folder("data")))
        alike = set(_column(run.folder("data"), "clusters-*.parquet", "id"))
        alone = [document for document in documents if document.id not in alike]
        self.held_out = random.Random("held out").sample(alone, min(HELD_OUT, len(alone) // 4))
        ids = {document.id for document in self.held_out}
        self.kept = [document.text for document in documents if document.id not in ids]
        """Texts of the documents to train on."""

    @cached_property
    def dropped(self) -> dict[str, list[str]]:
        """Step -> the texts that it dropped; of steps before the extraction there are none."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.run.folder("data").glob("removed-*.parquet")):
            rows = pq.read_table(path, columns=["step", "text"])
            for step, text in zip(rows["step"].to_pylist(), rows["text"].to_pylist(), strict=True):
                if text:
                    found.setdefault(step, []).append(text)
        return found

    def loss(
        self,
        trial: Trial,
        name: str,
        texts: Sequence[str],
        tokens: int,
        tokenizer: Path | None = None,
        depth: int = 2,
    ) -> float:
        """Bits per byte of the held-out pages after a training on `tokens` tokens of the texts, in a random order. What
        is measured is kept in `name` / loss.json.
        """
        done = trial.out / name / "loss.json"
        if done.exists():
            return float(done.read_text())
        folder = tokenizer or self.run.folder("tokenizer")
        out = trial.out / name
        _write_tokens(
            out / "tokens", Tokenizer.load(folder), _shuffled(texts, trial.seed), self.held_out, tokens
        )
        flags = {
            "seed": str(trial.seed),
            "pretrain.model.depth": str(depth),
            "pretrain.tokens": str(tokens),
            "tokenizer.vocab_size": str(Tokenizer.load(folder).vocab_size),
            "pretrain.eval_every": str(10**9),
            "pretrain.prompts": "[]",
        }
        config = load_recipe("nano", flags=flags).pretrain
        (out / "pretrain").mkdir(exist_ok=True)
        inputs = {"tokens": out / "tokens", "tokenizer": folder}
        metrics = pretrain(Job(config, inputs, out / "pretrain", trial.seed, trial.machine, trial.progress))
        write_atomically(done, str(metrics["val_bpb"]).encode())
        return float(metrics["val_bpb"])


def _shuffled(texts: Sequence[str], seed: int) -> list[str]:
    return random.Random(seed).sample(list(texts), len(texts))


def _write_tokens(
    folder: Path, tokenizer: Tokenizer, texts: Sequence[str], held_out: Sequence[Document], tokens: int
) -> None:
    """The first texts, as many as the tokens need, and the held-out pages, as shards."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"

    def encoded(rows: Sequence[str], most: int | None) -> Iterator[tuple[str, np.ndarray, int]]:
        total = 0
        for number, text in enumerate(rows):
            if most is not None and total >= most:
                return
            ids = np.array(tokenizer.encode(text), dtype)
            total += len(ids) + 1
            yield str(number), ids, len(text.encode())

    train = write_split(folder, "train", encoded(texts, tokens), tokenizer.eot, dtype)
    val = write_split(folder, "val", encoded([page.text for page in held_out], None), tokenizer.eot, dtype)
    index = ShardIndex(dtype=dtype, vocab_size=tokenizer.vocab_size, eot=tokenizer.eot, train=train, val=val)
    write_index(folder, index)


def _column(folder: Path, pattern: str, name: str) -> list[str]:
    paths = sorted(folder.glob(pattern))
    return [value for path in paths for value in pq.read_table(path, columns=[name])[name].to_pylist()]
