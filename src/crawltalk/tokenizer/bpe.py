"""Learning byte pair encoding (Sennrich et al. 2016, algorithm 1) exactly, over bytes (Radford et al. 2019,
section 2.2).

All distinct chunks are in one array of token ids, one cell per byte, with a cell of `GAP` between them. A token's
id is in the first and in the last cell of its bytes, so that its neighbours need no links: the cell before it
ends the token before it. All occurrences of a pair arise in one step, the one that makes its newer token, and
none is added later. So they are written once, to the end of one long array, and a heap of counts that are checked
when a pair is taken out is exact. A step visits the occurrences of its pair only, and changes counts per
neighbour, not per occurrence. Ties go to the pair with the lowest ids.

No two pairs ever spell the same bytes: where a stretch of bytes is bounded by tokens, no merge crossed either
end, so it is cut as it would be by itself, in one way.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from crawltalk.core.errors import BadInput
from crawltalk.tokenizer.count import Chunks, count_chunks
from crawltalk.tokenizer.patterns import splitter
from crawltalk.tokenizer.pointer import inner
from crawltalk.tokenizer.table import grown
from crawltalk.tokenizer.tokenizer import SPECIAL_TOKENS, Tokenizer

GAP = np.uint32(2**32 - 1)
_MIXER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, Knuth vol. 3, 6.4
_BATCH = 512
"""Merges between two reports of progress."""
_DONE = 0
_ARENA_FACTOR = 3
"""Cells for the occurrences of later pairs, as a multiple of those of pairs of bytes."""
_MERGES, _PAIRS, _CELLS, _HEAPED = range(4)
"""Columns of `used`: merges learned, pairs known, cells of `positions` and of the heap in use."""
_BEFORE, _AFTER = range(2)
"""Sides of a token."""
_AMOUNT, _OCCURRENCES = range(2)
"""Columns of `beside` while a pair is replaced: summed counts and number of occurrences of a neighbour."""
_PAIR, _NEXT_CELL = range(2)
"""Columns of `beside` from then on: the new pair (-1: too rare), and the cell of its next occurrence."""


def train(
    texts: Iterable[str | bytes],
    size: int,
    pattern: str = "gpt4",
    *,
    min_frequency: int = 2,
    threads: int = 1,
    max_chunks: int = 1 << 62,
) -> Tokenizer:
    """Train a tokenizer of `size` tokens, including the 256 bytes and our control tokens; of fewer tokens if the
    text has no more pairs to merge.

    `pattern`: "gpt4", "gpt2", "gpt4-digits" (each digit by itself) or a regular expression; `min_frequency`:
    how often a pair must occur to be merged; `max_chunks`: see `count_chunks`. Raises BadInput if `size`
    leaves no room for the bytes.
    """
    merges = merges_for(size)
    known = splitter(pattern)
    chunks = count_chunks(texts, pattern, threads=threads, max_chunks=max_chunks)
    return Tokenizer.trained(learn_merges(chunks, merges, min_frequency), known.pattern if known else pattern)


def merges_for(size: int) -> int:
    """How many merges a vocabulary of `size` tokens has. Raises BadInput if it is too small for any text."""
    least = 256 + len(SPECIAL_TOKENS)
    if size < least:
        raise BadInput(
            f"a vocabulary of {size} tokens is too small: 256 bytes and the control tokens need {least}"
        )
    return size - least


def learn_merges(
    chunks: Chunks, merges: int, min_frequency: int = 2, report: Callable[[int], Any] = lambda learned: None
) -> list[tuple[int, int]]:
    """At most `merges` pairs of token ids in the order they are merged; the n-th makes token 256 + n.

    Fewer if no pair occurs `min_frequency` times any more. `report` is called with the number of merges learned,
    every `_BATCH` merges.
    """
    state = _State(chunks, merges, max(1, min_frequency))
    while state.advance(_BATCH):
        report(state.count)
    return [(key >> 32, key & 0xFFFFFFFF) for key in state.learned[: state.count].tolist()]


class _Corpus(NamedTuple):
    """The chunks as tokens."""

    tokens: np.ndarray
    """Token ids, uint32, with gaps between the chunks."""
    chunk_of: np.ndarray
    """The number of the chunk that each cell is in, uint32."""
    counts: np.ndarray
    """How often each chunk occurs, int64."""
    lengths: np.ndarray
    """Bytes of each token, uint32."""


class _Pairs(NamedTuple):
    """All pairs that were ever frequent enough, by number."""

    keys: np.ndarray
    """Both ids, uint64."""
    amounts: np.ndarray
    """How often each occurs in the text now, int64."""
    slices: np.ndarray
    """Where the occurrences of each begin and end in `positions`: (pairs, 2) int64."""
    slots: np.ndarray
    """A hash table: numbers of pairs, -1 in empty slots, int32."""
    heap: np.ndarray
    """Numbers of pairs, the most frequent first, int64."""
    heap_amounts: np.ndarray
    """Their amounts when they were put there."""


class _Neighbours(NamedTuple):
    """The neighbours of the new token of one step, by side."""

    beside: np.ndarray
    """Two numbers for each neighbour: (sides, vocabulary, 2) int64."""
    met: np.ndarray
    """The distinct neighbours: (sides, vocabulary) int64."""


class _State:
    """The arrays that `_advance` works on."""

    def __init__(self, chunks: Chunks, merges: int, least: int) -> None:
        if len(chunks.data) + len(chunks.ends) + 1 >= GAP:
            raise BadInput(
                f"{len(chunks.data):,} bytes of distinct chunks are too many; give a lower max_chunks"
            )
        self.merges, self.least = merges, least
        tokens, chunk_of = _lay_out(chunks.data, chunks.ends)
        self.corpus = _Corpus(tokens, chunk_of, chunks.counts, np.ones(256 + merges, np.uint32))
        self.learned = np.zeros(merges, np.uint64)
        keys, amounts, slices, self.positions = _first_pairs(tokens, chunk_of, chunks.counts, least)
        count = len(keys)
        self.pairs = _Pairs(keys, amounts, slices, np.zeros(0, np.int32), np.arange(count), amounts.copy())
        beside, met = np.zeros((2, 256 + merges, 2), np.int64), np.zeros((2, 256 + merges), np.int64)
        self.neighbours = _Neighbours(beside, met)
        self.used = np.array([0, count, slices[-1, 1] if count else 0, count])
        _heapify(self.pairs.heap, self.pairs.heap_amounts, keys, count)
        self._make_room(1024 + 2 * count + 4 * merges)

    @property
    def count(self) -> int:
        """Merges learned."""
        return int(self.used[_MERGES])

    def advance(self, steps: int) -> bool:
        """Learn `steps` more merges; False when there are no more to learn."""
        until = min(self.merges, self.count + steps)
        while needed := self._advance(until):
            if needed > 0:
                self.positions = grown(self.positions, max(needed, len(self.positions) * 3 // 2))
            else:
                self._make_room(max(-needed, 2 * len(self.pairs.keys)))
        return self.count == until < self.merges

    def _advance(self, until: int) -> int:
        arrays = (self.corpus, self.positions, self.pairs, self.neighbours, self.used)
        return _advance(until, self.least, self.learned, *arrays)

    def _make_room(self, room: int) -> None:
        keys, amounts, slices, _, *heap = self.pairs
        keys, amounts, slices, *heap = (grown(array, room) for array in (keys, amounts, slices, *heap))
        slots = np.full(1 << (2 * room - 1).bit_length(), -1, np.int32)
        _enter(keys, int(self.used[_PAIRS]), slots)
        self.pairs = _Pairs(keys, amounts, slices, slots, *heap)


def _lay_out(data: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token ids with gaps, and the number of each cell's chunk."""
    tokens = np.full(len(data) + len(ends) + 1, GAP, np.uint32)
    chunk_of = np.zeros(len(tokens), np.uint32)
    numbers = np.repeat(np.arange(len(ends), dtype=np.uint32), np.diff(ends, prepend=0))
    cells = np.arange(1, len(data) + 1, dtype=np.uint32) + numbers
    tokens[cells], chunk_of[cells] = data, numbers
    return tokens, chunk_of


def _first_pairs(
    tokens: np.ndarray, chunk_of: np.ndarray, counts: np.ndarray, least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of bytes: keys, counts, where their occurrences begin and end, and these occurrences."""
    amounts, numbers = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64)
    _count_pairs(tokens, chunk_of, counts, amounts, numbers)
    chosen = np.flatnonzero(amounts >= least)
    ends = np.cumsum(numbers[chosen])
    slices = np.stack([ends - numbers[chosen], ends], axis=1)
    cursors = np.full(1 << 16, -1)
    cursors[chosen] = slices[:, 0]
    positions = np.empty(_ARENA_FACTOR * int(ends[-1]) if len(ends) else 0, np.uint32)
    _place_pairs(tokens, cursors, positions)
    return (chosen >> 8 << 32 | chosen & 255).astype(np.uint64), amounts[chosen], slices, positions


@njit(cache=True)
def _count_pairs(tokens, chunk_of, counts, amounts, numbers):
    """How often each pair of bytes occurs in the text, and in the chunks."""
    for cell in range(len(tokens) - 1):
        if tokens[cell] != GAP and tokens[cell + 1] != GAP:
            pair = np.int64(tokens[cell]) << 8 | np.int64(tokens[cell + 1])
            amounts[pair] += counts[chunk_of[cell]]
            numbers[pair] += 1


@njit(cache=True)
def _place_pairs(tokens, cursors, positions):
    """Write each occurrence where the cursor of its pair stands, if that is no -1."""
    for cell in range(len(tokens) - 1):
        if tokens[cell] != GAP and tokens[cell + 1] != GAP:
            pair = np.int64(tokens[cell]) << 8 | np.int64(tokens[cell + 1])
            if cursors[pair] >= 0:
                positions[cursors[pair]] = cell
                cursors[pair] += 1


@inner
def _key(left, right):
    return np.uint64(left) << np.uint64(32) | np.uint64(right)


@njit(cache=True)
def _enter(keys, count, slots):
    """Enter the pairs into a hash table: their numbers, -1 in empty slots."""
    for pair in range(count):
        slots[_slot(keys[pair], keys, slots)] = pair


@inner
def _slot(key, keys, slots):
    """The slot of a pair, or the empty one where it belongs."""
    mask = np.uint64(len(slots) - 1)
    slot = ((key * _MIXER) >> np.uint64(24)) & mask
    while slots[slot] >= 0 and keys[slots[slot]] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@inner
def _after(amount, pair, other_amount, other, keys):
    """Whether a pair comes after another one: it is rarer, or as frequent and its ids are higher."""
    return amount < other_amount or (amount == other_amount and keys[pair] > keys[other])


@inner
def _sift(heap, amounts, keys, size, hole, pair, amount):
    """Put a pair into the heap, at the hole or below it."""
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and _after(
            amounts[child], heap[child], amounts[child + 1], heap[child + 1], keys
        ):
            child += 1
        if not _after(amount, pair, amounts[child], heap[child], keys):
            break
        heap[hole], amounts[hole] = heap[child], amounts[child]
        hole = child
    heap[hole], amounts[hole] = pair, amount


@njit(cache=True)
def _heapify(heap, amounts, keys, size):
    for node in range(size // 2 - 1, -1, -1):
        _sift(heap, amounts, keys, size, node, heap[node], amounts[node])


@inner
def _push(pairs, used, pair, amount):
    """Put a pair into the heap."""
    heap, amounts, keys = pairs.heap, pairs.heap_amounts, pairs.keys
    hole = used[_HEAPED]
    used[_HEAPED] += 1
    while hole:
        parent = (hole - 1) // 2
        if not _after(amounts[parent], heap[parent], amount, pair, keys):
            break
        heap[hole], amounts[hole] = heap[parent], amounts[parent]
        hole = parent
    heap[hole], amounts[hole] = pair, amount


@inner
def _pop(pairs, used):
    """Remove the first pair from the heap."""
    heap, amounts = pairs.heap, pairs.heap_amounts
    used[_HEAPED] -= 1
    last = used[_HEAPED]
    if last:
        _sift(heap, amounts, pairs.keys, last, np.int64(0), heap[last], amounts[last])


@njit(cache=True)
def _advance(until, least, learned, corpus, positions, pairs, neighbours, used):
    """Learn merges up to that number. Returns _DONE, or the number of cells that `positions` needs, or minus the
    number of pairs that need room.
    """
    keys, amounts, slices, heap = pairs.keys, pairs.amounts, pairs.slices, pairs.heap
    lengths = corpus.lengths
    while used[_MERGES] < until and used[_HEAPED]:
        best = heap[0]
        amount = amounts[best]
        if amount < least:
            _pop(pairs, used)
            continue
        if amount != pairs.heap_amounts[0]:  # it has shrunk since it was put there
            _sift(heap, pairs.heap_amounts, keys, used[_HEAPED], np.int64(0), best, amount)
            continue
        start, end = slices[best]
        token = 256 + used[_MERGES]
        needed = used[_CELLS] + 2 * (end - start)
        if needed > len(positions):
            return needed
        needed = used[_PAIRS] + 2 * min(end - start, token + 1)
        if needed > len(keys):
            return -needed
        _pop(pairs, used)
        left, right = np.int64(keys[best] >> np.uint64(32)), np.int64(keys[best] & np.uint64(0xFFFFFFFF))
        lengths[token] = lengths[left] + lengths[right]
        amounts[best] = 0
        merge = (left, right, token)
        end, before, after = _replace(merge, start, end, corpus, positions, neighbours)
        numbers = (before, after)
        _make_pairs(merge, numbers, least, pairs, neighbours, used)
        _write_positions(token, start, end, corpus, positions, neighbours.beside)
        _clear(numbers, slices, neighbours)
        learned[used[_MERGES]] = keys[best]
        used[_MERGES] += 1
    return _DONE


@inner
def _replace(merge, start, end, corpus, positions, neighbours):
    """Replace the pair by the token wherever it still occurs, from left to right, and sum up its neighbours.

    The positions where it stood are moved to the front. Returns where they end, and how many neighbours were
    met on either side.
    """
    left, right, token = merge
    tokens, chunk_of, counts, lengths = corpus
    beside, met = neighbours
    first, second = np.int64(lengths[left]), np.int64(lengths[right])
    front = start
    met_before = met_after = 0
    for number in range(start, end):
        position = np.int64(positions[number])
        # Stale, if an earlier merge took the left token: as a left part from its first cell, as a right part
        # from its last.
        if (
            tokens[position] != left
            or tokens[position + first - 1] != left
            or tokens[position + first] != right
        ):
            continue
        behind = position + first + second
        count = counts[chunk_of[position]]
        before, after = tokens[position - 1], tokens[behind]
        tokens[position] = tokens[behind - 1] = token
        if before != GAP:
            if not beside[_BEFORE, before, _OCCURRENCES]:
                met[_BEFORE, met_before] = before
                met_before += 1
            beside[_BEFORE, before, _AMOUNT] += count
            beside[_BEFORE, before, _OCCURRENCES] += 1
        if after != GAP:
            if not beside[_AFTER, after, _OCCURRENCES]:
                met[_AFTER, met_after] = after
                met_after += 1
            beside[_AFTER, after, _AMOUNT] += count
            beside[_AFTER, after, _OCCURRENCES] += 1
        positions[front] = position
        front += 1
    return front, met_before, met_after


@inner
def _make_pairs(merge, numbers, least, pairs, neighbours, used):
    """Subtract the sums from the pairs that the neighbours were in, and make the pairs that they are in now."""
    left, right, token = merge
    beside, met = neighbours
    keys, amounts, slices, slots = pairs.keys, pairs.amounts, pairs.slices, pairs.slots
    # two of the token side by side: the second took the left token that stood behind the first
    doubled = beside[_BEFORE, token, _AMOUNT]
    for side in range(2):
        for number in range(numbers[side]):
            other = met[side, number]
            amount = beside[side, other, _AMOUNT]
            old = _key(right, other) if side == _AFTER else _key(other, left)
            new = _key(token, other) if side == _AFTER else _key(other, token)
            pair = slots[_slot(old, keys, slots)]
            if pair >= 0:
                amounts[pair] -= amount
            if side == _AFTER and other == left:
                amount -= doubled
            occurrences = beside[side, other, _OCCURRENCES]
            beside[side, other, _PAIR] = -1
            if amount < least:
                continue
            pair = used[_PAIRS]
            used[_PAIRS] += 1
            keys[pair], amounts[pair], slices[pair, 0] = new, amount, used[_CELLS]
            slots[_slot(new, keys, slots)] = pair
            _push(pairs, used, pair, amount)
            beside[side, other, _PAIR], beside[side, other, _NEXT_CELL] = pair, used[_CELLS]
            used[_CELLS] += occurrences


@inner
def _write_positions(token, start, end, corpus, positions, beside):
    """Write where the new pairs occur, in order."""
    tokens, lengths = corpus.tokens, corpus.lengths
    length = np.int64(lengths[token])
    for number in range(start, end):
        position = np.int64(positions[number])
        before, after = tokens[position - 1], tokens[position + length]
        if before != GAP and beside[_BEFORE, before, _PAIR] >= 0:
            positions[beside[_BEFORE, before, _NEXT_CELL]] = position - lengths[before]
            beside[_BEFORE, before, _NEXT_CELL] += 1
        if after < GAP and after != token and beside[_AFTER, after, _PAIR] >= 0:
            positions[beside[_AFTER, after, _NEXT_CELL]] = position
            beside[_AFTER, after, _NEXT_CELL] += 1


@inner
def _clear(numbers, slices, neighbours):
    """Note where the new pairs' occurrences end, and clear the sums."""
    beside, met = neighbours
    for side in range(2):
        for number in range(numbers[side]):
            other = met[side, number]
            if beside[side, other, _PAIR] >= 0:
                slices[beside[side, other, _PAIR], 1] = beside[side, other, _NEXT_CELL]
            beside[side, other, 0] = beside[side, other, 1] = 0
