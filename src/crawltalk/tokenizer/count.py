"""Counting the chunks of a corpus. Equal chunks are kept once, so memory grows with the number of distinct chunks
and not with the text.

Threads get blocks of text in turn, each with a hash table of its own. If there are too many chunks, rare ones are
dropped as in lossy counting (Manku and Motwani 2002): no count is too high, and none is too low by more than
`Chunks.error`.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from typing import NamedTuple

import numpy as np
import regex
from numba import njit

from crawltalk.core.errors import BadInput
from crawltalk.tokenizer.patterns import Splitter, splitter
from crawltalk.tokenizer.table import ChunkTable, Packed

BLOCK = 1 << 20
"""Bytes of text in one work item of a thread."""
_AHEAD = 2
"""Blocks that are queued for each thread."""
_ROOM = 1 << 17


class Chunks(NamedTuple):
    """Distinct chunks of bytes and how often each occurs."""

    data: np.ndarray
    """All of them, one behind the other, uint8."""
    ends: np.ndarray
    """Where each ends, int64."""
    counts: np.ndarray
    """int64."""
    error: int = 0
    """By how much a count may be too low; more than 0 only if rare chunks were dropped to save memory."""

    @classmethod
    def of(cls, counts: Counter[bytes]) -> "Chunks":
        """From a Python Counter."""
        data = np.frombuffer(b"".join(counts), np.uint8)
        ends = np.cumsum(np.fromiter(map(len, counts), np.int64, len(counts)))
        return cls(data, ends, np.fromiter(counts.values(), np.int64, len(counts)))

    def counter(self) -> Counter[bytes]:
        """As a Python Counter."""
        data, ends = self.data.tobytes(), self.ends.tolist()
        return Counter(
            {data[a:b]: n for a, b, n in zip([0, *ends], ends, self.counts.tolist(), strict=False)}
        )


class _Counts:
    """What one thread has counted."""

    def __init__(self, most: int) -> None:
        self.most, self.error = most, 0
        self.table = ChunkTable(_ROOM)
        self.counts = np.zeros(_ROOM, np.int64)
        """By the numbers of chunks."""

    def count(self, block: bytes, ends: np.ndarray, by: Splitter) -> None:
        """Count the chunks of the texts in a block; `ends`: the end of each text."""
        numbers, _ = self.table.number(np.frombuffer(block, np.uint8), ends, by)
        self._make_room()
        _sum(numbers, self.counts)
        if len(self.table) > self.most:
            self._give_up_half()

    def add(self, chunks: Packed, counts: np.ndarray) -> None:
        """Add different chunks with their counts."""
        numbers = self.table.number_cut(chunks)
        self._make_room()
        self.counts[numbers] += counts

    def _make_room(self) -> None:
        if len(self.counts) < len(self.table):
            self.counts = np.concatenate([self.counts, np.zeros(len(self.table), np.int64)])

    def _give_up_half(self) -> None:
        (data, ends), counts = self.chunks()
        floor = int(np.partition(counts, len(counts) // 2)[len(counts) // 2])
        kept, sizes = counts > floor, np.diff(ends, prepend=0)
        self.table, self.counts = ChunkTable(_ROOM), np.zeros(_ROOM, np.int64)
        self.add(Packed(data[np.repeat(kept, sizes)], np.cumsum(sizes[kept])), counts[kept])
        self.error += floor

    def chunks(self) -> tuple[Packed, np.ndarray]:
        """All chunks, and their counts."""
        return self.table.chunks(), self.counts[1 : len(self.table)]


def count_chunks(
    texts: Iterable[str | bytes], pattern: str = "gpt4", *, threads: int = 1, max_chunks: int = 1 << 62
) -> Chunks:
    """The chunks of the texts, as UTF-8, with their counts.

    `pattern`: "gpt2", "gpt4" or a regular expression. `max_chunks`: about how many chunks each thread may hold
    (some 40 bytes each) before it drops rare ones. Lone surrogates count as the three bytes that encode them.
    """
    by = splitter(pattern)
    if by is None:
        return Chunks.of(_count_by_regex(texts, pattern))
    counts = [_Counts(max_chunks) for _ in range(threads)]
    counts[0].count(b"", np.zeros(0, np.int64), by)  # loads compiled code before the threads start
    waiting: list[deque[Future[None]]] = [deque() for _ in counts]
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in counts]
        for number, (block, ends) in enumerate(_blocks(texts)):
            turn = (
                number % threads
            )  # not the next free one: which chunks are dropped must not depend on timing
            if len(waiting[turn]) == _AHEAD:
                waiting[turn].popleft().result()
            waiting[turn].append(pools[turn].submit(counts[turn].count, block, ends, by))
        for last in chain(*waiting):
            last.result()
    for other in counts[1:]:
        counts[0].add(*other.chunks())
    packed, sums = counts[0].chunks()
    return Chunks(*packed, sums, sum(one.error for one in counts))


def _count_by_regex(texts: Iterable[str | bytes], pattern: str) -> Counter[bytes]:
    if pattern.replace("-", "").isalnum():
        raise BadInput(
            f"no split pattern is called {pattern!r}; give gpt4, gpt2, gpt4-digits or a regular expression"
        )
    try:
        find: Callable[[str], list[str]] = regex.compile(pattern).findall
    except regex.error as error:
        raise BadInput(
            f"the split pattern {pattern!r} is not a regular expression ({error}); give gpt4, gpt2 or a valid one"
        ) from None
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(find(text if isinstance(text, str) else text.decode("utf-8", "surrogatepass")))
    return Counter({chunk.encode("utf-8", "surrogatepass"): count for chunk, count in counts.items()})


def _blocks(texts: Iterable[str | bytes]) -> Iterator[tuple[bytes, np.ndarray]]:
    """The texts in blocks of about `BLOCK` bytes, with their ends; a longer text in pieces, between two
    words.
    """
    pieces: list[bytes] = []
    size = 0
    for text in texts:
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        start = 0
        while start < len(data):
            end = len(data) if len(data) - start <= BLOCK else _cut(data, start + BLOCK)
            pieces.append(data[start:end])
            size += end - start
            start = end
            if size >= BLOCK:
                yield _joined(pieces)
                pieces, size = [], 0
    if pieces:
        yield _joined(pieces)


def _joined(pieces: list[bytes]) -> tuple[bytes, np.ndarray]:
    return b"".join(pieces), np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))


_WORD = regex.compile(rb"[A-Za-z](?= [A-Za-z])")


def _cut(data: bytes, start: int) -> int:
    """A position where every known pattern begins a new chunk in any context: between two words with one blank."""
    found = _WORD.search(data, start)
    return found.end() if found else len(data)


@njit(cache=True, nogil=True)
def _sum(numbers, sums):
    for number in numbers:
        sums[number] += 1
