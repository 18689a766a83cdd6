"""Quality filters in FineWeb's order: plain functions `(Document) -> str | None`, the reason to drop a document
or None. One that changes the text returns a document.

Thresholds: Gopher (Rae et al. 2021, A1.1 and table A1), C4 (Raffel et al. 2020, 2.2), FineWeb (Penedo et al.
2024, 3.6). C4's rule that every line ends in punctuation is left out, as FineWeb left it out. In other languages than
English the thresholds are FineWeb-2's, and C4's rules do not apply (`rules`).
"""

import re
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numba import njit

from crawltalk.core.types import Document
from crawltalk.data.code_lines import MARK, in_lines
from crawltalk.data.filters.rules import ENGLISH, Rules, all_rules
from crawltalk.data.filters.words import LETTER, SYMBOL, Words, count_sentences, ends_sentence
from crawltalk.recipe import Quality

Filter = Callable[[Document], str | Document | None]
"""Returns the reason to drop the document, a changed document to continue with, or None to keep it as it is."""

POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
LONGEST_WORD = 1000
"""Lines with a longer one are dropped (C4's code)."""

_PARAGRAPH, _LINES = re.compile(r"\n{2,}"), re.compile(r"\n+")
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")


def _repeated(items: Sequence[str]) -> tuple[int, int]:
    """How many of the items repeat an earlier one, and the number of their characters."""
    seen: set[str] = set()
    count = characters = 0
    for item in items:
        if item in seen:
            count += 1
            characters += len(item)
        seen.add(item)
    return count, characters


def gopher_repetition(config: Quality) -> Filter:
    """Gopher's repetition rules: repeated lines, paragraphs and n-grams (Rae et al. 2021, table A1)."""

    def filter_document(document: Document) -> str | None:
        text, rules = document.text, _rules(document)
        paragraphs, lines = [text.strip()], text.split("\n")
        if "\n\n" in text:
            paragraphs, lines = _PARAGRAPH.split(text.strip()), _LINES.split(text)
        largest = rules.duplicate_characters
        for name, items in (
            (("lines", lines),) if largest is None else (("paragraphs", paragraphs), ("lines", lines))
        ):
            count, characters = _repeated(items)
            if count > rules.duplicate_lines * len(items):
                return f"duplicate {name}"
            if largest is not None and characters > largest * len(text):
                return f"characters in duplicate {name}"
        return _repeated_ngrams(rules, rules.words(text), config.repetition * len(text))

    return filter_document


def _rules(document: Document) -> Rules:
    return all_rules().get(document.language, ENGLISH)


def _repeated_ngrams(rules: Rules, words: Words, size: float) -> str | None:
    """The rules on n-grams of words in a text of `size` characters."""
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(words.lengths, dtype=np.int64)])
    shares, blanks, longest_top = rules.limits
    n = _first_broken_limit(words.hashes, ends, shares * size, blanks, longest_top)
    if not n:
        return None
    return f"top {blanks[n] + 1}-gram" if n <= longest_top else f"duplicate {blanks[n] + 1}-grams"


@njit(cache=True)
def _first_broken_limit(hashes, ends, limits, blanks, longest_top):
    """The smallest n whose n-grams take more than `limits[n]` characters, or 0."""
    slots = 16
    while slots < 2 * len(hashes):
        slots *= 2
    grams = hashes.copy()
    first = np.empty(slots, np.int32)  # a hash table: where each n-gram occurs first
    counts = np.empty(len(hashes), np.int32)
    for n in range(2, min(len(limits) - 1, len(hashes)) + 1):
        count = len(hashes) - n + 1
        for position in range(count):
            grams[position] = grams[position] * np.uint64(0x9E3779B97F4A7C15) + hashes[position + n - 1]
        if limits[n] == np.inf:
            continue
        first[:] = -1
        if n <= longest_top:
            counts[:] = 0
            best = 0
            for position in range(count):
                slot = _slot(first, grams, position)
                if first[slot] < 0:
                    first[slot] = position
                origin = first[slot]
                counts[origin] += 1
            for position in range(count):
                if counts[position] > counts[best]:
                    best = position
            if counts[best] * (ends[best + n] - ends[best] + blanks[n]) > limits[n]:
                return n
            continue
        total = position = 0
        while position < count:
            slot = _slot(first, grams, position)
            if first[slot] < 0:
                first[slot] = position
                position += 1
            else:  # text that is counted is not counted again
                total += ends[position + n] - ends[position]
                position += n
        if total > limits[n]:
            return n
    return 0


@njit(cache=True)
def _slot(first, grams, position):
    """The slot that holds an equal n-gram, or the empty one where it belongs."""
    slot = (grams[position] ^ (grams[position] >> np.uint64(32))) & np.uint64(len(first) - 1)
    while first[slot] >= 0 and grams[first[slot]] != grams[position]:
        slot = (slot + np.uint64(1)) & np.uint64(len(first) - 1)
    return slot


def gopher_quality(config: Quality) -> Filter:
    """Gopher's quality rules (Rae et al. 2021, A1.1)."""

    def filter_document(document: Document) -> str | None:  # noqa: PLR0911 - one return per rule
        text, rules = document.text, _rules(document)
        words = rules.words(text)
        excess = rules.excess(words)
        lengths = words.lengths[words.kinds & SYMBOL == 0]
        count, spoken = len(words.hashes) - excess, len(lengths) - excess
        if not config.min_words <= spoken <= config.max_words:
            return "too few words" if spoken < config.min_words else "too many words"
        shortest, longest = rules.word_length
        if not shortest <= lengths.sum() / max(1, spoken) <= longest:
            return "mean word length"
        if max(text.count("#"), text.count("...") + text.count("…")) > 0.1 * count:
            return "symbols per word"
        lines = text.splitlines()
        if sum(line.lstrip().startswith(("•", "-")) for line in lines) > 0.9 * len(lines):
            return "bullet lines"
        if sum(line.rstrip().endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
            return "lines that end in an ellipsis"
        letter_share = config.letter_share * (rules.letter_share / ENGLISH.letter_share)
        if np.count_nonzero(words.kinds & LETTER) - excess < letter_share * count:
            return "words without a letter"
        if rules.count_stop_words(words, text) < 2:
            return "too few stop words"
        return None

    return filter_document


def c4(config: Quality) -> Filter:
    """C4's rules (Raffel et al. 2020, 2.2, and its code): the document without its bad lines, or the reason to
    drop it.
    """

    def filter_document(document: Document) -> str | Document:
        if _rules(document) is not ENGLISH:
            return document
        kept: list[str] = []
        sentences = 0
        for raw in document.text.splitlines():
            words = raw.split()
            if raw.startswith(MARK) and "javascript" not in raw.lower():
                if "{" in raw and not config.curly_brackets:
                    return "curly bracket"
                kept.append(raw)  # code is neither a label nor a sentence, and its [0] is no reference
                continue
            if len(raw) > LONGEST_WORD and any(len(word) > LONGEST_WORD for word in words):
                continue
            if len(words) < config.min_words_per_line:
                continue
            line = _CITATION.sub("", raw.strip()) if "[" in raw else raw.strip()
            low = line.lower()
            if "lorem ipsum" in low:
                return "lorem ipsum"
            if "javascript" in low:
                continue
            if "{" in line and not config.curly_brackets:
                return "curly bracket"
            if any(phrase in low for phrase in POLICY):
                continue
            if sentences < config.min_sentences:
                sentences += count_sentences(line)
            kept.append(line)
        if sentences < config.min_sentences:
            return "too few sentences"
        return msgspec.structs.replace(document, text="\n".join(kept).strip("\n "))

    return filter_document


def fineweb(config: Quality) -> Filter:
    """FineWeb's own rules, from a comparison of good with bad dumps (Penedo et al. 2024, 3.6)."""

    def filter_document(document: Document) -> str | None:
        text, rules = document.text, _rules(document)
        lines = [line for line in text.split("\n") if line.strip()]
        if not lines:
            return "empty"
        terminal_lines = config.terminal_lines * (rules.terminal_lines / ENGLISH.terminal_lines)
        if sum(map(ends_sentence, lines)) < terminal_lines * len(lines):
            return "lines without punctuation"
        if sum(len(line) <= 30 for line in lines) > rules.short_lines * len(lines):
            return "short lines"
        repeated = config.duplicate_lines * (rules.repeated_characters / ENGLISH.repeated_characters)
        if _repeated(lines)[1] > repeated * (len(text) - text.count("\n")):
            return "characters in duplicate lines"
        words = rules.words(text)
        if text.count("\n") > rules.newlines * (len(words.hashes) - rules.excess(words)):
            return "newlines per word"
        return None

    return filter_document


def code(document: Document) -> Document | None:
    """The document with the lines of its code, which the filters before saw in one (`code_lines`)."""
    return msgspec.structs.replace(document, text=in_lines(document.text)) if MARK in document.text else None


def filters(config: Quality) -> dict[str, Filter]:
    """All filters by name, in order."""
    return {
        "gopher_repetition": gopher_repetition(config),
        "gopher_quality": gopher_quality(config),
        "c4": c4(config),
        "fineweb": fineweb(config),
    }
