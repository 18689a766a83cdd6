"""The tokenizer stage: learns byte-level BPE from the documents of the run, and writes it with the chat format."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from crawltalk import recipe
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.documents import read_documents
from crawltalk.core.errors import BadInput
from crawltalk.recipe.patterns import compile_pattern
from crawltalk.recipe.size import vocabulary_for
from crawltalk.run.stage import Job, Metrics
from crawltalk.tokenizer.bpe import learn_merges, merges_for
from crawltalk.tokenizer.count import count_chunks
from crawltalk.tokenizer.patterns import splitter
from crawltalk.tokenizer.tokenizer import Tokenizer

HELD_OUT = 20
"""Every 20th document is not learned from: it measures the compression."""
_BATCH = 1000


def tokenizer(job: Job[recipe.Tokenizer]) -> Metrics:
    """Learn the merges; writes tokenizer.json, tokenizer_config.json and merges.txt.

    The documents are read three times, one by one: for their sizes, to learn from some, and to measure on
    others.
    """
    config = job.config
    sizes = [len(text.encode()) for text in _texts(job)]
    if not sizes and not config.include:
        raise BadInput(f"no page of the crawl became a document{_main_reason(job.inputs['data'])}")
    if not sizes:
        raise BadInput(
            f"no document's URL matches tokenizer.include = {config.include!r}; give another --tokenizer.include"
        )
    vocab_size = config.vocab_size or vocabulary_for(sum(sizes))
    merges = merges_for(vocab_size)
    learn = [number % HELD_OUT > 0 or len(sizes) == 1 for number in range(len(sizes))]
    chosen = spread(
        [size if learned else 0 for size, learned in zip(sizes, learn, strict=True)], config.train_bytes
    )
    bytes_ = sum(sizes[number] for number in chosen)
    if not bytes_:
        raise BadInput(
            f"no document fits tokenizer.train_bytes = {config.train_bytes}; give more --tokenizer.train_bytes"
        )
    threads = job.machine.workers or 1
    training = (text for number, text in enumerate(_texts(job)) if number in chosen)
    chunks = count_chunks(training, config.pattern, threads=threads, max_chunks=config.max_chunks)
    if chunks.error:
        job.progress.warn(
            f"more than tokenizer.max_chunks = {config.max_chunks:,} different words: rare ones were "
            "dropped, and the counts"
            f" of others may be too low by {chunks.error:,}"
        )
    split = splitter(config.pattern)
    learned = learn_merges(
        chunks, merges, config.min_frequency, lambda count: job.progress.update(count, merges, "merges")
    )
    if len(learned) < merges and config.vocab_size is not None:
        job.progress.warn(
            f"the text has only {len(learned)} merges that occur {config.min_frequency} times, not "
            f"{merges}: the vocabulary is"
            " smaller"
        )
    result = Tokenizer.trained(learned, split.pattern if split else config.pattern)
    ChatRenderer(result).save(job.out)
    held_out = (text for number, text in enumerate(_texts(job)) if number % HELD_OUT == 0)
    encoded = measured = 0
    while batch := list(islice(held_out, _BATCH)):
        measured += sum(len(text.encode()) for text in batch)
        encoded += sum(map(len, result.encode_batch(batch, threads)))
    return {
        "vocab_size": result.vocab_size,
        "merges": len(learned),
        "chunks": len(chunks.counts),
        "train_bytes": bytes_,
        "bytes_per_token": round(measured / max(encoded, 1), 3),
    }


def _texts(job: Job[recipe.Tokenizer]) -> Iterator[str]:
    """The texts of the documents to learn from and to measure on."""
    pattern = compile_pattern("tokenizer.include", job.config.include)
    return (document.text for document in read_documents(job.inputs["data"]) if pattern.search(document.url))


def _main_reason(data: Path) -> str:
    """Why most pages were dropped, and the way out."""
    path = data / "funnel.json"
    removed = json.loads(path.read_bytes())["removed"] if path.exists() else []
    if not removed:
        return "; give other files with --crawl.source"
    row = max(removed, key=lambda row: row["pages"])
    reason = f": {row['pages']:,} were dropped by {row['step']} ({row['reason']})"
    if row["step"] == "language":
        return f"{reason}; keep another language with --data.languages {row['reason'].split()[0]}"
    return f"{reason}; see all reasons with: crawltalk funnel {data.parent}"


def spread(sizes: Sequence[int], limit: int) -> set[int]:
    """Indices of documents, evenly spread, whose sizes together are at most `limit`."""
    share = min(1.0, limit / max(1, sum(sizes)))
    chosen: set[int] = set()
    seen = taken = 0
    for number, size in enumerate(sizes):
        seen += size
        if size and taken + size <= seen * share:
            chosen.add(number)
            taken += size
    return chosen
