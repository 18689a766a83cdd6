"""Main-text extraction: the page without navigation, banners, sidebars, link lists, comments and footers.

The page is read once into blocks of text (`scan`), each block is described by numbers (`blocks`), and a small
classifier says which are content: a network of one hidden layer. Its weights, and what the words in class
names speak for, stand in `weights.json`; `scripts/train_extractor.py` makes them.
"""

import html as entities
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from crawltalk.data.code_lines import in_lines, in_one_line
from crawltalk.data.extract.blocks import features
from crawltalk.data.extract.json_ld import article_body
from crawltalk.data.extract.scan import (
    ELEMENT,
    END,
    FLAGS,
    LINKED,
    PARENT,
    PRE,
    START,
    WITHIN,
    Scan,
    element_number,
    scan,
    word_hash,
)
from crawltalk.data.read.charset import to_utf8

WEIGHTS = Path(__file__).with_name("weights.json")
BETA_SQUARED = 0.45
"""How much recall counts against precision in what is chosen: too much text is worse than too little."""
FARTHEST = 8
"""Standard deviations: a number farther from its mean counts as so far."""
_LEAST_TEXT = 60
"""Bytes outside links of a text that is more than labels."""
_LONGEST_ITEM = 300
"""Bytes of a cell or item that is decided together with the others."""
_CELLS = 2
"""The first elements of `_items` are cells."""
_LITTLE = 500
"""Characters: in place of a shorter text, one that is not shown is taken if it is twice as long, otherwise five
times.
"""
_LEAST_REVEALED = 250
"""Characters that make a text out of what is not shown: "This site needs JavaScript" does not."""
_INVISIBLE = "\xad\u2060\ufeff"
"""Where a word may be hyphenated or must not be broken."""
_BESIDE_LATIN = re.compile("\u200b(?:(?<=[\0-\u024f]\u200b)|(?=[\0-\u024f]))")
"""Where a line may break. Thai and Khmer part words by it, so it stays there."""
_WIDE = "\u2e80-\u312f\u3190-\u31ff\u3220-\ua4cf\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff9f\U00020000-\U0003ffff"
_CJK_BREAK = re.compile(f"\n(?<=[{_WIDE}]\n)(?=[{_WIDE}])")
"""A line break between two characters of Chinese or Japanese: no blank (CSS Text Module 3, 4.1.3). Korean has
blanks.
"""
_LINE_NUMBERS = re.compile(r"[\d\s]*")


class BlockClassifier(NamedTuple):
    """What `weights.json` holds, as arrays."""

    names: tuple[np.ndarray, np.ndarray]
    """Hashes of words in class names, sorted, and the weight of each as evidence for content."""
    network: tuple[np.ndarray, ...]
    """Mean and inverse scale of the features, weights and biases of the hidden layer and of the output."""

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "BlockClassifier":
        """From the names and lists in the file."""
        scores = sorted((word_hash(word.encode()), score) for word, score in table["names"].items())
        hashes = np.array([hash_ for hash_, _ in scores], np.uint64)
        parts = ("mean", "scale", "hidden", "hidden_bias", "output", "output_bias")
        network = tuple(
            np.array(table[name], np.float32).reshape(np.shape(table[name]) or 1) for name in parts
        )
        network = network[0], 1 / network[1], *network[2:]  # a product is faster than a quotient
        return cls((hashes, np.array([score for _, score in scores], np.float32)), network)

    def probabilities(self, page: Scan) -> np.ndarray:
        """For each block of a page the probability that it is content."""
        return _network(features(page, self.names), *self.network)


@cache
def _classifier() -> BlockClassifier:
    return BlockClassifier.of(json.loads(WEIGHTS.read_text(encoding="utf-8")))


def extract(html: bytes, url: str | None = None) -> str | None:
    """The main text of a page, blocks on lines of their own; None if there is none.

    `url` is accepted for the common signature of extractors and not needed.
    """
    text = extract_utf8(to_utf8(html))
    return text and in_lines(text)


def extract_utf8(html: bytes) -> str | None:
    """The same for a page that is known to be UTF-8, the lines of code in one (`code_lines`).

    A page may hide its article until a script shows it, keep it for readers without scripts, or have it in its
    JSON-LD only. If that is far longer than what is visible, it is the text.
    """
    page = scan(html)
    text = _classified(page)
    size = len(text or "")
    little = size < _LITTLE
    least = max(_LEAST_REVEALED, (2 if little else 5) * size)
    if page.hidden > least:
        other = _classified(scan(html, reveal=True))
        if other and len(other) > least:
            text, little = other, False
    if little:
        other = article_body(html, visible_text)
        if other and len(other) > least:
            text = other
    return text


def _classified(page: Scan) -> str | None:
    return main_text(page, _classifier().probabilities(page)) if len(page.blocks) else None


def main_text(page: Scan, probabilities: np.ndarray) -> str | None:
    """The blocks that are content, if there is more among them than labels and links."""
    kept = page.blocks[chosen(page, probabilities), : FLAGS + 1].tolist()
    if sum(block[END] - block[START] - block[LINKED] for block in kept) <= _LEAST_TEXT:
        return None
    lines: list[str] = []
    for block in kept:
        line = plain(page.text, block)
        if block[FLAGS] & PRE:
            if not _LINE_NUMBERS.fullmatch(line):
                lines.append(in_one_line(line))
        elif line and line not in lines[-1:]:
            lines.append(line)
    return "\n".join(lines) or None


def chosen(page: Scan, probabilities: np.ndarray) -> np.ndarray:
    """For each block whether it is among those that have, together, the best expected F-measure. The cells of a
    table and the items of a list are decided together.

    These are all blocks above some probability, which differs from page to page (Lewis 1995): it is low where
    the classifier is sure of little, such as in tables and on short pages. None are if it takes every block for
    boilerplate.
    """
    shared = _shared(page.blocks, page.elements, probabilities, _items())
    return shared >= _least(page.blocks, shared, np.argsort(-shared, kind="stable"))


@cache
def _items() -> np.ndarray:
    """Elements that are cells, which stand in a row of a table, and those that are items of a list."""
    return np.array([element_number(name) for name in ("td", "th", "li", "dd", "dt")], np.int64)


def visible_text(html: bytes, characters: int = 2000) -> str:
    """The text of all blocks of a page in UTF-8, boilerplate and all, up to about so many characters. Where nothing
    is visible, what is hidden.
    """
    page = scan(html)
    if page.hidden and not len(page.blocks):
        page = scan(html, reveal=True)
    lines: list[str] = []
    for block in page.blocks[:, : FLAGS + 1].tolist():
        lines.append(plain(page.text, block))
        characters -= len(lines[-1])
        if characters < 0:
            break
    return "\n".join(lines)


def plain(text: bytes, block: Sequence[int]) -> str:
    """A block's text, entities resolved. White space is single, but for the lines of `<pre>`."""
    piece = text[block[START] : block[END]].decode("utf-8", "replace")
    code = block[FLAGS] & PRE
    if not code and "&" not in piece and piece.isascii():  # white space is single, as `scan` copied it
        return piece.strip().replace("\n", " ")
    piece = entities.unescape(piece).replace("\0", "")
    if not piece.isascii():
        for mark in _INVISIBLE:
            if mark in piece:
                piece = piece.replace(mark, "")
        if "\u200b" in piece:
            piece = _BESIDE_LATIN.sub("", piece)
        if "\n" in piece and not code:
            piece = _CJK_BREAK.sub("", piece)
    if code:
        return "\n".join(map(str.rstrip, piece.replace("\xa0", " ").split("\n"))).strip("\n")
    return " ".join(piece.split())


@njit(cache=True)
def _network(rows, mean, inverse_scale, hidden, hidden_bias, output, output_bias):
    """(blocks, features) -> probabilities. Not through BLAS, whose threads would wait for each other longer
    than a page takes.
    """
    probabilities = np.empty(len(rows), np.float32)
    units = np.empty(len(hidden_bias), np.float32)
    limit = np.float32(FARTHEST)
    for row in range(len(rows)):
        for unit in range(len(units)):  # a loop: assigning to a slice takes 2 s to compile
            units[unit] = hidden_bias[unit]
        for column in range(len(mean)):
            value = min(limit, max(-limit, (rows[row, column] - mean[column]) * inverse_scale[column]))
            for unit in range(len(units)):
                units[unit] += value * hidden[column, unit]
        total = output_bias[0]
        for unit in range(len(units)):
            total += max(np.float32(0), units[unit]) * output[unit]
        probabilities[row] = 1 / (1 + np.exp(-total))
    return probabilities


@njit(cache=True)
def _shared(blocks, elements, probabilities, items):
    """The probabilities; of all short cells of a table, and items of a list, their mean. Links, such as a menu in
    a table that lays a page out, and text have means of their own.
    """
    size = np.zeros(2 * len(elements))
    content = np.zeros(2 * len(elements))
    group = np.zeros(len(blocks), np.int64)
    for row in range(len(blocks)):
        length = blocks[row, END] - blocks[row, START]
        if length >= _LONGEST_ITEM:
            continue
        for number, item in enumerate(items):
            if blocks[row, ELEMENT] == item:
                owner = elements[blocks[row, WITHIN], PARENT]
                owner = elements[owner, PARENT] if number < _CELLS else owner
                group[row] = 2 * owner + (2 * blocks[row, LINKED] > length)
                size[group[row]] += length
                content[group[row]] += length * probabilities[row]
    shared = np.empty(len(blocks))
    for row in range(len(blocks)):
        shared[row] = content[group[row]] / size[group[row]] if group[row] else probabilities[row]
    return shared


@njit(cache=True)
def _least(blocks, probabilities, order):
    """The least probability of those that are chosen."""
    total = 0.0
    for row in range(len(blocks)):
        total += (blocks[row, END] - blocks[row, START]) * probabilities[row]
    content = size = best = 0.0
    least = 2.0
    if probabilities[order[0]] > 0.5:
        for row in order:
            length = blocks[row, END] - blocks[row, START]
            content += length * probabilities[row]
            size += length
            if content > best * (BETA_SQUARED * total + size):
                best = content / (BETA_SQUARED * total + size)
                least = probabilities[row]
    return least
