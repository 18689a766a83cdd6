"""Near-duplicates by MinHash and locality-sensitive hashing (Broder 1997; FineWeb 3.4: 5-grams, 14 bands x 8
rows, 64 bits).

Two documents are candidates if all rows of at least one band agree. Candidates are joined into clusters, and
the best document of each cluster is kept. FineWeb replaces numbers by "0"; this is left out, because pages that
differ only in their figures (asteroids, villages) have different content.

Signatures are on disk, one file per part with a row per band, and everything that grows with the corpus is a
memory-mapped file. A band is sorted in slices of its values, so that `SLICE` bounds the memory.
"""

import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

UNSPACED = (
    (0x0E00, 0x0F00),  # Thai, Lao
    (0x1000, 0x10A0),  # Burmese
    (0x1780, 0x1800),  # Khmer
    (0x3005, 0x3008),  # signs among Chinese characters
    (0x3040, 0x3100),  # Japanese syllables
    (0x31F0, 0x3200),
    (0x3400, 0x4DC0),  # Chinese characters, also of Japanese and Korean
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0xFF66, 0xFFA0),  # Japanese syllables of half the width
    (0x20000, 0x32000),
)
"""Ranges of code points of scripts without blanks between words; Korean has blanks."""
SLICE = 4_000_000
"""Documents of a band sorted at once; 40 bytes each."""

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@cache
def _permutations(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(seed))
    draw = rng.integers(0, 1 << 64, (2, count), dtype=np.uint64, endpoint=False)
    return draw[0] | np.uint64(1), draw[1]


@cache
def _word_characters() -> np.ndarray:
    """Of each code point: 1 if it is part of a word, as `\\w` has it or as a mark above or below a letter; 2 if it is
    of a script without blanks, where words are not seen; else 0.
    """
    table = np.char.isalnum(np.arange(sys.maxunicode + 1, dtype=np.uint32).view("<U1")).astype(np.uint8)
    table[ord("_")] = 1
    for point in range(0x300, 0x20000):  # there are no others in use
        if unicodedata.category(chr(point)) in ("Mn", "Mc"):
            table[point] = 1
    for start, end in UNSPACED:
        table[start:end] = np.where(table[start:end], 2, 0)
    return table


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.lower().encode("utf-32-le", "surrogatepass"), np.uint32)


@njit(cache=True)
def _mix(value):
    """The finalizer of MurmurHash3: every input bit reaches every output bit."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@njit(cache=True)
def _hash_words(points, kinds):
    """A hash for each word, in order. Of a script without blanks each character makes a word, together with the three
    before it: so five such words are eight characters, which are about five words (`filters.rules`).
    """
    hashes = np.empty(len(points) + 1, np.uint64)
    count, state, inside = 0, np.uint64(0), False
    third = second = last = np.uint64(0)  # the characters before this one in its run
    for point in points:
        kind = kinds[point]
        if kind != 2 and last:
            third = second = last = np.uint64(0)
        if kind == 1:
            state = (state ^ np.uint64(point)) * np.uint64(0x100000001B3) + np.uint64(0x9E3779B97F4A7C15)
            inside = True
            continue
        if inside:
            hashes[count] = _mix(state)
            count, state, inside = count + 1, np.uint64(0), False
        if kind == 2:
            own = np.uint64(point)
            hashes[count] = _mix(_mix(third << np.uint64(32) | second) ^ (last << np.uint64(32) | own))
            count, third, second, last = count + 1, second, last, own
    if inside:
        hashes[count] = _mix(state)
        count += 1
    return hashes[:count]


@njit(cache=True)
def _hash_ngrams(words, ngram):
    """A hash for each run of `ngram` words; a shorter text is one run."""
    hashes = np.empty(max(1, len(words) - ngram + 1), np.uint64)
    for start in range(len(hashes)):
        state = np.uint64(0)
        for position in range(start, min(start + ngram, len(words))):
            state = _mix(state) + words[position]
        hashes[start] = _mix(state)
    return hashes


@njit(cache=True)
def _band_hashes(shingles, factors, offsets, bands):
    signature = np.full(len(factors), np.uint64(0xFFFFFFFFFFFFFFFF))
    for shingle in shingles:
        for row in range(len(factors)):
            value = shingle * factors[row] + offsets[row]
            signature[row] = min(signature[row], value ^ (value >> np.uint64(32)))
    combined = np.zeros(bands, np.uint64)
    rows = len(factors) // bands
    for band in range(bands):
        for row in range(band * rows, (band + 1) * rows):
            combined[band] = _mix(combined[band] ^ signature[row])
    return combined


def ngram_hashes(text: str, ngram: int) -> np.ndarray:
    """64-bit hashes of all runs of `ngram` words, in order; lower case, no punctuation; a shorter text is one
    run. In scripts without blanks each character counts as one.
    """
    return _hash_ngrams(_hash_words(_code_points(text), _word_characters()), ngram)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each word that `ngram_hashes` hashes, in the lower-case text."""
    spans: list[tuple[int, int]] = []
    inside = False
    for position, kind in enumerate(_word_characters()[_code_points(text)].tolist()):
        if kind == 1 and inside:
            spans[-1] = (spans[-1][0], position + 1)
        elif kind:
            spans.append((position, position + 1))
        inside = kind == 1
    return spans


def distinct(values: np.ndarray) -> np.ndarray:
    """Sorted, each value once: as np.unique, which takes 15 times as long for millions of integers."""
    return without_repeats(np.sort(values))


def without_repeats(ordered: np.ndarray) -> np.ndarray:
    """Each value of a sorted array once."""
    return ordered[np.concatenate([np.ones(min(1, len(ordered)), np.bool_), ordered[1:] != ordered[:-1]])]


def shingles(text: str, ngram: int) -> np.ndarray:
    """The set of a text's n-grams of words: distinct hashes, sorted."""
    return distinct(ngram_hashes(text, ngram))


def band_hashes(text: str, ngram: int = 5, bands: int = 14, rows: int = 8, seed: int = 1) -> np.ndarray:
    """One 64-bit hash per band: the combined minima of `rows` random permutations of the shingles. Shape
    (bands,).

    Only signatures of the same seed can be compared.
    """
    return _band_hashes(ngram_hashes(text, ngram), *_permutations(bands * rows, seed), bands)


def jaccard(left: str, right: str, ngram: int = 5) -> float:
    """Exact similarity of the sets of n-grams of two texts."""
    a, b = shingles(left, ngram), shingles(right, ngram)
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


def deduplicate(
    signatures: Sequence[Path], ranks: np.ndarray, folder: Path, map_: Map = map
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster all documents and elect one of each cluster.

    `signatures`: files of shape (bands, documents), one after the other all documents. `ranks`: (documents,)
    with fields `rank` and `tie`; the highest rank is kept, among equals the lowest tie, then the first document.
    Returns two int64 arrays (documents,), files in `folder`: the survivor of each document's cluster, and the
    cluster's size at the survivor. `map_` may run in parallel: one item sorts and groups a slice of a band.
    """
    count = len(ranks)
    bands = len(np.load(signatures[0], mmap_mode="r")) if signatures else 0
    slices = 1 << max(0, (count - 1) // SLICE).bit_length()
    parent = _on_disk(folder / "parent.npy", count)
    parent[:] = np.arange(count)
    for pairs in map_(
        _same_band, [(signatures, band, part, slices) for band in range(bands) for part in range(slices)]
    ):
        _join(parent, pairs)
    sizes = _on_disk(folder / "sizes.npy", count)
    best = _on_disk(folder / "best.npy", count)
    best[:] = -1
    _elect(parent, ranks["rank"], ranks["tie"], best, sizes)
    return parent, sizes


def _on_disk(path: Path, count: int) -> np.ndarray:
    """An int64 array of zeros in a file (an empty one in memory: files cannot be mapped empty)."""
    if not count:
        return np.zeros(0, np.int64)
    return np.lib.format.open_memmap(path, "w+", np.int64, (count,))


def _same_band(item: tuple[Sequence[Path], int, int, int]) -> np.ndarray:
    """Pairs of neighbours with the same hash in one slice of one band: (pairs, 2) numbers of documents."""
    signatures, band, part, slices = item
    hashes, positions, start = [], [], 0
    shift = np.uint64(64 - slices.bit_length() + 1) if slices > 1 else np.uint64(0)
    for path in signatures:
        row = np.load(path, mmap_mode="r")[band]
        here = np.flatnonzero(row >> shift == part) if slices > 1 else np.arange(len(row))
        hashes.append(row[here])
        positions.append(here + start)
        start += len(row)
    values, numbers = np.concatenate(hashes), np.concatenate(positions)
    order = np.argsort(values, kind="stable")
    same = np.flatnonzero(values[order[1:]] == values[order[:-1]])
    return np.stack([numbers[order[same]], numbers[order[same + 1]]], 1)


@njit(cache=True)
def _root(parent, index):
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


@njit(cache=True)
def _join(parent, pairs):
    for row in range(len(pairs)):
        left, right = _root(parent, pairs[row, 0]), _root(parent, pairs[row, 1])
        parent[max(left, right)] = min(left, right)


@njit(cache=True)
def _elect(parent, rank, tie, best, sizes):
    """Set `parent` to the survivor of each document's cluster, `sizes` to the cluster's size at its survivor."""
    for index in range(len(parent)):
        root = _root(parent, index)
        parent[index] = root
        other = best[root]
        if other < 0 or rank[index] > rank[other] or (rank[index] == rank[other] and tie[index] < tie[other]):
            best[root] = index
    for index in range(len(parent)):
        parent[index] = best[parent[index]]
        sizes[parent[index]] += 1
