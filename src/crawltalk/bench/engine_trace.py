"""bench engine: tracing an answer back to its pages, over ten million tokens. No peer runs on a laptop:
OLMoTrace is a service.
"""

import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from crawltalk import recipe
from crawltalk.bench.data import figure
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.shards import ShardIndex, write_index, write_split
from crawltalk.core.types import Placement
from crawltalk.retrieval.stage import index
from crawltalk.retrieval.trace import TraceIndex
from crawltalk.run.stage import Job, Progress
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.tokenizer import SPECIAL_TOKENS

TOKENS, DOCUMENT, ANSWER = 10_000_000, 500, 300
"""Of the shards, of each document and of the answer."""
PIECE = 20
"""Tokens of the answer that are copied in a row; as many that are not follow."""
VOCABULARY = 32_768


def trace(runs: int) -> Iterator[dict[str, Any]]:
    """Milliseconds to trace an answer, with sources and excerpts; seconds to index the shards; bytes a token
    on disk.
    """
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as name:
        tokens, out = Path(name) / "tokens", Path(name) / "index"
        tokens.mkdir()
        out.mkdir()
        tokenizer = _write_shards(tokens, rng)
        job = Job(recipe.Index(), {"tokens": tokens}, out, 0, recipe.Machine(), Progress())
        began = time.perf_counter()
        index(job)
        yield figure("engine.trace_index", "s", [time.perf_counter() - began], None, None)
        size = sum(path.stat().st_size for folder in (tokens, out) for path in folder.glob("train-*"))
        yield figure("engine.trace_size", "bytes/token", [size / TOKENS], None, None)
        opened = TraceIndex(out, tokens, tokenizer)
        taken = []
        for turn in range(runs + 1):
            answer = _answer(opened, rng)
            began = time.perf_counter()
            opened.spans(answer)
            if turn:  # the first one compiles
                taken.append(1000 * (time.perf_counter() - began))
        yield figure("engine.trace", "ms", taken, None, None)


def pair_tokenizer(size: int) -> Tokenizer:
    """A vocabulary of so many tokens without training: bytes, pairs of bytes, control tokens."""
    pairs = ((left, right) for left in range(256) for right in range(256))
    return Tokenizer.trained(list(islice(pairs, size - 256 - len(SPECIAL_TOKENS))))


def _zipf(rng: np.random.Generator, count: int) -> np.ndarray:
    """Ids by Zipf's law, the most frequent one about 1 in 11, as words are."""
    ordinary = VOCABULARY - len(SPECIAL_TOKENS)
    weights = 1 / np.arange(1, ordinary + 1)
    return rng.choice(ordinary, count, p=weights / weights.sum())


def _write_shards(folder: Path, rng: np.random.Generator) -> Tokenizer:
    tokenizer = pair_tokenizer(VOCABULARY)
    names = [f"document {number}" for number in range(TOKENS // DOCUMENT)]
    documents = ((name, _zipf(rng, DOCUMENT - 1), DOCUMENT) for name in names)
    train = write_split(folder, "train", documents, tokenizer.eot, "uint16")
    val = write_split(folder, "val", [], tokenizer.eot, "uint16")
    write_index(
        folder,
        ShardIndex(dtype="uint16", vocab_size=tokenizer.vocab_size, eot=tokenizer.eot, train=train, val=val),
    )
    rows = (
        Placement(
            id=name, url=f"https://{name}", title=name, description="", topic="", role="train", repeats=1
        )
        for name in names
    )
    write_jsonl(folder / "documents.jsonl", rows)
    return tokenizer


def _answer(opened: TraceIndex, rng: np.random.Generator) -> list[int]:
    """Copied and free pieces in turns."""
    answer: list[int] = []
    while len(answer) < ANSWER:
        start = int(rng.integers(len(opened.shards)))
        answer += [*opened.shards.window(start, PIECE).tolist(), *_zipf(rng, PIECE).tolist()]
    return answer[:ANSWER]
