"""Boilerplate by document frequency: lines that a large share of the pages of a host have (navigation, footers,
banners) belong to the site and not to the page.

CCNet (Wenzek et al. 2020, 3.2) drops lines that occurred before anywhere; here a line must be frequent on its own
host, so a proverb may occur on many sites. All files are read once before (`survey`), so that lines go before language,
quality and near-duplicates are looked at: otherwise pages with little text of their own would be near-duplicates of
each other. A short line that stands alone between lines of the page stays: it is a heading, such as "See also".
"""

import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

FEWEST = 5
"""A line on fewer pages is never boilerplate: they may be copies of one page."""
_HEADING = 60  # characters; a longer line is no heading
_GAP = 3  # lines that differ by their numbers only, between boilerplate
_SLICE = 1 << 24  # hashes that are sorted at once
_DIGITS = re.compile(r"\d+")

TEXTS = np.dtype([("text", np.uint64), ("host", np.uint64), ("lines", np.uint32)])
"""Of each page of a survey: hashes of its text and host, and how many hashes of lines it has."""
COUNTS = np.dtype([("hash", np.uint64), ("pages", np.uint32)])


class Lines(msgspec.Struct):
    """What the survey needs of a page."""

    text: int
    host: int
    hashes: np.ndarray
    """Of its distinct lines, each once as it is and once without its numbers: (lines,) uint64."""


def survey_lines(host: str, text: str) -> Lines:
    """The hashes of a page."""
    hash_line = _hasher(host)
    keys = {key for line in text.split("\n") for key in _keys(line)} - {""}
    hashes = np.fromiter(map(hash_line, sorted(keys)), np.uint64, len(keys))
    return Lines(hash_line(text), hash_host(host), np.unique(hashes))


def _keys(line: str) -> tuple[str, str]:
    """A line without differences of case and space; and the same without its numbers, if it has any."""
    exact = " ".join(line.lower().split())
    without = _DIGITS.sub("\0", exact)
    return exact, without if without != exact else ""


def _hash(text: str, key: bytes = b"") -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8, key=key).digest(), "little")


def hash_host(host: str) -> int:
    """64 bits."""
    return _hash(host)


def _hasher(host: str) -> Callable[[str], int]:
    key = blake2b(host.encode("utf-8", "replace"), digest_size=32).digest()
    return lambda line: _hash(line, key)


def count_lines(
    surveys: Sequence[tuple[np.ndarray, np.ndarray]], slice_: int = _SLICE
) -> tuple[np.ndarray, np.ndarray]:
    """The lines that `FEWEST` pages or more of a host have, and the pages of each host: two sorted arrays of `COUNTS`.
    A text that occurs several times on a host is one page.

    `surveys`: for each part its `TEXTS` and the hashes of all lines. Memory is bounded by the number of pages and by
    `slice_`; the hashes may be memory-mapped.
    """
    texts = np.concatenate([np.zeros(0, TEXTS), *(part for part, _ in surveys)])
    first = np.zeros(len(texts), bool)
    first[np.unique(texts["text"], return_index=True)[1]] = True
    hosts, pages = np.unique(texts["host"][first], return_counts=True)
    total = sum(len(hashes) for _, hashes in surveys)
    slices = max(1, -(-total // slice_))
    frequent = [np.zeros(0, COUNTS)]
    for low, high in pairwise([(number << 64) // slices for number in range(slices + 1)]):
        chosen, start = [np.zeros(0, np.uint64)], 0
        for part, hashes in surveys:
            ours = np.repeat(first[start : start + len(part)], part["lines"])
            chosen.append(hashes[ours & (hashes >= np.uint64(low)) & (hashes <= np.uint64(high - 1))])
            start += len(part)
        found, counts = np.unique(np.concatenate(chosen), return_counts=True)
        frequent.append(_counts(found[counts >= FEWEST], counts[counts >= FEWEST]))
    return np.concatenate(frequent), _counts(hosts, pages)


def _counts(hashes: np.ndarray, pages: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(hashes), COUNTS)
    rows["hash"], rows["pages"] = hashes, pages
    return rows


class Boilerplate:
    """The lines that a survey found frequent, and what they made of the pages so far."""

    def __init__(self, lines: np.ndarray, hosts: np.ndarray, share: float) -> None:
        self.lines, self.hosts, self.share = lines, hosts, share
        self.counted = [0, 0, 0, 0]
        """Characters of pages, and those in frequent lines; both once more, of what is left."""

    @classmethod
    def load(cls, lines: Path, hosts: Path, share: float) -> "Boilerplate":
        """Read two files of `count_lines`."""
        return cls(np.load(lines, mmap_mode="r"), np.load(hosts, mmap_mode="r"), share)

    def remove(self, host: str, text: str) -> str:
        """The text without boilerplate; empty if there is nothing else."""
        lines = text.split("\n")
        frequent, alike = self._frequent(host, lines)
        stays = _stays(lines, frequent, alike)
        before = sum(map(len, lines))
        left = [line for line, here in zip(lines, stays, strict=True) if here]
        still = sum(
            len(line) for line, here, often in zip(lines, stays, frequent, strict=True) if here and often
        )
        often = sum(
            len(line) for line, here, known in zip(lines, stays, frequent, strict=True) if known or not here
        )
        for place, count in enumerate((before, often, sum(map(len, left)), still)):
            self.counted[place] += count
        return text if len(left) == len(lines) else "\n".join(left).strip()

    def take_counted(self) -> list[int]:
        """The counts since the last call."""
        counted, self.counted = self.counted, [0, 0, 0, 0]
        return counted

    def _frequent(self, host: str, lines: Sequence[str]) -> tuple[list[bool], list[bool]]:
        """For each line whether it is frequent, and whether it would be without its numbers."""
        pages = _look_up(self.hosts, np.array([hash_host(host)], np.uint64))[0]
        at_least = max(FEWEST, self.share * pages)
        hash_line = _hasher(host)
        keys = [_keys(line) for line in lines]
        hashes = np.array([[hash_line(key) if key else 0 for key in pair] for pair in keys], np.uint64)
        often = _look_up(self.lines, hashes.reshape(-1)).reshape(-1, 2) >= at_least
        return often[:, 0].tolist(), often[:, 1].tolist()


def _look_up(counts: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """How many pages each hash has in a sorted array of `COUNTS`; 0 if it is not there."""
    if not len(counts):
        return np.zeros(len(hashes), np.uint32)
    places = np.minimum(np.searchsorted(counts["hash"], hashes), len(counts) - 1)
    return np.where(counts["hash"][places] == hashes, counts["pages"][places], 0)


def _stays(lines: Sequence[str], frequent: Sequence[bool], alike: Sequence[bool]) -> list[bool]:
    """Which lines stay: those that are not frequent, except a few that would be without their numbers and follow
    boilerplate, up to more of it or the end; and short ones that stand alone between lines of the page.
    """
    stays = [not often for often in frequent]
    runs = _runs(stays)
    for (before, start), (_, end) in pairwise(runs):
        if stays[start] and start - before > 1 and end - start <= _GAP and all(alike[start:end]):
            stays[start:end] = [False] * (end - start)
    for start, end in _runs(stays):
        alone = end - start == 1 and start > 0 and end < len(stays)
        if alone and not stays[start] and len(lines[start]) <= _HEADING:
            stays[start] = True
    return stays


def _runs(values: Sequence[bool]) -> list[tuple[int, int]]:
    """Start and end of each run of equal values."""
    ends = [place for place in range(1, len(values)) if values[place] != values[place - 1]]
    return list(pairwise([0, *ends, len(values)]))
