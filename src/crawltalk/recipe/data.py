"""From WARC to clean documents: `[data]`."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality thresholds that depend on the kind of page; FineWeb's by default (section 3.6). The others are
    in `data.quality`.
    """

    min_words: int = 50
    """Fewest words in a document (Gopher, Rae et al. 2021, A1.1)."""
    max_words: int = 100_000
    letter_share: float = 0.8
    """Least share of words that hold a letter, marks counted as words (Gopher)."""
    repetition: float = 1.0
    """Factor on the limits for repeated n-grams (Gopher): short pages repeat their subject more often."""
    terminal_lines: float = 0.12
    """Least share of lines that end in a mark that ends sentences (FineWeb)."""
    min_sentences: int = 5
    """Fewest sentences in a document (C4, Raffel et al. 2020, 2.2)."""
    min_words_per_line: int = 3
    """Lines with fewer are dropped (C4). 0 keeps titles of one word."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """From WARC to clean documents, in FineWeb's order (Penedo et al. 2024, section 3)."""

    blocklist: str | None = None
    """Blocked domains and URLs besides the small built-in list: a file with one a line, or a folder in UT1's
    form.
    """
    early_language: float = 0.0
    """Pages whose visible text has a lower probability of the languages to keep are not extracted at all; 0:
    no early check. Pays with a slow extractor only; 0.2 loses 1 % of what the later check keeps where pages
    mix languages (EXPERIMENTS.md).
    """
    extractor: str = "crawltalk"
    """Main-text extractor: crawltalk, resiliparse, trafilatura (if installed), or "my_package.module:name".
    """
    languages: tuple[str, ...] = ("en",)
    """ISO 639-1 codes to keep."""
    language_threshold: float = 0.65
    """Least probability of the language (FineWeb 3.2)."""
    quality: Quality = field(default_factory=Quality)
    filters: tuple[str, ...] = ()
    """Further filters of your own: "my_package.module:name", (Document) -> the reason to drop it or None."""
    classifier: str | None = None
    """A quality classifier of your own, made by `crawltalk classifier`: documents below the threshold are
    dropped.
    """
    classifier_threshold: float = 0.5
    benchmarks: tuple[str, ...] = ()
    """Files of evaluation sets (JSONL, JSON, Parquet, text): documents that hold an n-gram of theirs are
    dropped.
    """
    benchmark_ngram: int = 13
    """Words of such an n-gram (Brown et al. 2020, appendix C)."""
    max_page_bytes: int = 10_000_000
    """Pages with a longer body are set aside unparsed."""
    page_seconds: float = 30.0
    """CPU seconds after which a page is given up: a guard against hangs, no filter."""
    ngram: int = 5
    """Words in a MinHash shingle (FineWeb 3.4)."""
    bands: int = 14
    rows: int = 8
    """14 bands of 8 rows: a pair with similarity s is found with probability 1 - (1 - s^8)^14."""
    keep: str = "longest"
    """Which document of a cluster of near-duplicates stays: longest, newest, or classifier (the highest
    score).
    """
    earlier: tuple[str, ...] = ()
    """Earlier runs: documents that are near-duplicates of theirs are dropped."""
    site_lines: int = 0
    """Lines that occur in so many documents of one host are dropped as boilerplate; 0: none (CCNet, Wenzek et
    al. 2020).
    """
    substrings: int = 0
    """Later occurrences of any text of so many bytes are cut out (Lee et al. 2022); 0: none. Needs memory of
    10 x the corpus.
    """
