"""Decontamination: documents that contain text of an evaluation set are dropped, so that the model is not tested
on its training data.

A document is contaminated if it shares an n-gram of words with any text of the sets (Brown et al. 2020,
appendix C: n = 13).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.types import Document
from crawltalk.data.dedup import distinct, ngram_hashes, word_spans
from crawltalk.data.filters.quality import Filter

_ENDINGS = (".jsonl", ".ndjson", ".json", ".parquet", ".txt")


def read_benchmarks(paths: Sequence[str], ngram: int) -> np.ndarray:
    """Sorted hashes of all n-grams of words in all texts of the files: JSONL, JSON, Parquet, or plain text.

    Texts of fewer words are left out, since a text such as "yes" proves nothing. For sets of short questions use
    a smaller n (8 to 13). Raises MissingInput, or BadInput for a file that cannot be read.
    """
    hashes = [np.zeros(0, np.uint64)]
    for name in paths:
        if not Path(name).is_file():
            raise MissingInput(
                f"data.benchmarks: {name} does not exist; give JSONL, JSON, Parquet or text files"
            )
        for text in _texts(Path(name)):
            if len(word_spans(text)) >= ngram:
                hashes.append(ngram_hashes(text, ngram))
    return distinct(np.concatenate(hashes))


def _texts(path: Path) -> Iterator[str]:
    if path.suffix not in _ENDINGS:
        raise BadInput(f"data.benchmarks: {path} is none of {', '.join(_ENDINGS)}")
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            for row in parquet.read_table(path).to_pylist():
                yield from _strings(row)
        elif path.suffix == ".json":
            yield from _strings(msgspec.json.decode(path.read_bytes()))
        elif path.suffix in (".jsonl", ".ndjson"):
            for line in path.read_bytes().splitlines():
                yield from _strings(msgspec.json.decode(line)) if line.strip() else ()
        else:
            yield path.read_text(encoding="utf-8", errors="replace")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # pyarrow's errors are ValueErrors
        raise BadInput(f"data.benchmarks: {path} cannot be read: {error}") from None


def _strings(value: Any) -> Iterator[str]:
    """All strings in a nested value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def filter_by(hashes: np.ndarray, ngram: int) -> Filter:
    """Drops documents that contain one of the n-grams; the reason quotes it."""

    def filter_document(document: Document) -> str | None:
        if not len(hashes):
            return None
        mine = ngram_hashes(document.text, ngram)
        hits = np.flatnonzero(hashes[np.minimum(np.searchsorted(hashes, mine), len(hashes) - 1)] == mine)
        if not len(hits):
            return None
        spans = word_spans(document.text)[hits[0] : hits[0] + ngram]
        text = document.text.lower()
        return f"text of an evaluation set: {' '.join(text[start:end] for start, end in spans)}"

    return filter_document
