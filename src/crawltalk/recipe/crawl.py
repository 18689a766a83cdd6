"""Where the raw pages come from: `[crawl]`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Crawl:
    """Where the raw pages come from."""

    source: str = "sample"
    """`sample`: the embedded crawl with known ground truth; otherwise a path, glob or URL (https, s3, ...) of
    WARC, WET, ARC, WACZ, JSON, CSV or Parquet files, of HTML and text files, or of archives (ZIP, tar) of such; a
    folder that holds these, or a list of them (`*.paths`, `*.paths.gz`, as Common Crawl has them). Compressed ones
    (gzip, zstd, bzip2, xz) are read, too.
    """
    files: int | None = None
    """At most this many files of the source."""
    articles: int | None = None
    """Of the sample: at most this many articles per language (all 10,033 / 9,955 / 6,239 if absent)."""
    topics: tuple[str, ...] = ()
    """Of the sample: only these topics of English articles, such as "Physical sciences" (all if empty)."""
    languages: tuple[str, ...] = ("en", "fr", "es")
    """Of the sample: languages to render."""
