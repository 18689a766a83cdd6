"""The thresholds of the quality filters in each language.

English has those of Gopher, C4 and FineWeb. Other languages have FineWeb-2's (Penedo et al. 2025),
which follow from statistics of each language; they stand in `languages.json`, made by `scripts/language_rules.py`.

FineWeb-2 counts words by a program for each language. Here Chinese, Japanese, Thai and Korean are counted in
characters, and a word is so many characters of them, on average, as in the words of those programs: a run of n words
becomes one of so many characters. EXPERIMENTS.md has a comparison.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from crawltalk.core.errors import BadRecipe
from crawltalk.data.filters.words import PART, Words, words_of
from crawltalk.recipe import Quality

RULES = Path(__file__).with_name("languages.json")
PARTS = {"zh": 1.7, "yue": 1.7, "wuu": 1.7, "ja": 1.7, "ko": 1.6, "th": 3.9}
"""Characters of a word, without what stands above and below them."""
TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)


class Rules(msgspec.Struct, kw_only=True, frozen=True):
    """The thresholds of one language."""

    duplicate_lines: float
    """Largest share of lines that repeat an earlier one (Gopher)."""
    duplicate_characters: float | None = None
    """Largest share of characters in such lines, and of paragraphs; None: no rule (FineWeb-2)."""
    ngrams: tuple[float, ...]
    """Largest share of characters in the most frequent 2-, 3- and 4-gram, and in repeated 5- to 10-grams (Gopher)."""
    word_length: tuple[float, float]
    """Mean of a document (Gopher)."""
    letter_share: float
    """Least share of words that hold a letter (Gopher)."""
    terminal_lines: float
    """Least share of lines that end in a mark that ends sentences (FineWeb)."""
    newlines: float
    """Most line breaks for a word (FineWeb)."""
    short_lines: float = 1.0
    """Largest share of lines of at most 30 characters (FineWeb)."""
    repeated_characters: float = 0.1
    """Largest share of characters in repeated lines (FineWeb)."""
    stop_words: frozenset[str]
    """A document has two of them (Gopher)."""
    parts: float | None = None
    """Characters of a word, if the language is counted in characters."""
    source: str = ""

    def words(self, text: str) -> Words:
        """The words of a text, or their parts."""
        return words_of(text, self.parts is not None)

    def excess(self, words: Words) -> float:
        """How many entries of `words` are too many, since they are parts of words."""
        return 0.0 if self.parts is None else np.count_nonzero(words.kinds & PART) * (1 - 1 / self.parts)

    def count_stop_words(self, words: Words, text: str) -> int:
        """How many of the stop words a text has."""
        if self.parts is not None:
            return sum(word in text for word in self.stop_words)
        return int(np.isin(_hashes(self.stop_words), words.hashes).sum())

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray, int]:
        """For each n up to the largest: the share that n-grams may have (infinite: no rule) and the blanks that count
        with it; and the largest n of which the most frequent n-gram counts.
        """
        return _limits(self.ngrams, self.parts or 1)


@cache
def _limits(ngrams: tuple[float, ...], parts: float) -> tuple[np.ndarray, np.ndarray, int]:
    sizes = [int(n * parts + 0.5) for n in TOP_NGRAMS + DUPLICATE_NGRAMS]
    shares, blanks = np.full(sizes[-1] + 1, np.inf), np.zeros(sizes[-1] + 1, np.int64)
    for n, size, share in zip(TOP_NGRAMS + DUPLICATE_NGRAMS, sizes, ngrams, strict=True):
        shares[size], blanks[size] = share, n - 1
    return shares, blanks, sizes[len(TOP_NGRAMS) - 1]


@cache
def _hashes(words: frozenset[str]) -> np.ndarray:
    return np.array([hash(word) for word in words]).view(np.uint64)


ENGLISH = Rules(
    duplicate_lines=0.3,
    duplicate_characters=0.2,
    ngrams=(0.20, 0.18, 0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
    word_length=(3, 10),
    letter_share=Quality().letter_share,
    terminal_lines=Quality().terminal_lines,
    newlines=0.3,
    short_lines=0.67,
    repeated_characters=0.01,
    stop_words=frozenset({"the", "be", "to", "of", "and", "that", "have", "with"}),
)


@cache
def all_rules() -> dict[str, Rules]:
    """Language -> its rules."""
    rows = json.loads(RULES.read_text(encoding="utf-8"))
    rules = {code: msgspec.convert(row | {"parts": PARTS.get(code)}, Rules) for code, row in rows.items()}
    return {"en": ENGLISH, **rules}


def check_languages(languages: Sequence[str]) -> None:
    """Raise BadRecipe if a language cannot be judged."""
    from crawltalk.data.filters.language import labels

    for language in languages:
        if language in all_rules():
            continue
        reason = (
            "has no thresholds for its quality (it is written without blanks, or FineWeb-2 has none)"
            if language in labels()
            else "is no language that can be recognized"
        )
        raise BadRecipe(
            f"data.languages: {language!r} {reason}; these can be kept: {', '.join(sorted(all_rules()))}"
        )
