"""Learning byte pair encoding (Sennrich et al. 2016, algorithm 1) exactly, over bytes (Radford et al. 2019, section 2.2).

The text is cut into chunks by the split pattern; equal chunks are kept once, with their count. All symbols of all chunks lie
in flat arrays with links to their neighbours. Each pair of neighbours has a count and a list of where it occurs. A merge
visits the occurrences of its pair only; pairs that it creates contain the new symbol, so they are born in this very step and
never grow afterwards: a lazy heap of counts is exact. Ties go to the pair with the lowest ids.

What it does not do: it does not cut text faster than the `regex` library, and it holds the unique chunks in memory.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import regex
from numba import njit

from crawltalk.core.stage import Progress

NONE = -1
EMPTY = np.uint64(2**64 - 1)
MIXER = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, Knuth vol. 3, 6.4


def count_chunks(texts: Iterable[str], pattern: str) -> Counter[bytes]:
    """Chunks of the texts, as UTF-8, with their counts."""
    find: Callable[[str], list[str]] = regex.compile(pattern).findall
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(find(text))
    return Counter({chunk.encode("utf-8", "surrogatepass"): count for chunk, count in counts.items()})


def learn_merges(chunks: Counter[bytes], merges: int, progress: Progress | None = None) -> list[tuple[int, int]]:
    """At most `merges` pairs of token ids in the order they are merged; the n-th makes token 256 + n.

    Fewer if no pair occurs twice any more. A pair whose bytes are a token already is passed over, so that bytes name a token
    uniquely, whatever way they were merged.
    """
    table = PairTable(chunks)
    words = [bytes([value]) for value in range(256)]
    known = set(words)
    heap = [(-int(count), int(table.keys_of[index]), index) for index, count in enumerate(table.counts[: table.size])]
    heapq.heapify(heap)
    learned: list[tuple[int, int]] = []
    while heap and len(learned) < merges:
        negative, key, index = heapq.heappop(heap)
        count = int(table.counts[index])
        if count != -negative:  # it shrank since it was pushed
            if count > 1:
                heapq.heappush(heap, (-count, key, index))
            continue
        if count < 2:
            break
        left, right = key >> 32, key & 0xFFFFFFFF
        word = words[left] + words[right]
        if word in known:
            continue
        known.add(word)
        words.append(word)
        learned.append((left, right))
        for born in table.merge(index, 255 + len(learned)):
            if table.counts[born] > 1:
                heapq.heappush(heap, (-int(table.counts[born]), int(table.keys_of[born]), int(born)))
        if progress is not None:
            progress.update(len(learned), merges, "merges")
    return learned


class PairTable:
    """All symbols, and every pair of neighbours with its count and its occurrences."""

    def __init__(self, chunks: Counter[bytes]) -> None:
        order = sorted(chunks)  # the result must not depend on the order of the text
        lengths = np.array([len(chunk) for chunk in order], dtype=np.int64)
        self.symbols = np.frombuffer(b"".join(order), dtype=np.uint8).astype(np.int64)
        self.weights = np.repeat(np.array([chunks[chunk] for chunk in order], dtype=np.int64), lengths)
        total = len(self.symbols)
        places = np.arange(total, dtype=np.int64)
        ends = np.cumsum(lengths)
        self.before, self.after = places - 1, places + 1
        self.before[ends - lengths] = NONE
        self.after[ends - 1] = NONE
        room = 3 * total + 1  # each merge of an occurrence removes one symbol and creates at most two occurrences
        slots = 1 << max(10, int(2 * room - 1).bit_length())
        self.slots_key = np.full(slots, EMPTY, dtype=np.uint64)
        self.slots_pair = np.zeros(slots, dtype=np.int64)
        self.keys_of = np.zeros(room, dtype=np.uint64)
        self.counts = np.zeros(room, dtype=np.int64)
        self.first, self.last = np.full(room, NONE), np.full(room, NONE)
        self.place, self.following = np.zeros(room, dtype=np.int64), np.full(room, NONE)
        self.used = np.zeros(2, dtype=np.int64)  # pairs, occurrences
        _count_all(self.symbols, self.weights, self.after, *self._index)

    @property
    def _index(self) -> tuple[np.ndarray, ...]:
        return (
            *(self.slots_key, self.slots_pair, self.keys_of, self.counts),
            *(self.first, self.last, self.place, self.following, self.used),
        )

    @property
    def size(self) -> int:
        """Number of pairs ever seen."""
        return int(self.used[0])

    def merge(self, pair: int, token: int) -> range:
        """Replace every occurrence of the pair by `token`, left to right; the pairs that were born."""
        before = self.size
        _merge(pair, token, self.symbols, self.weights, self.before, self.after, *self._index)
        return range(before, self.size)


@njit(cache=True)
def _add(key, weight, place, slots_key, slots_pair, keys_of, counts, first, last, places, following, used):  # type: ignore[no-untyped-def]
    """Count one occurrence of a pair at `place`."""
    mask = np.uint64(len(slots_key) - 1)
    slot = ((key * MIXER) >> np.uint64(20)) & mask
    while slots_key[slot] != EMPTY and slots_key[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    if slots_key[slot] == EMPTY:
        slots_key[slot] = key
        slots_pair[slot] = used[0]
        keys_of[used[0]] = key
        used[0] += 1
    pair = slots_pair[slot]
    counts[pair] += weight
    occurrence = used[1]
    used[1] += 1
    places[occurrence] = place
    if first[pair] == NONE:
        first[pair] = occurrence
    else:
        following[last[pair]] = occurrence
    last[pair] = occurrence


@njit(cache=True)
def _take(key, weight, slots_key, slots_pair, counts):  # type: ignore[no-untyped-def]
    """One occurrence less; its place stays in the list and is found to be stale when the list is walked."""
    mask = np.uint64(len(slots_key) - 1)
    slot = ((key * MIXER) >> np.uint64(20)) & mask
    while slots_key[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    counts[slots_pair[slot]] -= weight


@njit(cache=True)
def _key(left, right):  # type: ignore[no-untyped-def]
    return (np.uint64(left) << np.uint64(32)) | np.uint64(right)


@njit(cache=True)
def _count_all(symbols, weights, after, slots_key, slots_pair, keys_of, counts, first, last, places, following, used):  # type: ignore[no-untyped-def]
    for place in range(len(symbols)):
        if after[place] != NONE:
            key = _key(symbols[place], symbols[after[place]])
            _add(key, weights[place], place, slots_key, slots_pair, keys_of, counts, first, last, places, following, used)


@njit(cache=True)
def _merge(  # type: ignore[no-untyped-def]
    pair,
    token,
    symbols,
    weights,
    before,
    after,
    slots_key,
    slots_pair,
    keys_of,
    counts,
    first,
    last,
    places,
    following,
    used,
):
    left, right = np.int64(keys_of[pair] >> np.uint64(32)), np.int64(keys_of[pair] & np.uint64(0xFFFFFFFF))
    occurrence = first[pair]
    while occurrence != NONE:
        place = places[occurrence]
        occurrence = following[occurrence]
        second = after[place]
        if symbols[place] != left or second == NONE or symbols[second] != right:
            continue  # stale: an earlier merge changed it
        weight, previous, following_place = weights[place], before[place], after[second]
        if previous != NONE:
            _take(_key(symbols[previous], left), weight, slots_key, slots_pair, counts)
        if following_place != NONE:
            _take(_key(right, symbols[following_place]), weight, slots_key, slots_pair, counts)
            before[following_place] = place
        symbols[place] = token
        symbols[second] = NONE
        after[place] = following_place
        if previous != NONE:
            key = _key(symbols[previous], token)
            _add(key, weight, previous, slots_key, slots_pair, keys_of, counts, first, last, places, following, used)
        if following_place != NONE:
            key = _key(token, symbols[following_place])
            _add(key, weight, place, slots_key, slots_pair, keys_of, counts, first, last, places, following, used)
    counts[pair] = 0
