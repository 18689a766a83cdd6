"""Quality filters: plain functions `(Document) -> str | None`, the reason to drop a document or None, in FineWeb's order.

Thresholds: Gopher (Rae et al. 2021, A1.1 and table A1), C4 (Raffel et al. 2020, 2.2), FineWeb (Penedo et al. 2024, 3.6).
Two rules of C4 are left out on purpose: "at least five sentences" and "every line ends in punctuation". The lead of an
encyclopedia article has two to five sentences below a title line without a full stop, and FineWeb dropped the latter too.
A normal page here is: a title line, a short description line, one to three paragraphs. Two rules are narrowed for it:
repeated n-grams are counted below the headlines, which the first sentence is bound to repeat, and of the lines that speak
of JavaScript only those go that ask to switch it on, not those that describe it.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from crawltalk.core.types import Document

Filter = Callable[[Document], str | None]

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_SCRIPT_PLEA = re.compile(
    r"\b(enable|activate|turn(ed)? on|switch on|requires?|need|without|disabled?|allow)\b[^.]{0,40}javascript"
    r"|javascript\b[^.]{0,40}\b(enabled?|disabled?|required|turned|activated?|not supported|must|needs?)\b",
    re.I,
)
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
TOP_NGRAMS = ((2, 0.20), (3, 0.18), (4, 0.16))
DUPLICATE_NGRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
TERMINAL = (".", "!", "?", "…", '"', "'", "”", "’", "»", ".)", "!)", "?)", ":", ";", "。", "！", "？")
BULLETS = ("•", "‣", "◦", "▪", "●", "∙", "·", "-", "*", "–")


@lru_cache(maxsize=4)
def split_words(text: str) -> tuple[str, ...]:
    """Words, split once for all filters: whitespace-separated, stripped of punctuation at both ends unless that is all."""
    return tuple(word.strip(_PUNCTUATION) or word for word in text.split())


_PUNCTUATION = ".,;:!?\"'()[]{}<>«»“”‘’„…–—-/\\|*_"


@lru_cache(maxsize=4)
def split_lines(text: str) -> tuple[str, ...]:
    """Lines that are not empty."""
    return tuple(line.strip() for line in text.split("\n") if line.strip())


def _duplicates(items: Sequence[str]) -> tuple[float, int]:
    """Share of the items, and number of their characters, that repeat an earlier item."""
    seen: set[str] = set()
    count = characters = 0
    for item in items:
        if item in seen:
            count += 1
            characters += len(item)
        seen.add(item)
    return count / max(1, len(items)), characters


def gopher_repetition(document: Document) -> str | None:
    """Gopher's repetition rules: repeated lines, paragraphs and n-grams (Rae et al. 2021, table A1)."""
    text = document.text
    size = max(1, len(text))
    for name, items in (("paragraphs", re.split(r"\n{2,}", text.strip())), ("lines", split_lines(text))):
        share, characters = _duplicates(items)
        if share > 0.3:
            return f"duplicate {name}"
        if characters / size > 0.2:
            return f"characters in duplicate {name}"
    text = _below_headlines(text)
    size = max(1, len(text))
    words = split_words(text)
    for n, limit in TOP_NGRAMS:
        grams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
        if not grams:
            continue
        # Ties go to the gram that was seen first, as in `Counter.most_common`.
        gram, count = max(grams.items(), key=lambda item: item[1])
        if count > 1 and count * sum(map(len, gram)) / size > limit:
            return f"top {n}-gram"
    if len(set(words)) < len(words):
        for n, limit in DUPLICATE_NGRAMS:
            characters = _duplicate_ngram_characters(words, n)
            if not characters:
                break  # no repeated 5-gram, no repeated 10-gram
            if characters / size > limit:
                return f"duplicate {n}-grams"
    return None


def _below_headlines(text: str) -> str:
    """The text without its first lines that do not end like a sentence (title, description); all of it if none does."""
    lines = split_lines(text)
    first = next((number for number, line in enumerate(lines) if line.endswith(TERMINAL)), 0)
    return "\n".join(lines[first:]) if first else text


def _duplicate_ngram_characters(words: Sequence[str], n: int) -> int:
    """Characters inside repeated n-grams, none counted twice."""
    seen: set[tuple[str, ...]] = set()
    total = place = 0
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    while place < len(grams):
        gram = grams[place]
        if gram in seen:
            total += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return total


def gopher_quality(min_words: int = 50, max_words: int = 100_000) -> Filter:
    """Gopher's quality rules (Rae et al. 2021, A1.1) with the recipe's least number of words."""

    def filter_document(document: Document) -> str | None:  # noqa: PLR0911 - one return per rule
        text = document.text
        words = [word for word in split_words(text) if word not in _PUNCTUATION]
        if not min_words <= len(words) <= max_words:
            return "too few words" if len(words) < min_words else "too many words"
        count = len(words)
        if not 3 <= sum(map(len, words)) / count <= 10:
            return "mean word length"
        if text.count("#") > 0.1 * count or text.count("...") + text.count("…") > 0.1 * count:
            return "symbols per word"
        lines = split_lines(text)
        if sum(line.startswith(BULLETS) for line in lines) > 0.9 * len(lines):
            return "bullet lines"
        if sum(line.endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
            return "lines that end in an ellipsis"
        if sum(any(map(str.isalpha, word)) for word in words) < 0.8 * count:
            return "words without a letter"
        if len(STOP_WORDS.intersection(map(str.lower, words))) < 2:
            return "too few stop words"
        return None

    return filter_document


def c4(document: Document) -> str | None:
    """C4's document rules: no placeholder text, no code (Raffel et al. 2020, 2.2). Its line rules are in `c4_lines`."""
    if "{" in document.text:
        return "curly bracket"
    if "lorem ipsum" in document.text.lower():
        return "lorem ipsum"
    return None


def c4_lines(text: str) -> str:
    """The text without lines that ask for JavaScript or speak of cookies and policies (C4, 2.2)."""
    if not any(word in text.lower() for word in ("javascript", *POLICY)):
        return text
    kept = []
    for line in text.split("\n"):
        low = line.lower()
        if not _SCRIPT_PLEA.search(low) and not any(words in low for words in POLICY):
            kept.append(line)
    return "\n".join(kept)


def fineweb(document: Document) -> str | None:
    """FineWeb's own rules, found by comparing good with bad dumps (Penedo et al. 2024, 3.6)."""
    lines = split_lines(document.text)
    if not lines:
        return "empty"
    if sum(line.endswith(TERMINAL) for line in lines) < 0.12 * len(lines):
        return "lines without punctuation"
    if sum(len(line) <= 30 for line in lines) > 0.67 * len(lines):
        return "short lines"
    if _duplicates(lines)[1] > 0.01 * sum(map(len, lines)):
        return "characters in duplicate lines"
    if document.text.count("\n") > 0.3 * max(1, len(split_words(document.text))):
        return "newlines per word"
    return None


def filters(min_words: int) -> dict[str, Filter]:
    """All filters by name, in order."""
    return {
        "gopher_repetition": gopher_repetition,
        "gopher_quality": gopher_quality(min_words),
        "c4": c4,
        "fineweb": fineweb,
    }
