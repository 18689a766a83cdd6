"""Suffix arrays give all positions of any substring of a text in logarithmic time (Manber and Myers 1990).

Used to cut out text that the corpus already has (Lee et al. 2022, 4.1). The array is built by libdivsufsort
(pydivsufsort).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numba import njit
from pydivsufsort import divsufsort

SEPARATOR = 0xFF
"""Byte between documents; it does not occur in UTF-8."""


def suffix_array(text: np.ndarray) -> np.ndarray:
    """The start positions of all suffixes in sorted order, int32 (int64 from 2 GiB on). `text`: (bytes,) uint8.
    Needs about 5 (9) bytes of memory for each byte.
    """
    return divsufsort(np.require(text, requirements="W")) if len(text) else np.zeros(0, np.int32)


def find(text: np.ndarray, suffixes: np.ndarray, pattern: bytes) -> np.ndarray:
    """The positions of a pattern, sorted. Text and array may be read-only memory maps."""
    if not len(text) or not pattern:
        return suffixes[:0]

    def start(position: int) -> bytes:
        return text[position : position + len(pattern)].tobytes()

    low, high = bisect_left(suffixes, pattern, key=start), bisect_right(suffixes, pattern, key=start)
    return np.sort(suffixes[low:high])


def repeated_spans(documents: Sequence[bytes], length: int) -> list[list[tuple[int, int]]]:
    """For each document (UTF-8) the spans of at least about `length` bytes that occur earlier, in it or in
    one before it.

    Spans are (start, end) in bytes. They do not touch each other, and are shrunk to whole characters.
    """
    joined = bytearray().join(piece for document in documents for piece in (document, bytes([SEPARATOR])))
    text = np.frombuffer(joined, np.uint8)
    cover = _cover(text, suffix_array(text), length)
    spans, start = [], 0
    for document in documents:
        spans.append(_spans(document, cover[start : start + len(document)]))
        start += len(document) + 1
    return spans


def _spans(document: bytes, cover: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(cover.astype(np.int8), prepend=0, append=0)).tolist()
    spans = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        start, end = first, last
        while start < end and document[start] & 0xC0 == 0x80:
            start += 1
        while end > start and end < len(document) and document[end] & 0xC0 == 0x80:
            end -= 1
        if start < end:
            spans.append((start, end))
    return spans


@njit(cache=True)
def _smaller_neighbours(suffixes):
    """For each position the nearest smaller one before it and behind it in the array (-1: none)."""
    before = np.full(len(suffixes), -1, suffixes.dtype)
    behind = np.full(len(suffixes), -1, suffixes.dtype)
    stack = np.empty(len(suffixes), suffixes.dtype)
    top = 0
    for position in suffixes:
        while top and stack[top - 1] > position:
            behind[stack[top - 1]] = position
            top -= 1
        if top:
            before[position] = stack[top - 1]
        stack[top] = position
        top += 1
    return before, behind


@njit(cache=True)
def _mark(text, earlier, length, cover):
    """Mark in `cover` what matches the text from `earlier[position]` on. From one position to the next a match
    shrinks by one byte at most.
    """
    size = done = 0
    for position in range(len(text)):
        other = earlier[position]
        size = max(0, size - 1)
        if other < 0:
            size = 0
            continue
        while text[position + size] != SEPARATOR and text[position + size] == text[other + size]:
            size += 1
        if size >= length:
            # each byte once: a long match continues at every position in it
            cover[max(position, done) : position + size] = True
            done = position + size


@njit(cache=True)
def _cover(text, suffixes, length):
    """Which bytes are part of a match of at least `length` bytes with an earlier position.

    The longest earlier match of a position is with one of its two smaller neighbours in the suffix array
    (Crochemore and Ilie 2008).
    """
    before, behind = _smaller_neighbours(suffixes)
    cover = np.zeros(len(text), np.bool_)
    _mark(text, before, length, cover)
    _mark(text, behind, length, cover)
    return cover
