"""Learning byte pair encoding (Sennrich et al. 2016, algorithm 1) exactly, over bytes (Radford et al. 2019,
section 2.2).

All distinct chunks lie in one array of token ids, one cell a byte, with a cell of `GAP` between them. A
token's id stands in the first and in the last cell of its bytes, so that its neighbours are found without
links: the cell before it ends the token before it. A pair of neighbours is born in one step, the one that
makes its younger token, and never grows afterwards. So its occurrences are written once, to the end of one
long array, and a heap of counts, looked at again when a pair comes up, is exact. A step visits the
occurrences of its pair alone, and changes counts by neighbour, not by occurrence. Ties go to the pair with
the lowest ids.

No two pairs ever spell the same bytes: where a stretch of bytes is bounded by tokens, merges crossed neither
of its ends, so that it is cut as it would be by itself, in one way.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numba import njit

from crawltalk.core.errors import BadInput
from crawltalk.tokenizer.count import Chunks, count_chunks
from crawltalk.tokenizer.patterns import splitter
from crawltalk.tokenizer.table import grown
from crawltalk.tokenizer.tokenizer import SPECIALS, Tokenizer

GAP = np.uint32(2**32 - 1)
_MIXER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, Knuth vol. 3, 6.4
_BATCH = 512
"""Merges between two reports of progress."""
_DONE = 0


def train(
    texts: Iterable[str | bytes],
    size: int,
    pattern: str = "gpt4",
    *,
    min_frequency: int = 2,
    threads: int = 1,
    max_chunks: int = 1 << 62,
) -> Tokenizer:
    """A tokenizer of `size` tokens, the 256 bytes and our control tokens included, or of fewer if the text
    has no more.

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
    least = 256 + len(SPECIALS)
    if size < least:
        raise BadInput(
            f"a vocabulary of {size} tokens is too small: 256 bytes and the control tokens need {least}"
        )
    return size - least


def learn_merges(
    chunks: Chunks, merges: int, min_frequency: int = 2, report: Callable[[int], Any] = lambda learned: None
) -> list[tuple[int, int]]:
    """At most `merges` pairs of token ids in the order they are merged; the n-th makes token 256 + n.

    Fewer if no pair occurs `min_frequency` times any more. `report` hears now and then how many are learned.
    """
    state = _State(chunks, merges, max(1, min_frequency))
    while state.advance(_BATCH):
        report(state.count)
    return [(key >> 32, key & 0xFFFFFFFF) for key in state.learned[: state.count].tolist()]


class _State:
    """The arrays that `_advance` works on."""

    def __init__(self, chunks: Chunks, merges: int, least: int) -> None:
        if len(chunks.data) + len(chunks.ends) + 1 >= GAP:
            raise BadInput(
                f"{len(chunks.data):,} bytes of distinct chunks are too many; give a lower max_chunks"
            )
        self.merges, self.least = merges, least
        self.tokens, self.chunk_of = _lay_out(chunks.data, chunks.ends)
        self.counts = chunks.counts
        self.lengths = np.ones(256 + merges, np.uint32)
        self.learned = np.zeros(merges, np.uint64)
        self.keys, self.amounts, self.slices, self.places = _first_pairs(
            self.tokens, self.chunk_of, self.counts, least
        )
        pairs = len(self.keys)
        self.heap, self.heap_amounts = np.arange(pairs), self.amounts.copy()
        """Numbers of pairs, and their counts when they were put there."""
        self.slots = np.zeros(0, np.int32)
        self.beside, self.met = (
            np.zeros((2, 256 + merges, 2), np.int64),
            np.zeros((2, 256 + merges), np.int64),
        )
        """In one step, by side: of each neighbour the summed counts and the number of occurrences; the
        neighbours met.
        """
        self.used = np.array([0, pairs, self.slices[-1, 1] if pairs else 0, pairs])
        """Merges, pairs, cells of `places` and of the heap."""
        _heapify(self.heap, self.heap_amounts, self.keys, pairs)
        self._make_room(1024 + 2 * pairs + 4 * merges)

    @property
    def count(self) -> int:
        """Merges learned."""
        return int(self.used[0])

    def advance(self, steps: int) -> bool:
        """Learn so many merges more; False when there are no more to learn."""
        until = min(self.merges, self.count + steps)
        while needed := self._advance(until):
            if needed > 0:
                self.places = grown(self.places, max(needed, len(self.places) * 3 // 2))
            else:
                self._make_room(max(-needed, 2 * len(self.keys)))
        return self.count == until < self.merges

    def _advance(self, until: int) -> int:
        corpus = (self.tokens, self.chunk_of, self.counts, self.lengths, self.places)
        pairs = (self.keys, self.amounts, self.slices, self.slots)
        heaps = (self.heap, self.heap_amounts)
        return _advance(
            until, self.least, self.learned, corpus, pairs, heaps, self.beside, self.met, self.used
        )

    def _make_room(self, pairs: int) -> None:
        self.keys, self.amounts, self.slices = (
            grown(x, pairs) for x in (self.keys, self.amounts, self.slices)
        )
        self.heap, self.heap_amounts = grown(self.heap, pairs), grown(self.heap_amounts, pairs)
        self.slots = _indexed(self.keys, int(self.used[1]), 1 << (2 * pairs - 1).bit_length())


@njit(cache=True)
def _lay_out(data, ends):
    """Token ids with gaps, and the number of the chunk that each stands in."""
    tokens = np.full(len(data) + len(ends) + 1, GAP, np.uint32)
    chunk_of = np.zeros(len(tokens), np.uint32)
    start, cell = 0, 1
    for number in range(len(ends)):
        for place in range(start, ends[number]):
            tokens[cell], chunk_of[cell] = data[place], number
            cell += 1
        start = ends[number]
        cell += 1
    return tokens, chunk_of


@njit(cache=True)
def _first_pairs(tokens, chunk_of, counts, least):
    """Pairs of bytes: keys, counts, where their occurrences begin and end, and these occurrences."""
    amounts, numbers = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64)
    for cell in range(len(tokens) - 1):
        if tokens[cell] != GAP and tokens[cell + 1] != GAP:
            pair = np.int64(tokens[cell]) << 8 | np.int64(tokens[cell + 1])
            amounts[pair] += counts[chunk_of[cell]]
            numbers[pair] += 1
    chosen = np.flatnonzero(amounts >= least)
    keys, slices = np.empty(len(chosen), np.uint64), np.empty((len(chosen), 2), np.int64)
    cursors = np.full(1 << 16, -1)
    total = 0
    for row in range(len(chosen)):
        pair = chosen[row]
        keys[row] = _key(pair >> 8, pair & 255)
        slices[row, 0] = cursors[pair] = total
        total += numbers[pair]
        slices[row, 1] = total
    places = np.empty(3 * total, np.uint32)  # room for those of later pairs
    for cell in range(len(tokens) - 1):
        if tokens[cell] != GAP and tokens[cell + 1] != GAP:
            pair = np.int64(tokens[cell]) << 8 | np.int64(tokens[cell + 1])
            if cursors[pair] >= 0:
                places[cursors[pair]] = cell
                cursors[pair] += 1
    return keys, amounts[chosen], slices, places


@njit(cache=True)
def _key(left, right):
    return np.uint64(left) << np.uint64(32) | np.uint64(right)


@njit(cache=True)
def _indexed(keys, count, size):
    """A hash table of the pairs: their numbers, -1 in empty slots."""
    slots = np.full(size, -1, np.int32)
    for pair in range(count):
        slots[_slot(keys[pair], keys, slots)] = pair
    return slots


@njit(cache=True)
def _slot(key, keys, slots):
    """The slot of a pair, or the empty one where it belongs."""
    mask = np.uint64(len(slots) - 1)
    slot = ((key * _MIXER) >> np.uint64(24)) & mask
    while slots[slot] >= 0 and keys[slots[slot]] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True)
def _after(amount, pair, other_amount, other, keys):
    """Whether a pair comes after another one: it is rarer, or as frequent and its ids are higher."""
    return amount < other_amount or (amount == other_amount and keys[pair] > keys[other])


@njit(cache=True)
def _sift(heap, amounts, keys, size, hole, pair, amount):
    """Put a pair into the heap at a free place or below."""
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
    for place in range(size // 2 - 1, -1, -1):
        _sift(heap, amounts, keys, size, place, heap[place], amounts[place])


@njit(cache=True)
def _push(heap, amounts, keys, size, pair, amount):
    hole = size
    while hole:
        parent = (hole - 1) // 2
        if not _after(amounts[parent], heap[parent], amount, pair, keys):
            break
        heap[hole], amounts[hole] = heap[parent], amounts[parent]
        hole = parent
    heap[hole], amounts[hole] = pair, amount


@njit(cache=True)
def _pop(heap, amounts, keys, used):
    """Take the first pair out."""
    used[3] -= 1
    if used[3]:
        _sift(heap, amounts, keys, used[3], 0, heap[used[3]], amounts[used[3]])


@njit(cache=True)
def _advance(until, least, learned, corpus, pairs, heaps, beside, met, used):
    """Learn merges until there are so many. Returns _DONE, the cells that `places` needs, or minus the pairs
    that there may be.
    """
    tokens, chunk_of, counts, lengths, places = corpus
    keys, amounts, slices, slots = pairs
    heap, heap_amounts = heaps
    while used[0] < until and used[3]:
        best = heap[0]
        amount = amounts[best]
        if amount < least:
            _pop(heap, heap_amounts, keys, used)
            continue
        if amount != heap_amounts[0]:  # it has shrunk since it was put there
            _sift(heap, heap_amounts, keys, used[3], 0, best, amount)
            continue
        start, end = slices[best]
        token = 256 + used[0]
        needed = used[2] + 2 * (end - start)
        if needed > len(places):
            return needed
        needed = used[1] + 2 * min(end - start, token + 1)
        if needed > len(keys):
            return -needed
        _pop(heap, heap_amounts, keys, used)
        left, right = np.int64(keys[best] >> np.uint64(32)), np.int64(keys[best] & np.uint64(0xFFFFFFFF))
        lengths[token] = lengths[left] + lengths[right]
        amounts[best] = 0
        end, before, after = _replace(
            left, right, token, start, end, tokens, chunk_of, counts, lengths, places, beside, met
        )
        found = (before, after)
        _settle(
            left,
            right,
            token,
            found,
            least,
            keys,
            amounts,
            slices,
            slots,
            heap,
            heap_amounts,
            beside,
            met,
            used,
        )
        _write_places(token, start, end, tokens, lengths, places, beside)
        _forget(found, slices, beside, met)
        learned[used[0]] = keys[best]
        used[0] += 1
    return _DONE


@njit(cache=True)
def _replace(left, right, token, start, end, tokens, chunk_of, counts, lengths, places, beside, met):
    """Replace the pair by the token wherever it still stands, from left to right, and sum up what stands
    beside it.

    The places where it stood are moved to the front. Returns where they end, and how many neighbours were
    `met` on either side.
    """
    first, second = np.int64(lengths[left]), np.int64(lengths[right])
    front = start
    found_before = found_after = 0
    for number in range(start, end):
        place = np.int64(places[number])
        # Stale, if an earlier merge took the left token: as a left part from its first cell, as a right part
        # from its last.
        if tokens[place] != left or tokens[place + first - 1] != left or tokens[place + first] != right:
            continue
        behind = place + first + second
        count = counts[chunk_of[place]]
        before, after = tokens[place - 1], tokens[behind]
        tokens[place] = tokens[behind - 1] = token
        if before != GAP:
            if not beside[0, before, 1]:
                met[0, found_before] = before
                found_before += 1
            beside[0, before, 0] += count
            beside[0, before, 1] += 1
        if after != GAP:
            if not beside[1, after, 1]:
                met[1, found_after] = after
                found_after += 1
            beside[1, after, 0] += count
            beside[1, after, 1] += 1
        places[front] = place
        front += 1
    return front, found_before, found_after


@njit(cache=True)
def _settle(
    left, right, token, found, least, keys, amounts, slices, slots, heap, heap_amounts, beside, met, used
):
    """Take the sums from the pairs that the neighbours were in, and make the pairs that they are in now.

    `beside` then holds each new pair's number (-1: too rare) and where its occurrences are to be written.
    """
    doubled = beside[
        0, token, 0
    ]  # two of the token side by side: the second took the left token that stood behind the first
    for side in range(2):
        for number in range(found[side]):
            other = met[side, number]
            amount = beside[side, other, 0]
            old, new = (
                (_key(right, other), _key(token, other)) if side else (_key(other, left), _key(other, token))
            )
            pair = slots[_slot(old, keys, slots)]
            if pair >= 0:
                amounts[pair] -= amount
            if side and other == left:
                amount -= doubled
            beside[side, other, 0] = -1
            if amount < least:
                continue
            pair = used[1]
            used[1] += 1
            keys[pair], amounts[pair], slices[pair, 0] = new, amount, used[2]
            slots[_slot(new, keys, slots)] = pair
            _push(heap, heap_amounts, keys, used[3], pair, amount)
            used[3] += 1
            used[2] += beside[side, other, 1]
            beside[side, other, 0], beside[side, other, 1] = pair, slices[pair, 0]


@njit(cache=True)
def _write_places(token, start, end, tokens, lengths, places, beside):
    """Write where the new pairs occur, in order."""
    length = np.int64(lengths[token])
    for number in range(start, end):
        place = np.int64(places[number])
        before, after = tokens[place - 1], tokens[place + length]
        if before != GAP and beside[0, before, 0] >= 0:
            places[beside[0, before, 1]] = place - lengths[before]
            beside[0, before, 1] += 1
        if after < GAP and after != token and beside[1, after, 0] >= 0:
            places[beside[1, after, 1]] = place
            beside[1, after, 1] += 1


@njit(cache=True)
def _forget(found, slices, beside, met):
    """Note where the new pairs' occurrences end, and clear the sums."""
    for side in range(2):
        for number in range(found[side]):
            other = met[side, number]
            if beside[side, other, 0] >= 0:
                slices[beside[side, other, 0], 1] = beside[side, other, 1]
            beside[side, other, 0] = beside[side, other, 1] = 0
