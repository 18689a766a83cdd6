"""Counting the chunks of a corpus: equal ones are kept once. What is held in memory grows with their number alone, not with the text.

Threads take blocks of text in turn, each with a hash table of its own. Where memory is short, rare chunks are given up as in
lossy counting (Manku and Motwani 2002): no count is too high, and none is too low by more than `Chunks.error`.
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
from crawltalk.tokenizer.split import LONG, chunk_key, classes, find_chunk, first_slot, keep_chunk, next_chunk

BLOCK = 1 << 20
"""Bytes of text that a thread takes at a time."""
_AHEAD = 2
"""Blocks that lie ready for each thread."""
_SLOTS = 1 << 18


class Chunks(NamedTuple):
    """Distinct chunks of bytes and how often each occurs."""

    data: np.ndarray
    """All of them, one behind the other, uint8."""
    ends: np.ndarray
    """Where each ends, int64."""
    counts: np.ndarray
    """int64."""
    error: int = 0
    """By how much a count may be too low; more than 0 only if chunks were given up for want of memory."""

    @classmethod
    def of(cls, counts: Counter[bytes]) -> "Chunks":
        """From Python's own."""
        data = np.frombuffer(b"".join(counts), np.uint8)
        ends = np.cumsum(np.fromiter(map(len, counts), np.int64, len(counts)))
        return cls(data, ends, np.fromiter(counts.values(), np.int64, len(counts)))

    def counter(self) -> Counter[bytes]:
        """As Python's own."""
        data, ends = self.data.tobytes(), self.ends.tolist()
        return Counter({data[a:b]: n for a, b, n in zip([0, *ends], ends, self.counts.tolist(), strict=False)})


class _Table:
    """A table of chunks, each with its count."""

    def __init__(self, most: int) -> None:
        self.most, self.error = most, 0
        self.arrays = _empty(_SLOTS)

    def count(self, block: bytes, ends: np.ndarray, by: Splitter) -> None:
        """Count the chunks of some texts, of which each ends where `ends` says."""
        data = np.frombuffer(block, np.uint8)
        place = np.zeros(2, np.int64)  # where the next chunk begins, and in which text
        while not _count(data, ends, place, classes(by), by.rule, *self.arrays):
            self._make_room(len(block))

    def add(self, other: "_Table") -> None:
        """Count what another table has counted."""
        self.error += other.error
        data, ends, counts = _unpack(*other.arrays)
        place = np.zeros(1, np.int64)
        while not _add_all(data, ends, counts, place, *self.arrays):
            self._make_room(len(data))

    def _make_room(self, size: int) -> None:
        slots, entries, text, used = self.arrays
        room, floor, many = len(text), 0, len(slots)
        if room < used[1] + size:
            room += room + size
        if used[0] == len(entries):
            many *= 2
            if used[0] >= self.most:  # give up the rarer half
                counts = entries[1:, 2].astype(np.int64)
                floor, many = int(np.partition(counts, len(counts) // 2)[len(counts) // 2]), len(slots)
                self.error += floor
        self.arrays = _empty(many, room)
        _move(floor, entries[1 : used[0]], text, *self.arrays)

    def chunks(self) -> Chunks:
        """All that was counted."""
        return Chunks(*_unpack(*self.arrays), self.error)


def _empty(slots: int, size: int = 1 << 16) -> tuple[np.ndarray, ...]:
    """Slots and entries (`find_chunk`; the value is the count), room for the copies of longer chunks, and what is used."""
    entries = np.empty((slots // 2, 4), np.uint64)
    entries[0] = 0
    return np.zeros(slots, np.uint32), entries, np.empty(size, np.uint8), np.array([1, 0])


def count_chunks(
    texts: Iterable[str | bytes], pattern: str = "gpt4", *, threads: int = 1, max_chunks: int = 1 << 62
) -> Chunks:
    """The chunks of the texts, as UTF-8, with their counts.

    `pattern`: "gpt2", "gpt4" or a regular expression. `max_chunks`: about how many chunks each thread may hold (some 40 bytes
    each) before it gives up rare ones. Lone surrogates count as the three bytes that stand for them.
    """
    by = splitter(pattern)
    if by is None:
        return Chunks.of(_count_by_regex(texts, pattern))
    classes(by)
    tables = [_Table(max_chunks) for _ in range(threads)]
    waiting: list[deque[Future[None]]] = [deque() for _ in tables]
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in tables]
        for number, (block, ends) in enumerate(_blocks(texts)):
            turn = number % threads  # not whichever is free: what is given up should not depend on chance
            if len(waiting[turn]) == _AHEAD:
                waiting[turn].popleft().result()
            waiting[turn].append(pools[turn].submit(tables[turn].count, block, ends, by))
        for last in chain(*waiting):
            last.result()
    for table in tables[1:]:
        tables[0].add(table)
    return tables[0].chunks()


def _count_by_regex(texts: Iterable[str | bytes], pattern: str) -> Counter[bytes]:
    if pattern.replace("-", "").isalnum():
        raise BadInput(f"no split pattern is called {pattern!r}; give gpt4, gpt2, gpt4-digits or a regular expression")
    try:
        find: Callable[[str], list[str]] = regex.compile(pattern).findall
    except regex.error as error:
        raise BadInput(
            f"the split pattern {pattern!r} is no regular expression ({error}); give gpt4, gpt2 or a valid one"
        ) from None
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(find(text if isinstance(text, str) else text.decode("utf-8", "surrogatepass")))
    return Counter({chunk.encode("utf-8", "surrogatepass"): count for chunk, count in counts.items()})


def _blocks(texts: Iterable[str | bytes]) -> Iterator[tuple[bytes, np.ndarray]]:
    """The texts in blocks of about `BLOCK` bytes, with their ends; a longer text in pieces, between two words."""
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
    """Where every known pattern begins a new chunk, whatever stands around: between two words with one blank."""
    found = _WORD.search(data, start)
    return found.end() if found else len(data)


@njit(cache=True, nogil=True)
def _count(data, ends, at, table, rule, slots, entries, text, used):
    """Count chunks from byte `at[0]`, in text `at[1]`, on; False when there is no room for another one."""
    place, number = at[0], at[1]
    while number < len(ends):
        stop = ends[number]
        while place < stop:
            end, first, second = next_chunk(data, place, stop, table, rule)
            chunk = slots[first_slot(first, second, slots)]
            if entries[chunk, 0] == first and entries[chunk, 1] == second and second < LONG:
                entries[chunk, 2] += np.uint64(1)
            elif not _add(data, place, end, first, second, 1, slots, entries, text, used):
                at[0], at[1] = place, number
                return False
            place = end
        number += 1
    return True


@njit(cache=True, nogil=True)
def _add(data, start, end, first, second, count, slots, entries, text, used):
    """Count a chunk so many times; False when there is no room for it."""
    chunk, slot = find_chunk(data, start, end, first, second, slots, entries, text)
    if not chunk:
        if used[0] == len(entries) or used[1] + end - start > len(text):
            return False
        chunk = keep_chunk(data, start, end, first, second, slot, slots, entries, text, used)
    entries[chunk, 2] += np.uint64(count)
    return True


@njit(cache=True, nogil=True)
def _add_all(data, ends, counts, at, slots, entries, text, used):
    """Count chunks from number `at[0]` on, each so many times; False when there is no room for another one."""
    for number in range(at[0], len(ends)):
        start, end = ends[number - 1] if number else 0, ends[number]
        first, second = chunk_key(data, start, end)
        if not _add(data, start, end, first, second, counts[number], slots, entries, text, used):
            at[0] = number
            return False
    return True


@njit(cache=True, nogil=True)
def _move(floor, old, old_text, slots, entries, text, used):
    """Put what is counted more than `floor` times into another table."""
    for number in range(len(old)):
        first, second = old[number, 0], old[number, 1]
        if old[number, 2] > floor:
            start = np.int64(old[number, 3] >> np.uint64(32)) if second >= LONG else 0
            end = start + np.int64(old[number, 3] & np.uint64(0xFFFFFFFF)) if second >= LONG else 0
            _, slot = find_chunk(old_text, start, end, first, second, slots, entries, text)
            chunk = keep_chunk(old_text, start, end, first, second, slot, slots, entries, text, used)
            entries[chunk, 2] = old[number, 2]


@njit(cache=True, nogil=True)
def _unpack(slots, entries, text, used):
    """All chunks, their ends and their counts."""
    ends, counts = np.empty(used[0] - 1, np.int64), np.empty(used[0] - 1, np.int64)
    data = np.empty(used[0] * 15 + used[1], np.uint8)
    end = 0
    for number in range(1, used[0]):
        first, second = entries[number, 0], entries[number, 1]
        if second >= LONG:
            start = np.int64(entries[number, 3] >> np.uint64(32))
            for step in range(np.int64(entries[number, 3] & np.uint64(0xFFFFFFFF))):
                data[end] = text[start + step]
                end += 1
        else:
            size = np.int64(second >> np.uint64(56))
            for step in range(size):
                word = first if step < 8 else second
                data[end] = np.uint8(word >> np.uint64(8 * (step % 8)) & np.uint64(255))
                end += 1
        ends[number - 1], counts[number - 1] = end, np.int64(entries[number, 2])
    return data[:end].copy(), ends, counts
