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
from crawltalk.tokenizer.split import chunk_key, classes, find_chunk, keep_chunk, next_chunk

_NONE = np.uint32(2**32 - 1)
_SLOTS = 1 << 20
_FEW = 100
"""Bytes of a chunk in which the lowest rank is found by looking at all; in longer ones, by a heap."""
_LONGEST = 255
"""Bytes of a chunk that is remembered."""
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
        data, ends = np.frombuffer(b"".join(ranks), np.uint8), np.cumsum([len(word) for word in ranks])
        bytes_ = np.array([ranks[bytes([value])] for value in range(256)], np.uint32)
        memory = _new_memory(ids)
        _learn_words(data, ends, memory)
        self.vocabulary = (bytes_, *_pairs(data, ends, memory), ids)
        self._spare: SimpleQueue[tuple[np.ndarray, ...]] = SimpleQueue()
        self._spare.put(memory)
        self._memories = [memory]

    def encode(self, texts: Sequence[bytes], threads: int = 1) -> list[np.ndarray]:
        """Ids of each text, uint32. Bytes that are no UTF-8 are encoded as they are."""
        classes()  # made once, before the threads ask for it
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
        ids, id_ends = np.empty(len(data), np.uint32), np.empty(len(ends), np.int64)
        memory = self._spare.get()
        try:
            _encode(data, ends, cuts, classes(), self.by.digits if self.by else 0, memory, self.vocabulary, ids, id_ends)
        finally:
            self._spare.put(memory)
        return np.split(ids[: id_ends[-1]].copy(), id_ends[:-1])

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


def _new_memory(ids: np.ndarray) -> tuple[np.ndarray, ...]:
    """Slots and entries (`find_chunk`; the value says where a chunk's ids begin, and in 8 bits how many they are), room for the
    copies of longer chunks, the ids (first those of all words), and how many entries, bytes and ids are used.
    """
    slots = max(_SLOTS, 1 << (4 * len(ids)).bit_length())
    known = np.concatenate([ids, np.empty(2 * slots, np.uint32)])
    table = np.zeros(slots, np.uint32), np.empty((slots // 2, 4), np.uint64)
    return (*table, np.empty(8 * slots, np.uint8), known, np.array([0, 0, len(ids)]))


@njit(cache=True, nogil=True)
def _remember(data, start, end, first, second, slot, begin, count, memory):
    """Note that the ids of a chunk begin at `begin`, if there is room."""
    slots, entries, text, known, used = memory
    full = used[0] == len(entries) or used[1] + end - start > len(text) or begin + count > len(known)
    if full or end - start > _LONGEST:
        return False
    chunk = keep_chunk(data, start, end, first, second, slot, slots, entries, text, used)
    entries[chunk, 2] = np.uint64(begin << 8 | count)
    return True


@njit(cache=True, nogil=True)
def _learn_words(data, ends, memory):
    """Remember the words of a vocabulary: their rank is their number."""
    start = 0
    for number in range(len(ends)):
        end = ends[number]
        first, second = chunk_key(data, start, end)
        _, slot = find_chunk(data, start, end, first, second, memory[0], memory[1], memory[2])
        _remember(data, start, end, first, second, slot, number, 1, memory)
        start = end


@njit(cache=True, nogil=True)
def _word(data, start, end, memory):
    """The rank of a word, -1 if it is none."""
    first, second = chunk_key(data, start, end)
    chunk, _ = find_chunk(data, start, end, first, second, memory[0], memory[1], memory[2])
    return np.int64(memory[1][chunk, 2] >> np.uint64(8)) if chunk >= 0 else -1


@njit(cache=True, nogil=True)
def _pairs(data, ends, memory):
    """A hash table of all pairs of words that together are one: keys and ranks."""
    slots = 1024
    while slots < 8 * len(ends):
        slots *= 2
    keys, ranks = np.zeros(slots, np.uint64), np.full(slots, _NONE, np.uint32)
    start = 0
    for number in range(len(ends)):
        end = ends[number]
        for cut in range(start + 1, end):
            left = _word(data, start, cut, memory)
            right = _word(data, cut, end, memory) if left >= 0 else -1
            if right >= 0:
                pair = np.uint64(left) << np.uint64(32) | np.uint64(right)
                place = _pair_slot(pair, keys, ranks)
                keys[place], ranks[place] = pair, number
        start = end
    return keys, ranks


@njit(cache=True, nogil=True)
def _pair_slot(pair, keys, ranks):
    mask = np.uint64(len(keys) - 1)
    slot = ((pair * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)) & mask
    while ranks[slot] != _NONE and keys[slot] != pair:
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def _rank(left, right, keys, ranks):
    """The rank of what two tokens make together; _NONE if it is no token."""
    return ranks[_pair_slot(np.uint64(left) << np.uint64(32) | np.uint64(right), keys, ranks)]


@njit(cache=True, nogil=True)
def _encode(data, ends, cuts, table, digits, memory, vocabulary, out, out_ends):
    """Write the ids of all texts, and where those of each end; `cuts`: where chunks end, if that is known already."""
    slots, entries, text, known, used = memory
    place = written = chunk = 0
    for number in range(len(ends)):
        stop = ends[number]
        while place < stop:
            if len(cuts):
                end = cuts[chunk]
                chunk += 1
                first, second = chunk_key(data, place, end)
            else:
                end, first, second = next_chunk(data, place, stop, table, digits)
            found, slot = find_chunk(data, place, end, first, second, slots, entries, text)
            if found >= 0:
                value = entries[found, 2]
                begin = np.int64(value >> np.uint64(8))
                for step in range(np.int64(value & np.uint64(255))):
                    out[written] = known[begin + step]
                    written += 1
            else:
                count = _merged(data, place, end, vocabulary, out, written)
                begin = used[2]
                if _remember(data, place, end, first, second, slot, begin, count, memory):
                    for step in range(count):
                        known[begin + step] = out[written + step]
                    used[2] += count
                written += count
            place = end
        out_ends[number] = written


@njit(cache=True, nogil=True)
def _merged(data, start, end, vocabulary, out, written):
    """Write a chunk's ids behind `written`; returns their number."""
    bytes_, keys, ranks, ids = vocabulary
    count = end - start
    for step in range(count):
        out[written + step] = bytes_[data[start + step]]
    tokens = out[written : written + count]
    count = _merge_many(tokens, keys, ranks) if count > _FEW else _merge_few(tokens, keys, ranks)
    for step in range(count):
        tokens[step] = ids[tokens[step]]
    return count


@njit(cache=True, nogil=True)
def _merge_few(tokens, keys, ranks):
    count = len(tokens)
    together = np.empty(_FEW, np.uint32)  # ranks of each token with the next one
    for place in range(count - 1):
        together[place] = _rank(tokens[place], tokens[place + 1], keys, ranks)
    while count > 1:
        best = 0
        for place in range(1, count - 1):
            if together[place] < together[best]:
                best = place
        if together[best] == _NONE:
            break
        tokens[best] = together[best]
        count -= 1
        for place in range(best + 1, count):
            tokens[place] = tokens[place + 1]
            together[place - 1] = together[place]
        if best + 1 < count:
            together[best] = _rank(tokens[best], tokens[best + 1], keys, ranks)
        if best:
            together[best - 1] = _rank(tokens[best - 1], tokens[best], keys, ranks)
    return count


@njit(cache=True, nogil=True)
def _merge_many(tokens, keys, ranks):
    """The same with a heap of ranks and places, where what is outdated is passed over."""
    count = len(tokens)
    after, before = np.arange(1, count + 1), np.arange(-1, count - 1)
    heap, size = np.empty(3 * count, np.uint64), 0
    for place in range(count - 1):
        size = _push(heap, size, _rank(tokens[place], tokens[place + 1], keys, ranks), place)
    while size:
        top = heap[0]
        size = _pop(heap, size)
        place, rank = np.int64(top & np.uint64(0xFFFFFFFF)), np.uint32(top >> np.uint64(32))
        right = after[place] if tokens[place] != _NONE else count
        if right == count or _rank(tokens[place], tokens[right], keys, ranks) != rank:
            continue
        tokens[place], tokens[right] = rank, _NONE
        after[place] = after[right]
        if after[place] < count:
            before[after[place]] = place
            size = _push(heap, size, _rank(rank, tokens[after[place]], keys, ranks), place)
        if before[place] >= 0:
            size = _push(heap, size, _rank(tokens[before[place]], rank, keys, ranks), before[place])
    written = 0
    for place in range(count):
        if tokens[place] != _NONE:
            tokens[written] = tokens[place]
            written += 1
    return written


@njit(cache=True, nogil=True)
def _push(heap, size, rank, place):
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
