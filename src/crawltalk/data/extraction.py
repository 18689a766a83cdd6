"""Main-text extraction: the page without navigation, banners, sidebars, link lists and footers.

The page is read once into blocks of text (`data.scan`), each block is described by numbers (`data.blocks`), and a small
classifier says which are content: a network of one hidden layer whose weights stand in `extraction.json`
(`tools/train_extractor.py` makes them). The title, the first heading of the first level, comes first.
"""

import html as entities
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from crawltalk.data.blocks import features
from crawltalk.data.scan import LINK, scan
from crawltalk.data.warc import decode

WEIGHTS = Path(__file__).with_name("extraction.json")
THRESHOLD = 0.45
"""Least probability of a block to be content; F1 is flat from 0.4 to 0.5."""
_PROSE = 60
"""Bytes of a block that is more than a label."""


def extract(html: bytes, url: str | None = None) -> str | None:
    """The main text of a page, blocks on lines of their own, the title first; None if there is none.

    `url` is accepted for the common signature of extractors and not needed.
    """
    return extract_text(decode(html))


def extract_text(html: str) -> str | None:
    """The same for a page that is decoded already."""
    text, blocks = scan(html.encode("utf-8", "replace"))
    if not len(blocks):
        return None
    kept = choose(text, blocks, probabilities(features(text, blocks)) > THRESHOLD)
    lines = [plain(text, block) for block in blocks[kept]]
    return "\n".join(line for place, line in enumerate(lines) if line and line not in lines[place - 1 : place]) or None


def visible_text(html: str, characters: int = 2000) -> str:
    """The text of all blocks, boilerplate and all, up to about so many characters."""
    text, blocks = scan(html.encode("utf-8", "replace"))
    lines: list[str] = []
    for block in blocks:
        lines.append(plain(text, block))
        characters -= len(lines[-1])
        if characters < 0:
            break
    return "\n".join(lines)


def choose(text: bytes, blocks: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Numbers of the blocks to keep: those that are content, and the title before them, if anything is content at all."""
    kept = np.flatnonzero(content)
    size = blocks[kept, 1] - blocks[kept, 0]
    if not len(kept) or not np.any((size > _PROSE) & (blocks[kept, 2] < size / 2)):
        return kept[:0]
    titles = np.flatnonzero((blocks[:, 4] == 1) & (blocks[:, 3] & LINK == 0))
    if len(titles) and titles[0] not in kept:
        kept = np.concatenate([titles[:1], kept[kept > titles[0]]]) if titles[0] < kept[-1] else kept
    return kept


def plain(text: bytes, block: np.ndarray) -> str:
    """A block's text, entities resolved, white space single."""
    piece = text[block[0] : block[1]].decode("utf-8", "replace")
    return " ".join((entities.unescape(piece) if "&" in piece else piece).replace("\0", "").split())


def probabilities(rows: np.ndarray, weights: tuple[np.ndarray, ...] | None = None) -> np.ndarray:
    """(blocks, features) -> for each block the probability that it is content, by the weights of `extraction.json` or others."""
    return _network(rows, *(weights or _weights()))


@njit(cache=True)
def _network(rows, mean, scale, hidden, hidden_bias, output, output_bias):
    """One hidden layer. Not through BLAS, whose threads would wait for each other longer than a page takes."""
    found = np.empty(len(rows), np.float32)
    units = np.empty(len(hidden_bias), np.float32)
    for row in range(len(rows)):
        units[:] = hidden_bias
        for place in range(len(mean)):
            value = (rows[row, place] - mean[place]) / scale[place]
            for unit in range(len(units)):
                units[unit] += value * hidden[place, unit]
        total = output_bias[0]
        for unit in range(len(units)):
            total += max(np.float32(0), units[unit]) * output[unit]
        found[row] = 1 / (1 + np.exp(-total))
    return found


def as_weights(table: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """The network's arrays from what `extraction.json` holds."""
    names = ("mean", "scale", "hidden", "hidden_bias", "output", "output_bias")
    return tuple(np.array(table[name], np.float32).reshape(np.shape(table[name]) or 1) for name in names)


@cache
def _weights() -> tuple[np.ndarray, ...]:
    return as_weights(json.loads(WEIGHTS.read_text(encoding="utf-8")))
