"""Boilerplate by repetition: lines that occur in many documents of one site belong to the site, not to the page.

CCNet (Wenzek et al. 2020, 3.2) drops paragraphs that occurred before anywhere. Here a line is dropped only if it
is frequent on its own host, so that a proverb may occur on many sites.
"""

from collections.abc import Callable
from hashlib import blake2b

import numpy as np

from crawltalk.data.dedup import distinct


def line_hashes(host: str, text: str) -> np.ndarray:
    """A 64-bit hash for each distinct line of a document, the host mixed in. Shape (lines,)."""
    lines = {line.strip() for line in text.split("\n")} - {""}
    return np.fromiter(map(_hasher(host), sorted(lines)), np.uint64, len(lines))


def _hasher(host: str) -> Callable[[str], int]:
    key = blake2b(host.encode("utf-8", "replace"), digest_size=32).digest()

    def hash_line(line: str) -> int:
        return int.from_bytes(
            blake2b(line.encode("utf-8", "replace"), digest_size=8, key=key).digest(), "little"
        )

    return hash_line


def frequent(hashes: np.ndarray, at_least: int) -> np.ndarray:
    """The hashes that occur at least `at_least` times among those of all documents; sorted."""
    ordered = np.sort(hashes)
    if len(ordered) < at_least:
        return ordered[:0]
    return distinct(
        ordered[: len(ordered) - at_least + 1][
            ordered[: len(ordered) - at_least + 1] == ordered[at_least - 1 :]
        ]
    )


def drop_lines(host: str, text: str, hashes: np.ndarray) -> str:
    """The text without the lines whose hash is among `hashes` (sorted)."""
    if not len(hashes):
        return text
    lines = text.split("\n")
    mine = np.fromiter(map(_hasher(host), (line.strip() for line in lines)), np.uint64, len(lines))
    hit = hashes[np.minimum(np.searchsorted(hashes, mine), len(hashes) - 1)] == mine
    return "\n".join(line for line, gone in zip(lines, hit, strict=True) if not gone).strip()
