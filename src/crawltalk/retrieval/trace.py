"""From a text back to the training pages that contain it (OLMoTrace, Liu et al. 2025, section 3).

A span is a run of tokens that also occurs in the token shards. Suffix arrays over the shards (`retrieval.stage`)
give the longest match from every position of a text by binary search, through memory maps.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numba import njit

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.shards import TokenShards
from crawltalk.core.types import Placement

MIN_TOKENS = 8
"""Fewest tokens of a span. On pages that `small` never trained on, 2 % of the tokens are part of a match of 8
tokens, but 28 % are part of a match of 4.
"""
MAX_SOURCES = 5
"""Most documents listed for a span: those in which it occurs most often."""
CONTEXT_TOKENS = 24
"""Tokens shown on each side of a match."""


class TokenCodec(Protocol):
    """What a trace needs of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes: ...


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A document that contains a span."""

    id: str
    url: str
    title: str
    occurrences: int
    """Occurrences of the span in this document, in one pass over the shards."""
    excerpt: str
    """The first occurrence of the span, with some text around it."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A maximal run of tokens that occurs in the training data: one token longer, it would not."""

    start: int
    end: int
    """Positions in the tokens of the text."""
    bits: float
    """How unlikely the tokens are by their frequencies alone: -log2 of the product of these."""
    occurrences: int
    """In one pass over the shards, where an oversampled document is counted each time."""
    documents: int
    """Number of different documents that contain it."""
    sources: list[Source]

    def __len__(self) -> int:
        return self.end - self.start


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A span in characters: `text[start:end]`. It contains whole characters only."""

    start: int
    end: int
    text: str
    span: Span


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The passages of a text that occur in the training data."""

    text: str
    tokens: int
    covered: int
    """Tokens that are part of a passage."""
    passages: list[Passage]
    """The least likely one first. They may overlap."""


def covered(spans: Iterable[Span]) -> int:
    """Tokens that are part of a span."""
    return len({position for span in spans for position in range(span.start, span.end)})


class TraceIndex:
    """The training data of a run and its suffix arrays."""

    def __init__(self, index: str | Path, tokens: str | Path, codec: TokenCodec) -> None:
        """Open the folders of the stages `index` and `tokens`. Raises MissingInput or BadInput."""
        index, tokens = Path(index), Path(tokens)
        self.shards = TokenShards(tokens, "train")
        self._codec = codec
        self._files = [
            (np.asarray(part), _load_suffixes(index / Path(file.name).with_suffix(".npy"), len(part)))
            for file, part in zip(self.shards.split.files, self.shards.parts, strict=True)
        ]
        self._starts = np.cumsum([0, *(len(part) for part, _ in self._files)])
        self._offsets = np.array([offset for offset, _ in self.shards.documents])
        self._ids, self._numbers = np.unique(
            [identifier for _, identifier in self.shards.documents], return_inverse=True
        )
        self.documents = len(self._ids)
        """Different documents."""
        self.placements = {row.id: row for row in read_jsonl(tokens / "documents.jsonl", Placement)}
        """Of all documents of the run, by id, also of those that are in no shard."""

    def spans(
        self, ids: Sequence[int], *, min_tokens: int = MIN_TOKENS, sources: int = MAX_SOURCES
    ) -> list[Span]:
        """The maximal spans of at least `min_tokens` tokens, the least likely one first. No span contains the
        token that separates documents. `sources`: the most documents that are listed for each.
        """
        query = np.array(ids, np.int64)
        counts = self._counts(query)
        maximal = self._maximal(query, min_tokens)
        spans = [self._span(query, counts, start, end, sources) for start, end in maximal]
        return sorted(spans, key=lambda span: -span.bits)

    def trace(self, text: str, *, min_tokens: int = MIN_TOKENS, sources: int = MAX_SOURCES) -> Trace:
        """The spans of a text, in characters.

        A word at the start of a text and the same word after a blank are different tokens. So the text is
        traced both ways, and the trace that covers more tokens is returned. A text that begins or ends within
        a word may lose that word. Where its blanks or line breaks differ from those of the page, a span ends.
        """
        traces = [self._trace(text, prefix, min_tokens, sources) for prefix in ("", " ")]
        return max(traces, key=lambda trace: trace.covered)

    def _trace(self, text: str, prefix: str, min_tokens: int, sources: int) -> Trace:
        """The trace of `text`, with the tokens that it has after `prefix`."""
        ids = self._codec.encode(prefix + text)
        ends = np.cumsum([len(self._codec.decode_bytes([token])) for token in ids]).tolist()
        data = self._codec.decode_bytes(ids)
        offsets = [len(data[:end].decode(errors="ignore")) - len(prefix) for end in (0, *ends)]
        text = data.decode(errors="replace")[len(prefix) :]
        spans = self.spans(ids, min_tokens=min_tokens, sources=sources)
        passages = []
        for span in spans:
            start, end = max(0, offsets[span.start]), offsets[span.end]
            passages.append(Passage(start=start, end=end, text=text[start:end], span=span))
        return Trace(text=text, tokens=len(ids), covered=covered(spans), passages=passages)

    def documents_with(self, ids: Sequence[int]) -> list[str]:
        """The ids of all documents that contain these tokens, one after the other. None contains the separator."""
        if self.shards.index.eot in ids:
            return []
        rows = np.searchsorted(self._offsets, self._positions(np.array(ids, np.int64)), "right") - 1
        return self._ids[np.unique(self._numbers[rows])].tolist()

    def _maximal(self, query: np.ndarray, min_tokens: int) -> list[tuple[int, int]]:
        """(start, end) of the longest match from each position, if it is long enough and not part of the one
        before.
        """
        lengths = np.zeros(len(query), np.int64)
        for text, suffixes in self._files:
            np.maximum(lengths, _longest_matches(text, suffixes, query, self.shards.index.eot), out=lengths)
        starts = np.arange(len(query))
        ends = starts + lengths
        kept = (lengths >= min_tokens) & (np.diff(ends, prepend=0) > 0)
        return list(zip(starts[kept].tolist(), ends[kept].tolist(), strict=True))

    def _counts(self, query: np.ndarray) -> dict[int, int]:
        """How often each token of the query occurs in the shards."""
        return {
            token: sum(high - low for low, high in self._rows(np.array([token])))
            for token in set(query.tolist())
        }

    def _rows(self, pattern: np.ndarray) -> list[tuple[int, int]]:
        """For each file the range of rows whose suffixes begin with a pattern."""
        return [_rows(text, suffixes, pattern) for text, suffixes in self._files]

    def _positions(self, pattern: np.ndarray) -> np.ndarray:
        """The positions of a pattern, counted over all files, sorted."""
        triples = zip(self._files, self._starts, self._rows(pattern), strict=False)
        return np.sort(
            np.concatenate([suffixes[low:high] + start for (_, suffixes), start, (low, high) in triples])
        )

    def _span(self, query: np.ndarray, counts: dict[int, int], start: int, end: int, sources: int) -> Span:
        pattern = query[start:end]
        positions = self._positions(pattern)
        rows = np.searchsorted(self._offsets, positions, "right") - 1
        numbers, firsts, times = np.unique(self._numbers[rows], return_index=True, return_counts=True)
        shares = np.array([counts[token] for token in pattern.tolist()]) / len(self.shards)
        return Span(
            start=start,
            end=end,
            bits=round(-float(np.log2(shares).sum()), 1),
            occurrences=len(positions),
            documents=len(numbers),
            sources=[
                self._source(
                    str(self._ids[numbers[rank]]), int(positions[firsts[rank]]), end - start, int(times[rank])
                )
                for rank in np.lexsort((firsts, -times))[:sources]
            ],
        )

    def _source(self, identifier: str, position: int, length: int, times: int) -> Source:
        row = int(np.searchsorted(self._offsets, position, "right"))
        end = int(self._offsets[row]) if row < len(self._offsets) else len(self.shards)
        first = max(int(self._offsets[row - 1]) + 1, position - CONTEXT_TOKENS)
        tokens = self.shards.window(first, min(end, position + length + CONTEXT_TOKENS) - first).tolist()
        return Source(
            id=identifier,
            url=self.placements[identifier].url,
            title=self.placements[identifier].title,
            occurrences=times,
            excerpt=self._codec.decode_bytes(tokens).decode(errors="ignore"),
        )


def _load_suffixes(path: Path, tokens: int) -> np.ndarray:
    again = f"build it with: crawltalk run {path.parent.parent}"
    if not path.exists():
        raise MissingInput(f"{path} does not exist; {again}")
    try:
        suffixes = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise BadInput(f"{path} is damaged ({error}); {again}") from None
    if suffixes.shape != (tokens,):  # compiled loops do not check bounds
        raise BadInput(
            f"{path} was made of other tokens than the shards', {len(suffixes):,} instead of {tokens:,}; {again}"
        )
    return np.asarray(suffixes)


@njit(cache=True)
def _row(text, suffixes, query, start, end, after):
    """The row before which `query[start:end]` belongs among the sorted suffixes (behind those that begin with it
    if `after`), and how many of its tokens the suffix in the row before or behind shares.

    All suffixes between two rows share with the query what both of these share with it, and that need not be
    compared again (Manber and Myers 1990, section 2).
    """
    low, high = 0, len(suffixes)
    before = behind = 0
    while low < high:
        middle = (low + high) // 2
        position, size = suffixes[middle], min(before, behind)
        while (
            start + size < end
            and position + size < len(text)
            and text[position + size] == query[start + size]
        ):
            size += 1
        smaller = after  # if the suffix begins with the whole query
        if start + size < end:
            smaller = position + size == len(text) or text[position + size] < query[start + size]
        if smaller:
            low, before = middle + 1, size
        else:
            high, behind = middle, size
    return low, max(before, behind)


@njit(cache=True)
def _rows(text, suffixes, pattern):
    """The range of rows whose suffixes begin with a pattern."""
    first, end = np.int64(0), len(pattern)  # a literal would be a type of its own, compiled once more
    low, _ = _row(text, suffixes, pattern, first, end, np.bool_(False))
    high, _ = _row(text, suffixes, pattern, first, end, np.bool_(True))
    return low, high


@njit(cache=True)
def _longest_matches(text, suffixes, query, separator):
    """From each position of the query the tokens of the longest match in the text. None contains a separator."""
    lengths = np.zeros(len(query), np.int64)
    end = len(query)
    for start in range(len(query) - 1, -1, -1):
        if query[start] == separator:
            end = start
        else:
            lengths[start] = _row(text, suffixes, query, start, end, np.bool_(False))[1]
    return lengths
