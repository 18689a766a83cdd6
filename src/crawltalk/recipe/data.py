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
    curly_brackets: bool = False
    """Keep documents with a curly bracket. C4 and FineWeb drop them, and all pages about code with them."""
    duplicate_lines: float = 0.01
    """Largest share of the characters in lines that repeat an earlier one (FineWeb)."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """From WARC to clean documents, in FineWeb's order (Penedo et al. 2024, section 3)."""

    text_column: str | None = None
    """The column with the texts in JSON, CSV and Parquet files; `a.b` is the field b of an object a. If absent: `text`,
    else the only column that is known to hold texts or pages, such as `content` or `html`.
    """
    blocklist: str | None = None
    """Blocked domains, URLs and documents in addition to the small built-in list: a file with one per line, or a folder
    in UT1's layout. A URL blocks all below it; a document's id in angle brackets, as WARC writes it, blocks one page.
    """
    early_language: float = 0.0
    """Drop a page before extraction if no kept language has a higher probability than this in its visible
    text. 0: no early check. It saves time with a slow extractor only; where pages mix languages, 0.2 loses 1 %
    of what the later check keeps (EXPERIMENTS.md).
    """
    headlines: bool = False
    """Put a page's headline, or its title without the site's name, before a text that begins otherwise."""
    extractor: str = "crawltalk"
    """Main-text extractor: crawltalk, resiliparse, trafilatura (if installed), or "my_package.module:name"."""
    languages: tuple[str, ...] = ("en",)
    """ISO 639-1 codes to keep. Other languages than English are judged by FineWeb-2's thresholds; the thresholds in
    `quality` loosen or tighten them as they do those of English, and C4's are for English only.
    """
    language_threshold: float = 0.65
    """Least probability of the language (FineWeb 3.2). One for all: FineWeb-2's thresholds are for another model."""
    quality: Quality = field(default_factory=Quality)
    filters: tuple[str, ...] = ()
    """Further filters of your own: "my_package.module:name", (Document) -> the reason to drop it or None."""
    classifier: str | None = None
    """Your own quality classifier, made by `crawltalk classifier`. Documents that score below the threshold
    are dropped.
    """
    classifier_threshold: float = 0.5
    benchmarks: tuple[str, ...] = ()
    """Files of evaluation sets (JSONL, JSON, Parquet, text). Documents that share an n-gram with them are
    dropped.
    """
    benchmark_ngram: int = 13
    """Words of such an n-gram (Brown et al. 2020, appendix C)."""
    max_page_bytes: int = 10_000_000
    """Pages with a longer body are dropped before they are parsed."""
    page_seconds: float = 30.0
    """CPU seconds after which a page is given up: a guard against hangs, not a filter."""
    ngram: int = 5
    """Words in a MinHash shingle (FineWeb 3.4)."""
    bands: int = 14
    rows: int = 8
    """14 bands of 8 rows: a pair with similarity s is found with probability 1 - (1 - s^8)^14."""
    keep: str = "longest"
    """Which document of a cluster of near-duplicates is kept: longest, newest, or classifier (the one with the
    highest score).
    """
    earlier: tuple[str, ...] = ()
    """Earlier runs: documents that are near-duplicates of theirs are dropped."""
    site_lines: float = 0.0
    """Drop lines that at least this share of the pages of their host have, and at least five: navigation, footers,
    banners. 0: off. For this the files are read twice.
    """
    substrings: int = 0
    """Cut out later occurrences of any text of at least this many bytes (Lee et al. 2022). 0: off. Needs memory
    of 10 x the corpus.
    """
