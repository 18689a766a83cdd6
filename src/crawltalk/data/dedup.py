"""Near-duplicates by MinHash and locality-sensitive hashing (Broder 1997; FineWeb 3.4: 5-grams, 14 bands x 8 rows, 64 bits).

Two documents are candidates if all rows of at least one band agree; candidates are joined into clusters, and of each
cluster the longest document stays. FineWeb's simplification of numbers to "0" is left out: pages that differ in their
figures only (asteroids, villages) say different things.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from hashlib import blake2b

import numpy as np

_WORD = re.compile(r"\w+")
_SIGNATURE_CHUNK = 512  # shingles hashed at once: 112 x 512 x 8 bytes stay in the cache


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "ignore"), digest_size=8).digest(), "little")


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of MurmurHash3: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


@cache
def _permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(1))  # fixed: signatures of different files must be comparable
    draw = rng.integers(0, 1 << 64, (2, count), dtype=np.uint64, endpoint=False)
    return draw[0] | np.uint64(1), draw[1]


def shingles(text: str, ngram: int) -> np.ndarray:
    """Distinct 64-bit hashes of all runs of `ngram` words, lower case, no punctuation; a shorter text is one shingle."""
    words = np.array([_word_hash(word) for word in _WORD.findall(text.lower())], np.uint64)
    if len(words) < ngram:
        words = np.concatenate([words, np.zeros(ngram - len(words), np.uint64)])
    windows = np.zeros(len(words) - ngram + 1, np.uint64)
    for place in range(ngram):
        windows = _mix(windows) + words[place : place + len(windows)]
    return np.unique(_mix(windows))


def band_hashes(text: str, ngram: int = 5, bands: int = 14, rows: int = 8) -> np.ndarray:
    """One 64-bit hash per band: the combined minima of `rows` random permutations of the shingles. Shape (bands,)."""
    factors, offsets = _permutations(bands * rows)
    signature = np.full(bands * rows, np.iinfo(np.uint64).max, np.uint64)
    found = shingles(text, ngram)
    for start in range(0, len(found), _SIGNATURE_CHUNK):
        part = found[start : start + _SIGNATURE_CHUNK, None] * factors + offsets
        signature = np.minimum(signature, (part ^ (part >> np.uint64(32))).min(0))
    combined = np.zeros(bands, np.uint64)
    for column in signature.reshape(bands, rows).T:
        combined = _mix(combined ^ column)
    return combined


def clusters(hashes: np.ndarray) -> np.ndarray:
    """Join documents that share a band: (documents, bands) hashes -> for each document the lowest index of its cluster."""
    parent = np.arange(len(hashes))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for band in hashes.T:
        order = np.argsort(band, kind="stable")
        same = np.flatnonzero(band[order[1:]] == band[order[:-1]])
        for left, right in zip(order[same], order[same + 1], strict=True):
            low, high = sorted((root(left), root(right)))
            parent[high] = low
    return np.array([root(index) for index in range(len(parent))], np.int64)


def survivors(cluster: np.ndarray, keys: Sequence[tuple[int, str, str]]) -> np.ndarray:
    """For each document the index of the one that stays for its cluster: the lowest of `keys` (-length, URL, id)."""
    best: dict[int, int] = {}
    for index, label in enumerate(cluster.tolist()):
        if label not in best or keys[index] < keys[best[label]]:
            best[label] = index
    return np.array([best[label] for label in cluster.tolist()], np.int64)
