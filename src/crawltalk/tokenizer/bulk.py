"""Encoding a corpus. Chunks recur, so each is merged once per thread and looked up after that.

The merges are those of tiktoken: of all neighbours whose bytes together are a token, those of the lowest rank
are merged first, the leftmost among equals. The cache is bounded: a thread with too many chunks clears it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import regex
from numba import njit

from crawltalk.tokenizer.patterns import splitter
from crawltalk.tokenizer.split import LONG, SHORT, chunk_key, classes
from crawltalk.tokenizer.table import ChunkTable, Packed, find_chunk, grown, unpack_key

_NONE = np.uint32(2**32 - 1)
_RANK = np.uint64(31)
"""Bits of a rank."""
_FEW = 100
"""In chunks of up to so many bytes the lowest rank is searched for linearly, in longer ones with a heap."""
_BLOCK = 1 << 20
"""Bytes of text in one work item of a thread."""
_MOST = 1 << 20
"""Chunks that a thread's cache may hold."""


_Vocabulary = tuple[np.ndarray, np.ndarray, int, tuple[np.ndarray, ...]]
"""Ranks of single bytes; of pairs of bytes; bytes of the longest word; a table of all words (`ChunkTable`).
"""


class BulkEncoder:
    """Encodes texts in UTF-8 into the ids of a vocabulary."""

    def __init__(self, ranks: Mapping[bytes, int], ids: np.ndarray, pattern: str) -> None:
        """`ranks`: bytes -> rank, in order from 0 on, every single byte included. `ids`: the id of each rank,
        uint32. Texts are cut by `regex` if `pattern` is not a known one.
        """
        self.by, self.pattern = splitter(pattern), pattern
        self.ids = None if np.array_equal(ids, np.arange(len(ids))) else ids
        sizes = np.fromiter(map(len, ranks), np.int64, len(ranks))
        table = ChunkTable(1 << len(ranks).bit_length())
        words = Packed(np.frombuffer(b"".join(ranks), np.uint8), np.cumsum(sizes))
        table.number_cut(words)  # from 1 on: a word's rank is its number - 1
        bytes_ = np.array([ranks[bytes([value])] for value in range(256)], np.uint32)
        pairs = np.full((256, 256), _NONE, np.uint32)
        for word, rank in ranks.items():
            if len(word) == 2:
                pairs[word[0], word[1]] = rank
        self.vocabulary: _Vocabulary = bytes_, pairs, int(sizes.max()), table.arrays[:4]
        self._memories: SimpleQueue[_Memory] = SimpleQueue()
        self._threads = 0

    def encode(self, texts: Iterable[bytes], threads: int = 1) -> list[np.ndarray]:
        """Ids of each text, uint32. Bytes that are not UTF-8 are encoded as they are."""
        if self.by:
            classes(self.by)
        for _ in range(threads - self._threads):
            self._memories.put(_Memory())
            self._threads += 1
        if threads == 1:
            return [ids for block in _blocks(texts) for ids in self._encode_block(block)]
        found: list[np.ndarray] = []
        waiting: deque[Future[list[np.ndarray]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for block in _blocks(texts):
                waiting.append(pool.submit(self._encode_block, block))
                if len(waiting) > 2 * threads:
                    found += waiting.popleft().result()
            for last in waiting:
                found += last.result()
        return found

    def _encode_block(self, texts: list[bytes]) -> list[np.ndarray]:
        data = np.frombuffer(b"".join(texts), np.uint8)
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        memory = self._memories.get()
        try:
            if self.by:
                numbers, chunk_ends = memory.table.number(data, ends, self.by)
            else:
                cuts = self._cut(texts)
                numbers, chunk_ends = (
                    memory.table.number_cut(Packed(data, cuts)),
                    np.searchsorted(cuts, ends, "right"),
                )
            found, id_ends = memory.encode(numbers, chunk_ends, len(data), self.vocabulary)
            ids = found.copy() if self.ids is None else self.ids[found]
        finally:
            self._memories.put(memory)
        return np.split(ids, id_ends[:-1])

    def _cut(self, texts: list[bytes]) -> np.ndarray:
        """The ends of the chunks of all texts, by the regular expression, which reads a byte that is not UTF-8 as
        a punctuation mark.
        """
        sizes: list[int] = []
        for text in texts:
            decoded, position = text.decode("utf-8", "surrogateescape"), 0
            for found in regex.finditer(self.pattern, decoded):
                # text between two matches is a chunk, too
                pieces = (decoded[position : found.start()], found[0])
                sizes += [len(piece.encode("utf-8", "surrogateescape")) for piece in pieces if piece]
                position = found.end()
            sizes += (
                [len(decoded[position:].encode("utf-8", "surrogateescape"))]
                if position < len(decoded)
                else []
            )
        return np.cumsum(sizes, dtype=np.int64)


class _Memory:
    """The cache of a thread: chunks, and the ranks that they are merged into."""

    def __init__(self) -> None:
        self.table = ChunkTable()
        self.merged = 1
        """The first chunk that is not merged yet."""
        self.values = np.empty(0, np.uint64)
        """For each chunk, in the lowest 2 bits, its number of ranks if that is 1 or 2, and above them these ranks.
        Else 0, and above it the index in `ranks` of the number of ranks, which is followed by the ranks.
        """
        self.ranks, self.used = np.empty(1 << 16, np.uint32), 0
        self.out = np.empty(0, np.uint32)

    def encode(
        self, numbers: np.ndarray, chunk_ends: np.ndarray, size: int, vocabulary: _Vocabulary
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ranks of chunks with `size` bytes in all, valid until the next call, and where those of each text end."""
        chunks = len(self.table)
        if len(self.values) < chunks:
            self.values = grown(self.values, 2 * chunks)
        needed = self.used + (SHORT + 1) * (chunks - self.merged) + int(self.table.used[1])
        if len(self.ranks) < needed:
            self.ranks = grown(self.ranks, 2 * needed)
        if len(self.out) <= size:
            self.out = np.empty(2 * size + 1, np.uint32)
        self.used = _merge_new(
            self.merged, chunks, *self.table.arrays[1:4], vocabulary, self.values, self.ranks, self.used
        )
        self.merged = chunks
        ends = np.empty(len(chunk_ends), np.int64)
        _write_ranks(numbers, chunk_ends, self.values, self.ranks, self.out, ends)
        if chunks > _MOST:
            self.table, self.merged, self.used = ChunkTable(), 1, 0
        return self.out[: ends[-1]], ends


class BulkDecoder:
    """Joins the bytes of tokens."""

    def __init__(self, words: Mapping[int, bytes]) -> None:
        """`words`: id -> bytes. An id that is not in it cannot be decoded."""
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
    """Bytes of all tokens; -1 - n, if the token at position n is unknown."""
    total = 0
    for position in range(len(ids)):
        index = np.int64(ids[position])
        if not 0 <= index < len(lengths) or lengths[index] < 0:
            return -1 - position
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


@njit(cache=True, nogil=True)
def _write_ranks(numbers, chunk_ends, values, ranks, out, ends):
    """Write the ranks of all chunks, and where those of each text end."""
    chunk = written = 0
    for text in range(len(chunk_ends)):
        for _ in range(chunk, chunk_ends[text]):
            value = values[numbers[chunk]]
            chunk += 1
            count = np.int64(value & np.uint64(3))
            value >>= np.uint64(2)
            if count:
                out[written] = value & ((np.uint64(1) << _RANK) - np.uint64(1))
                out[written + 1] = value >> _RANK  # overwritten, if there is but one
            else:
                position = np.int64(value)
                count = np.int64(ranks[position])
                for step in range(count):
                    out[written + step] = ranks[position + 1 + step]
            written += count
        ends[text] = written


@njit(cache=True, nogil=True)
def _merge_new(begin, end, keys, copies, text, vocabulary, values, ranks, used):
    """Merge the chunks with numbers from `begin` to `end`; returns how many of `ranks` are used then."""
    bytes_, pairs, longest, words = vocabulary
    short = np.zeros(32, np.uint8)
    begins, together = np.empty(_FEW + 2, np.int64), np.empty(_FEW + 2, np.uint64)
    for chunk in range(begin, end):
        first, second = keys[chunk]
        if second < LONG:
            data, start, size = short, 0, np.int64(second >> np.uint64(56))
            unpack_key(first, second, short, 0, size)
        else:
            data, start = text, np.int64(copies[chunk] >> np.uint64(32))
            size = np.int64(copies[chunk] & np.uint64(0xFFFFFFFF))
        whole = _rank(data, start, start + size, longest, words)
        if whole != _NONE:
            values[chunk] = np.uint64(whole) << np.uint64(2) | np.uint64(1)
            continue
        out = ranks[used + 1 : used + 1 + size]
        for step in range(size):
            out[step] = bytes_[data[start + step]]
        if size > _FEW:
            count = _merge_many(data, start, start + size, pairs, longest, words, out)
        else:
            count = _merge_few(data, start, start + size, pairs, longest, words, begins, together, out)
        if count <= 2:
            value = np.uint64(out[0]) | (np.uint64(out[1]) << _RANK if count == 2 else np.uint64(0))
            values[chunk] = value << np.uint64(2) | np.uint64(count)
        else:
            values[chunk], ranks[used] = np.uint64(used) << np.uint64(2), count
            used += 1 + count
    return used


@njit(cache=True, nogil=True, inline="always")
def _rank(data, start, end, longest, words):
    """The rank of some bytes; _NONE if they are no token."""
    if end - start > longest:
        return _NONE
    slots, keys, copies, text = words
    first, second = chunk_key(data, start, end)
    found, _ = find_chunk(data, start, end, first, second, slots, keys, copies, text)
    return np.uint32(found - 1) if found else _NONE


@njit(cache=True, nogil=True)
def _merge_few(data, start, end, pairs, longest, words, begins, together, out):
    """Merge in `out`, which holds the ranks of all bytes; returns how many are left. `begins`: where each part
    begins; `together`: the rank of each part joined with the next one and, in 8 bits, the part's index.
    """
    count = end - start
    for position in range(count - 1):
        begins[position] = start + position
        together[position] = np.uint64(
            pairs[data[start + position], data[start + position + 1]]
        ) << np.uint64(8) | np.uint64(position)
    begins[count - 1], begins[count] = end - 1, end
    while count > 1:
        lowest = together[0]
        for position in range(1, count - 1):
            lowest = min(lowest, together[position])
        best, rank = np.int64(lowest & np.uint64(255)), np.uint32(lowest >> np.uint64(8))
        if rank == _NONE:
            break
        out[best] = rank
        count -= 1
        for position in range(best + 1, count):
            out[position] = out[position + 1]
            begins[position] = begins[position + 1]
            together[position - 1] = together[position] - np.uint64(1)
        begins[count] = end
        if best + 1 < count:
            rank = _rank(data, begins[best], begins[best + 2], longest, words)
            together[best] = np.uint64(rank) << np.uint64(8) | np.uint64(best)
        if best:
            rank = _rank(data, begins[best - 1], begins[best + 1], longest, words)
            together[best - 1] = np.uint64(rank) << np.uint64(8) | np.uint64(best - 1)
    return count


@njit(cache=True, nogil=True)
def _merge_many(data, start, end, pairs, longest, words, out):
    """The same with a heap of ranks and indices, in which outdated entries are skipped."""
    count = end - start
    # where the next part begins, and the one before
    after, before = np.arange(1, count + 2), np.arange(-1, count)
    heap, size = np.empty(3 * count, np.uint64), 0
    for position in range(count - 1):
        size = _push(heap, size, pairs[data[start + position], data[start + position + 1]], position)
    while size:
        top = heap[0]
        size = _pop(heap, size)
        position, rank = np.int64(top & np.uint64(0xFFFFFFFF)), np.uint32(top >> np.uint64(32))
        right = after[position]
        if (
            out[position] == _NONE
            or right == count
            or _rank(data, start + position, start + after[right], longest, words) != rank
        ):
            continue
        out[position], out[right] = rank, _NONE
        after[position] = after[right]
        before[after[position]] = position
        if after[position] < count:
            size = _push(
                heap,
                size,
                _rank(data, start + position, start + after[after[position]], longest, words),
                position,
            )
        left = before[position]
        if left >= 0:
            size = _push(heap, size, _rank(data, start + left, start + after[position], longest, words), left)
    written = 0
    for position in range(count):
        if out[position] != _NONE:
            out[written] = out[position]
            written += 1
    return written


@njit(cache=True, nogil=True)
def _push(heap, size, rank, position):
    """Returns the new size."""
    if rank == _NONE:
        return size
    value, hole = np.uint64(rank) << np.uint64(32) | np.uint64(position), size
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
