"""Encoding a corpus: chunks recur, so that each is merged once per thread and looked up after that.

The merges are those of tiktoken: of all neighbours whose bytes together are a token, those of the lowest rank come first, the
leftmost of equals. What is remembered is bounded; a chunk that comes when that is full is merged anew each time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import regex
from numba import njit

from crawltalk.tokenizer.patterns import splitter
from crawltalk.tokenizer.split import LONG, chunk_key, classes, find_chunk, first_slot, keep_chunk, next_chunk

_NONE = np.uint32(2**32 - 1)
_SLOTS = 1 << 20
_FEW = 100
"""Bytes of a chunk in which the lowest rank is found by looking at all; in longer ones, by a heap."""
_LONGEST = 255
"""Bytes of a chunk that is remembered."""
_RANK = 28
"""Bits of a rank."""
_BLOCK = 1 << 20
"""Bytes of text that a thread takes at a time."""


class BulkEncoder:
    """Encodes texts in UTF-8 into the ids of a vocabulary."""

    def __init__(self, ranks: Mapping[bytes, int], ids: np.ndarray, pattern: str) -> None:
        """`ranks`: bytes -> rank, from 0 on in order; every byte is among them. `ids`: of each rank, uint32. An unknown `pattern`
        is left to `regex`.
        """
        self.by = splitter(pattern)
        self.find = regex.compile(pattern)
        self.ids = None if np.array_equal(ids, np.arange(len(ids))) else ids
        sizes = np.fromiter(map(len, ranks), np.int64, len(ranks))
        memory = _new_memory(len(ranks))
        _learn_words(np.frombuffer(b"".join(ranks), np.uint8), np.cumsum(sizes), memory)
        bytes_ = np.array([ranks[bytes([value])] for value in range(256)], np.uint32)
        self.vocabulary = bytes_, int(sizes.max())
        self._spare: SimpleQueue[tuple[np.ndarray, ...]] = SimpleQueue()
        self._spare.put(memory)
        self._memories = [memory]

    def encode(self, texts: Sequence[bytes], threads: int = 1) -> list[np.ndarray]:
        """Ids of each text, uint32. Bytes that are no UTF-8 are encoded as they are."""
        if self.by:
            classes(self.by)
        while len(self._memories) < threads:
            self._memories.append(tuple(array.copy() for array in self._memories[0]))
            self._spare.put(self._memories[-1])
        if threads == 1:
            return [ids for block in _blocks(texts) for ids in self._encode_block(block)]
        with ThreadPoolExecutor(threads) as pool:
            return [ids for block in pool.map(self._encode_block, _blocks(texts)) for ids in block]

    def _encode_block(self, texts: list[bytes]) -> list[np.ndarray]:
        data = np.frombuffer(b"".join(texts), np.uint8)
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        cuts = np.empty(0, np.int64) if self.by else self._cut(texts)
        table, rule = (classes(self.by), self.by.rule) if self.by else (np.empty(0, np.uint8), (0, 0))
        found, id_ends = np.empty(len(data) + 1, np.uint32), np.empty(len(ends), np.int64)
        memory = self._spare.get()
        try:
            _encode(data, ends, cuts, table, rule, memory, self.vocabulary, found, id_ends)
        finally:
            self._spare.put(memory)
        found = found[: id_ends[-1]]
        return np.split(found.copy() if self.ids is None else self.ids[found], id_ends[:-1])

    def _cut(self, texts: list[bytes]) -> np.ndarray:
        """Where the chunks of all texts end, by the regular expression. A byte that is no UTF-8 is a mark to it."""
        sizes: list[int] = []
        for text in texts:
            decoded, place = text.decode("utf-8", "surrogateescape"), 0
            for found in self.find.finditer(decoded):
                pieces = (decoded[place : found.start()], found[0])  # what the expression passes over is a chunk, too
                sizes += [len(piece.encode("utf-8", "surrogateescape")) for piece in pieces if piece]
                place = found.end()
            sizes += [len(decoded[place:].encode("utf-8", "surrogateescape"))] if place < len(decoded) else []
        return np.cumsum(sizes, dtype=np.int64)


class BulkDecoder:
    """Joins the bytes of tokens."""

    def __init__(self, words: Mapping[int, bytes]) -> None:
        """`words`: id -> bytes; an id in between that has none stands for an error."""
        size = 1 + max(words)
        lengths = [len(words[index]) if index in words else -1 for index in range(size)]
        self.lengths = np.array(lengths, np.int64)
        self.starts = np.cumsum(np.maximum(self.lengths, 0)) - np.maximum(self.lengths, 0)
        self.data = np.frombuffer(b"".join(words[index] for index in range(size) if index in words), np.uint8)

    def decode(self, ids: np.ndarray) -> bytes:
        """The bytes of the tokens. KeyError for an id that has none."""
        total = _length(ids, self.lengths)
        if total < 0:
            raise KeyError(int(ids[-1 - total]))
        return _joined(ids, self.starts, self.lengths, self.data, total).tobytes()


@njit(cache=True, nogil=True)
def _length(ids, lengths):
    """Bytes of all tokens; -1 - n, if the token at place n is unknown."""
    total = 0
    for place in range(len(ids)):
        index = np.int64(ids[place])
        if not 0 <= index < len(lengths) or lengths[index] < 0:
            return -1 - place
        total += lengths[index]
    return total


@njit(cache=True, nogil=True)
def _joined(ids, starts, lengths, data, total):
    out = np.empty(total, np.uint8)
    written = 0
    for index in ids:
        start = starts[index]
        for step in range(lengths[index]):
            out[written] = data[start + step]
            written += 1
    return out


def _blocks(texts: Iterable[bytes]) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _new_memory(words: int) -> tuple[np.ndarray, ...]:
    """Slots and entries (`find_chunk`), room for the copies of longer chunks, the ranks of chunks that have more than two, and how
    many entries, bytes and ranks are used.

    A chunk's value: in 8 bits how many ranks it has; above them two ranks, or else where its ranks begin.
    """
    slots = max(_SLOTS, 1 << (4 * words).bit_length())
    entries = np.empty((slots // 2, 4), np.uint64)
    entries[0] = 0
    texts = np.empty(8 * slots, np.uint8), np.empty(2 * slots, np.uint32)
    return (np.zeros(slots, np.uint32), entries, *texts, np.array([1, 0, 0]))


@njit(cache=True, nogil=True)
def _learn_words(data, ends, memory):
    """Remember the words of a vocabulary: their rank is their number."""
    slots, entries, text, _, used = memory
    start = 0
    for number in range(len(ends)):
        end = ends[number]
        first, second = chunk_key(data, start, end)
        _, slot = find_chunk(data, start, end, first, second, slots, entries, text)
        chunk = keep_chunk(data, start, end, first, second, slot, slots, entries, text, used)
        entries[chunk, 2] = np.uint64(number << 8 | 1)
        start = end


@njit(cache=True, nogil=True)
def _remember(data, start, end, first, second, ranks, memory):
    """Note the ranks of a chunk, if there is room."""
    slots, entries, text, known, used = memory
    full = used[0] == len(entries) or used[1] + end - start > len(text) or used[2] + len(ranks) > len(known)
    if full or end - start > _LONGEST:
        return
    _, slot = find_chunk(data, start, end, first, second, slots, entries, text)
    chunk = keep_chunk(data, start, end, first, second, slot, slots, entries, text, used)
    if len(ranks) <= 2:
        value = np.int64(ranks[0]) | np.int64(ranks[-1]) << _RANK
    else:
        value = used[2]
        known[value : value + len(ranks)] = ranks
        used[2] += len(ranks)
    entries[chunk, 2] = np.uint64(value << 8 | len(ranks))


@njit(cache=True, nogil=True)
def _encode(data, ends, cuts, table, rule, memory, vocabulary, out, out_ends):
    """Write the ranks of all texts, and where those of each end; `cuts`: where chunks end, if that is known already."""
    slots, entries = memory[:2]
    place = written = chunk = 0
    for number in range(len(ends)):
        stop = ends[number]
        while place < stop:
            if len(cuts):
                end = cuts[chunk]
                chunk += 1
                first, second = chunk_key(data, place, end)
            else:
                end, first, second = next_chunk(data, place, stop, table, rule)
            found = slots[first_slot(first, second, slots)]
            value, same = entries[found, 2], entries[found, 0] == first and entries[found, 1] == second and second < LONG
            count = value & np.uint64(255)
            if same and count <= 2:
                value >>= np.uint64(8)
                out[written] = value & np.uint64((1 << _RANK) - 1)
                out[written + 1] = value >> np.uint64(_RANK)  # overwritten, if there is but one
                written += np.int64(count)
            else:
                written += _encode_chunk(data, place, end, first, second, memory, vocabulary, out[written:])
            place = end
        out_ends[number] = written


@njit(cache=True, nogil=True)
def _encode_chunk(data, start, end, first, second, memory, vocabulary, out):
    """Write a chunk's ranks; returns their number."""
    slots, entries, text, known, _ = memory
    found, _ = find_chunk(data, start, end, first, second, slots, entries, text)
    if not found:
        count = _merge(data, start, end, memory, vocabulary, out)
        _remember(data, start, end, first, second, out[:count], memory)
        return count
    value, count = np.int64(entries[found, 2] >> np.uint64(8)), np.int64(entries[found, 2] & np.uint64(255))
    if count <= 2:
        out[0] = value & ((1 << _RANK) - 1)
        if count == 2:
            out[1] = value >> _RANK
    else:
        out[:count] = known[value : value + count]
    return count


@njit(cache=True, nogil=True)
def _rank(data, start, end, memory, longest):
    """The rank of some bytes; _NONE if they are no token."""
    slots, entries, text, _, _ = memory
    if end - start > longest:
        return _NONE
    first, second = chunk_key(data, start, end)
    found, _ = find_chunk(data, start, end, first, second, slots, entries, text)
    if found and entries[found, 2] & np.uint64(255) == 1:
        return np.uint32(entries[found, 2] >> np.uint64(8))
    return _NONE


@njit(cache=True, nogil=True)
def _merge(data, start, end, memory, vocabulary, out):
    """Write the ranks of the parts that a chunk's bytes are merged into; returns their number."""
    bytes_, longest = vocabulary
    count = end - start
    for step in range(count):
        out[step] = bytes_[data[start + step]]
    if count > _FEW:
        return _merge_many(data, start, end, memory, longest, out)
    return _merge_few(data, start, end, memory, longest, out)


@njit(cache=True, nogil=True)
def _merge_few(data, start, end, memory, longest, out):
    count = end - start
    begins = np.arange(start, end + 1)
    together = np.full(count, _NONE, np.uint32)  # ranks of each part with the next one
    for place in range(count - 1):
        together[place] = _rank(data, begins[place], begins[place + 2], memory, longest)
    while count > 1:
        best = 0
        for place in range(1, count - 1):
            if together[place] < together[best]:
                best = place
        if together[best] == _NONE:
            break
        out[best] = together[best]
        count -= 1
        for place in range(best + 1, count):
            out[place] = out[place + 1]
            begins[place] = begins[place + 1]
            together[place - 1] = together[place]
        begins[count] = end
        if best + 1 < count:
            together[best] = _rank(data, begins[best], begins[best + 2], memory, longest)
        if best:
            together[best - 1] = _rank(data, begins[best - 1], begins[best + 1], memory, longest)
    return count


@njit(cache=True, nogil=True)
def _merge_many(data, start, end, memory, longest, out):
    """The same with a heap of ranks and places, where what is outdated is passed over."""
    count = end - start
    after, before = np.arange(1, count + 2), np.arange(-1, count)  # where the next part begins, and the one before
    heap, size = np.empty(3 * count, np.uint64), 0
    for place in range(count - 1):
        size = _push(heap, size, _rank(data, start + place, start + place + 2, memory, longest), place)
    while size:
        top = heap[0]
        size = _pop(heap, size)
        place, rank = np.int64(top & np.uint64(0xFFFFFFFF)), np.uint32(top >> np.uint64(32))
        right = after[place]
        if out[place] == _NONE or right == count or _rank(data, start + place, start + after[right], memory, longest) != rank:
            continue
        out[place], out[right] = rank, _NONE
        after[place] = after[right]
        before[after[place]] = place
        if after[place] < count:
            size = _push(heap, size, _rank(data, start + place, start + after[after[place]], memory, longest), place)
        left = before[place]
        if left >= 0:
            size = _push(heap, size, _rank(data, start + left, start + after[place], memory, longest), left)
    written = 0
    for place in range(count):
        if out[place] != _NONE:
            out[written] = out[place]
            written += 1
    return written


@njit(cache=True, nogil=True)
def _push(heap, size, rank, place):
    """Returns the new size."""
    if rank == _NONE:
        return size
    value, hole = np.uint64(rank) << np.uint64(32) | np.uint64(place), size
    while hole and heap[(hole - 1) // 2] > value:
        heap[hole] = heap[(hole - 1) // 2]
        hole = (hole - 1) // 2
    heap[hole] = value
    return size + 1


@njit(cache=True, nogil=True)
def _pop(heap, size):
    size -= 1
    value, hole = heap[size], 0
    while 2 * hole + 1 < size:
        child = 2 * hole + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[hole] = heap[child]
        hole = child
    heap[hole] = value
    return size
