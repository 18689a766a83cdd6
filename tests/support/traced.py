"""An index over a few documents, and what opens it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crawltalk.core import shards
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.types import Placement
from crawltalk.recipe import Index, Machine
from crawltalk.retrieval.stage import index
from crawltalk.retrieval.trace import TraceIndex
from crawltalk.run.stage import Job, Progress
from crawltalk.tokenizer import Tokenizer

TOKENIZER = Tokenizer.trained([(116, 104), (256, 101), (32, 257)])  # th, the, " the"


def make_index(folder: Path, documents: Sequence[Sequence[int]], dtype: str = "uint16") -> Job[Index]:
    """Shards of documents given as ids, each under its text as a URL, and their index; documents alike have
    the same id.
    """
    tokens, out = folder / "tokens", folder / "index"
    for path in (tokens, out):
        path.mkdir(parents=True, exist_ok=True)
    names = [str(list(ids)) for ids in documents]
    entries = ((name, np.array(ids), len(ids)) for name, ids in zip(names, documents, strict=True))
    train = shards.write_split(tokens, "train", entries, TOKENIZER.eot, dtype)
    val = shards.write_split(tokens, "val", [], TOKENIZER.eot, dtype)
    size = TOKENIZER.vocab_size
    shards.write_index(
        tokens, shards.ShardIndex(dtype=dtype, vocab_size=size, eot=TOKENIZER.eot, train=train, val=val)
    )
    rows = [
        Placement(id=name, url=f"https://{name}", title="", description="", topic="", role="train", repeats=1)
        for name in set(names)
    ]
    write_jsonl(tokens / "documents.jsonl", rows)
    job = Job(Index(), {"tokens": tokens}, out, 0, Machine(workers=1), Progress())
    index(job)
    return job


def open_index(job: Job[Index]) -> TraceIndex:
    return TraceIndex(job.out, job.inputs["tokens"], TOKENIZER)
