"""Encoding a corpus. Chunks recur, so each is merged once per thread and looked up after that.

The merges are those of tiktoken: of all neighbours whose bytes together are a token, those of the lowest rank
are merged first, the leftmost among equals. The cache is bounded: a thread with too many chunks clears it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import regex
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

from crawltalk.tokenizer.patterns import splitter
from crawltalk.tokenizer.pointer import as_bytes, inner, intrinsic, pointer
from crawltalk.tokenizer.split import LONG, SHORT, chunk_key, classes
from crawltalk.tokenizer.table import ChunkTable, Packed, find_chunk, grown, pointers

_NONE = np.uint32(2**32 - 1)
_RANK = np.uint64(31)
"""Bits of a rank."""
_FAN = 16
"""Cells below another one in the tree of ranks."""
_PLACE, _PLACES = np.uint32(4), np.uint32(15)
"""Bits of a cell that say where it is among its 16."""
_ABSENT = np.uint32(2**32 - 16)
"""The first cell without a rank."""
_BLOCK = 1 << 20
"""Bytes of text in one work item of a thread."""
_RESULTS = 1 << 22
"""Ranks in an array that results are parts of: so many that it is made of huge pages, which are quick to get."""
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
        words = Packed(np.frombuffer(b"".join(ranks), np.uint8), np.cumsum(sizes))
        table = ChunkTable(1 << len(ranks).bit_length())
        table.number_cut(words)  # from 1 on: a word's rank is its number - 1
        single, double = (np.flatnonzero(sizes == size) for size in (1, 2))
        last = words.data[words.ends - 1]
        bytes_, pairs = np.empty(256, np.uint32), np.full((256, 256), _NONE, np.uint32)
        bytes_[last[single]] = single
        pairs[words.data[words.ends[double] - 2], last[double]] = double
        self.vocabulary: _Vocabulary = bytes_, pairs, int(sizes.max()), table.arrays
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
            if self.ids is None:
                ids = found
                memory.keep(len(found))
            else:
                ids = self.ids[found]
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
        self.out, self.kept = np.empty(0, np.uint32), 0
        """Where ranks are written, and how many of them are somebody's result."""

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
        if len(self.out) - self.kept <= size:
            self.out, self.kept = np.empty(max(_RESULTS, size + 1), np.uint32), 0
        self.used = _merge_new(
            self.merged, chunks, self.table.arrays, vocabulary, self.values, self.ranks, self.used
        )
        self.merged = chunks
        ends = np.empty(len(chunk_ends), np.int64)
        out = self.out[self.kept :]
        _write_ranks(numbers, chunk_ends, self.values, self.ranks, out, ends)
        if chunks > _MOST:
            self.table, self.merged, self.used = ChunkTable(), 1, 0
        return out[: ends[-1]], ends

    def keep(self, count: int) -> None:
        """Do not write over the last call's `count` ranks any more."""
        self.kept += count


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
    numbers, values, ranks, out = pointer(numbers), pointer(values), pointer(ranks), pointer(out)
    chunk = written = 0
    for text in range(len(chunk_ends)):
        for _ in range(chunk, chunk_ends[text]):
            value = values[np.int64(numbers[chunk])]
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
def _merge_new(begin, end, chunks, vocabulary, values, ranks, used):
    """Merge the chunks with numbers from `begin` to `end`; returns how many of `ranks` are used then."""
    bytes_, pairs, longest, words = vocabulary
    bytes_, pairs, values, ranks = pointer(bytes_), pointer(pairs), pointer(values), pointer(ranks)
    _, keys, copies, text, _ = pointers(chunks)
    words, readable = pointers(words), len(chunks[3])
    word, room = np.empty(4, np.uint64), 64  # of which chunks of up to 15 bytes need 32 bytes
    cells, links = np.empty(2 * room, np.uint32), np.empty(2 * room, np.int64)
    for chunk in range(begin, end):
        first, second = keys[2 * chunk], keys[2 * chunk + 1]
        if second < LONG:
            word[0], word[1] = first, second
            data, start, size, limit = as_bytes(word), 0, np.int64(second >> np.uint64(56)), 32
        else:
            data, start, limit = text, np.int64(copies[chunk] >> np.uint64(32)), readable
            size = np.int64(copies[chunk] & np.uint64(0xFFFFFFFF))
        if size <= longest:
            found, _ = find_chunk(data, start, start + size, first, second, words)
            if found:
                values[chunk] = np.uint64(found - 1) << np.uint64(2) | np.uint64(1)
                continue
        if size > room:
            room = 2 * size
            cells, links = np.empty(2 * room, np.uint32), np.empty(2 * room, np.int64)
        for step in range(size):
            ranks[used + 1 + step] = bytes_[np.int64(data[start + step])]
        count = _merge(
            data, start, size, limit, pairs, longest, words, pointer(cells), pointer(links), ranks, used + 1
        )
        if count <= 2:
            value = np.uint64(ranks[used + 1])
            if count == 2:
                value |= np.uint64(ranks[used + 2]) << _RANK
            values[chunk] = value << np.uint64(2) | np.uint64(count)
        else:
            values[chunk], ranks[used] = np.uint64(used) << np.uint64(2), count
            used += 1 + count
    return used


@inner
def _rank(data, start, end, readable, longest, words):
    """The rank of some bytes; _NONE if they are no token."""
    if end - start > longest:
        return _NONE
    first, second = chunk_key(data, start, end, readable)
    found, _ = find_chunk(data, start, end, first, second, words)
    return np.uint32(found - 1) if found else _NONE


@intrinsic
def _least(typing_context: Any, cells: Any, position: Any) -> Any:
    """The lowest of the 16 cells from `position` on."""

    def generate(context, builder, signature, arguments):
        cell, vector = ir.IntType(32), ir.VectorType(ir.IntType(32), _FAN)
        address = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), vector.as_pointer())
        reduce = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(cell, [vector]), f"llvm.vector.reduce.umin.v{_FAN}i32"
        )
        return builder.call(reduce, [builder.load(address, align=4)])

    return types.uint32(cells, types.int64), generate


@inner
def _merge(data, start, size, readable, pairs, longest, words, cells, links, out, begin):
    """Merge in `out`, which from `begin` on holds the ranks of all bytes; returns how many are left.

    The lowest rank is at the top of a tree in which each cell is the least of 16 below it. A cell at its foot is the
    rank that the part that begins there gets if it is merged with the next one and, in 4 bits, the cell's place
    among its 16. `links`: for each part where the next one begins, and the one before.
    """
    for position in range(size):
        links[2 * position], links[2 * position + 1] = position + 1, position - 1
    for position in range(size - 1):
        pair = np.int64(data[start + position]) << 8 | np.int64(data[start + position + 1])
        cells[position] = pairs[pair] << _PLACE | np.uint32(position) & _PLACES
    cells[size - 1] = _NONE
    height, level, count = np.int64(1), 0, size  # a literal would be a type of its own
    while True:
        padded = (count + _FAN - 1) & -_FAN
        for cell in range(level + count, level + padded):
            cells[cell] = _NONE
        if padded == _FAN:
            break
        count = padded // _FAN
        for cell in range(count):
            least = _least(cells, level + cell * _FAN)
            cells[level + padded + cell] = least & ~_PLACES | np.uint32(cell) & _PLACES
        level += padded
        height += 1
    parts = size
    while True:
        least = _least(cells, level)
        if least >= _ABSENT:
            break
        position = np.int64(least & _PLACES)
        if height > 1:
            position = _descend(cells, size, height, position)
        out[begin + position] = least >> _PLACE
        parts -= 1
        right = links[2 * position]
        end = links[2 * right]
        links[2 * position] = end
        _put(cells, size, height, right, _NONE)
        rank = _NONE
        if end < size:
            links[2 * end + 1] = position
            rank = _rank(data, start + position, start + links[2 * end], readable, longest, words)
        _put(cells, size, height, position, rank)
        if position:
            left = links[2 * position + 1]
            rank = _rank(data, start + left, start + end, readable, longest, words)
            _put(cells, size, height, left, rank)
    position = 0
    for part in range(parts):
        out[begin + part] = out[begin + position]
        position = links[2 * position]
    return parts


@inner
def _descend(cells, size, height, place):
    """The cell at the foot that made the `place`-th cell at the top what it is."""
    for level in range(height - 2, -1, -1):
        begin, padded = 0, (size + _FAN - 1) & -_FAN
        for _ in range(level):
            begin, padded = begin + padded, (padded // _FAN + _FAN - 1) & -_FAN
        place = place * _FAN + np.int64(_least(cells, begin + place * _FAN) & _PLACES)
    return place


@inner
def _put(cells, size, height, cell, rank):
    """Write a rank into a cell at the foot, and what is least into those above it."""
    cells[cell] = rank << _PLACE | np.uint32(cell) & _PLACES
    begin, padded = 0, (size + _FAN - 1) & -_FAN
    for _ in range(1, height):
        cell //= _FAN
        least = _least(cells, begin + cell * _FAN)
        begin, padded = begin + padded, (padded // _FAN + _FAN - 1) & -_FAN
        cells[begin + cell] = least & ~_PLACES | np.uint32(cell) & _PLACES
