"""From a text back to the pages that a model was trained on (OLMoTrace, Liu et al. 2025, section 3).

A span is traced if its tokens stand in a row in the token shards. Suffix arrays over the shards
(`retrieval.stage`) find the longest match of every place of a text by binary search; the shards themselves
are what is compared with, through memory maps.
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

LEAST = 8
"""Tokens of a span: of pages that `small` never trained on, 2 % of the tokens are part of such a match, 28 %
of one of 4 tokens.
"""
SOURCES = 5
"""Documents that are named for a span, at most; those that hold it most often."""
AROUND = 24
"""Tokens shown on each side of a match."""


class Coder(Protocol):
    """What a trace needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids."""
        ...


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A document that holds a span."""

    id: str
    url: str
    title: str
    occurrences: int
    """Of the span, in one pass over the shards."""
    excerpt: str
    """The span where it stands first, with some text around it."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that stand in the training data word for word, and would not with their neighbours."""

    start: int
    end: int
    """Places of tokens."""
    bits: float
    """How unlikely the tokens are, each by its frequency alone: -log2 of the product of their probabilities.
    """
    occurrences: int
    """In one pass over the shards, where an oversampled document counts each time."""
    documents: int
    """Different ones that hold it."""
    sources: list[Source]

    def __len__(self) -> int:
        return self.end - self.start


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A span in the characters of a text: `text[start:end]`, whole characters only."""

    start: int
    end: int
    text: str
    span: Span


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What of a text stands in the training data."""

    text: str
    tokens: int
    covered: int
    """Tokens that are part of a passage."""
    passages: list[Passage]
    """The least likely one first. They may overlap."""


def covered(spans: Iterable[Span]) -> int:
    """Tokens that are part of a span."""
    return len({place for span in spans for place in range(span.start, span.end)})


class TraceIndex:
    """The training data of a run, ready to be searched."""

    def __init__(self, index: Path, tokens: Path, coder: Coder) -> None:
        """Open the folders of the stages `index` and `tokens`. Raises MissingInput or BadInput."""
        self.shards = TokenShards(tokens, "train")
        self._coder = coder
        self._files = [
            (np.asarray(part), _load(index / Path(file.name).with_suffix(".npy"), len(part)))
            for file, part in zip(self.shards.split.files, self.shards.parts, strict=True)
        ]
        self._starts = np.cumsum([0, *(len(part) for part, _ in self._files)])
        self._offsets = np.array([offset for offset, _ in self.shards.documents])
        self._ids, self._numbers = np.unique(
            [identifier for _, identifier in self.shards.documents], return_inverse=True
        )
        self._placements = {row.id: row for row in read_jsonl(tokens / "documents.jsonl", Placement)}

    def spans(self, ids: Sequence[int], *, least: int = LEAST, sources: int = SOURCES) -> list[Span]:
        """The maximal spans of at least `least` tokens, the least likely one first. The separator of
        documents is part of none.
        """
        query = np.array(ids, np.int64)
        counts = self._counts(query)
        found = [self._span(query, counts, start, end, sources) for start, end in self._maximal(query, least)]
        return sorted(found, key=lambda span: -span.bits)

    def trace(self, text: str, *, least: int = LEAST, sources: int = SOURCES) -> Trace:
        """The spans of a text, in characters.

        The first word of a text is other tokens than the same word after a blank, so both are tried, and what
        covers more counts. A text that begins or ends within a word may lose that word, and one with other
        blanks or line breaks than its page has ends its spans there.
        """
        found = [self._trace(text, lead, least, sources) for lead in ("", " ")]
        return max(found, key=lambda trace: trace.covered)

    def _trace(self, text: str, lead: str, least: int, sources: int) -> Trace:
        """The trace of `text`, cut into tokens as it is after `lead`."""
        ids = self._coder.encode(lead + text)
        ends = np.cumsum([len(self._coder.decode_bytes([token])) for token in ids]).tolist()
        data = self._coder.decode_bytes(ids)
        places = [len(data[:end].decode(errors="ignore")) - len(lead) for end in (0, *ends)]
        text = data.decode(errors="replace")[len(lead) :]
        spans = self.spans(ids, least=least, sources=sources)
        passages = []
        for span in spans:
            start, end = max(0, places[span.start]), places[span.end]
            passages.append(Passage(start=start, end=end, text=text[start:end], span=span))
        return Trace(text=text, tokens=len(ids), covered=covered(spans), passages=passages)

    def _maximal(self, query: np.ndarray, least: int) -> list[tuple[int, int]]:
        """(start, end) of the longest match of each place, if it is long enough and not part of the one
        before.
        """
        lengths = np.zeros(len(query), np.int64)
        for text, suffixes in self._files:
            np.maximum(lengths, _longest_matches(text, suffixes, query, self.shards.index.eot), out=lengths)
        starts = np.arange(len(query))
        ends = starts + lengths
        kept = (lengths >= least) & (np.diff(ends, prepend=0) > 0)
        return list(zip(starts[kept].tolist(), ends[kept].tolist(), strict=True))

    def _counts(self, query: np.ndarray) -> dict[int, int]:
        """How often each token of the query stands in the shards."""
        return {
            token: sum(high - low for low, high in self._rows(np.array([token])))
            for token in set(query.tolist())
        }

    def _rows(self, pattern: np.ndarray) -> list[tuple[int, int]]:
        """For each file the rows of the suffixes that begin with a pattern, from and to."""
        return [_rows(text, suffixes, pattern) for text, suffixes in self._files]

    def _places(self, pattern: np.ndarray) -> np.ndarray:
        """Where a pattern stands, counted over all files, in order."""
        triples = zip(self._files, self._starts, self._rows(pattern), strict=False)
        return np.sort(
            np.concatenate([suffixes[low:high] + start for (_, suffixes), start, (low, high) in triples])
        )

    def _span(self, query: np.ndarray, counts: dict[int, int], start: int, end: int, sources: int) -> Span:
        pattern = query[start:end]
        places = self._places(pattern)
        rows = np.searchsorted(self._offsets, places, "right") - 1
        numbers, firsts, times = np.unique(self._numbers[rows], return_index=True, return_counts=True)
        shares = np.array([counts[token] for token in pattern.tolist()]) / len(self.shards)
        return Span(
            start=start,
            end=end,
            bits=round(-float(np.log2(shares).sum()), 1),
            occurrences=len(places),
            documents=len(numbers),
            sources=[
                self._source(
                    str(self._ids[numbers[rank]]), int(places[firsts[rank]]), end - start, int(times[rank])
                )
                for rank in np.lexsort((firsts, -times))[:sources]
            ],
        )

    def _source(self, identifier: str, place: int, length: int, times: int) -> Source:
        row = int(np.searchsorted(self._offsets, place, "right"))
        behind = int(self._offsets[row]) if row < len(self._offsets) else len(self.shards)
        first = max(int(self._offsets[row - 1]) + 1, place - AROUND)
        tokens = self.shards.window(first, min(behind, place + length + AROUND) - first).tolist()
        return Source(
            id=identifier,
            url=self._placements[identifier].url,
            title=self._placements[identifier].title,
            occurrences=times,
            excerpt=self._coder.decode_bytes(tokens).decode(errors="ignore"),
        )


def _load(path: Path, tokens: int) -> np.ndarray:
    again = f"build it with: crawltalk run {path.parent.parent}"
    if not path.exists():
        raise MissingInput(f"{path} is not there; {again}")
    try:
        suffixes = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise BadInput(f"{path} is damaged ({error}); {again}") from None
    if suffixes.shape != (tokens,):  # compiled loops do not look whether a place is there
        raise BadInput(
            f"{path} is of other tokens than the shards, {len(suffixes):,} instead of {tokens:,}; {again}"
        )
    return np.asarray(suffixes)


@njit(cache=True)
def _row(text, suffixes, query, start, end, after):
    """The row before which `query[start:end]` belongs among the suffixes (behind those that begin with it if
    `after`), and how many of its tokens a neighbour shares.

    What the suffixes around the rows in question share with the query need not be compared again (Manber and
    Myers 1990, section 2).
    """
    low, high = 0, len(suffixes)
    before = behind = 0
    while low < high:
        middle = (low + high) // 2
        place, size = suffixes[middle], min(before, behind)
        while start + size < end and place + size < len(text) and text[place + size] == query[start + size]:
            size += 1
        smaller = after  # where the query ends, all that begin with it are alike
        if start + size < end:
            smaller = place + size == len(text) or text[place + size] < query[start + size]
        if smaller:
            low, before = middle + 1, size
        else:
            high, behind = middle, size
    return low, max(before, behind)


@njit(cache=True)
def _rows(text, suffixes, pattern):
    """The rows of the suffixes that begin with a pattern, from and to."""
    ends = (
        _row(text, suffixes, pattern, 0, len(pattern), False),
        _row(text, suffixes, pattern, 0, len(pattern), True),
    )
    return ends[0][0], ends[1][0]


@njit(cache=True)
def _longest_matches(text, suffixes, query, separator):
    """For each place of the query the tokens of the longest match in the text; none goes over a separator."""
    lengths = np.zeros(len(query), np.int64)
    end = len(query)
    for start in range(len(query) - 1, -1, -1):
        if query[start] == separator:
            end = start
        else:
            lengths[start] = _row(text, suffixes, query, start, end, False)[1]
    return lengths
