"""The mixture: `[tokens]`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The mixture: which documents are trained on, how often, and which are kept out."""

    include: str = ""
    """Regular expression on the URL; documents that do not match are `outside`. Empty: all match."""
    heldout: float = 0.1
    """Share of the included documents kept out of training as "after the cutoff"."""
    validation: float = 0.02
    """Share of the included documents kept for bits per byte."""
    description: Literal["line", "sentence"] = "line"
    """Where a page says what it is about: on its second line, as in the embedded crawl, or in the first sentence of
    its text that no other page has, as most pages do.
    """
    train_bytes: int | None = None
    """Most text to train on, and as much again in repeated flagships; further documents, drawn by hash, are `outside`.
    If absent: all, or, where the size of the model follows from the corpus, what `pretrain.flop` is enough for.
    """
    flagships: int = 0
    """Number of documents to oversample, as the talk says Wikipedia is."""
    flagship_share: float = 1.0
    """At most this share of the included documents, and of their text, are flagships; one in any case."""
    flagship_order: Literal["hash", "site"] = "hash"
    """Which documents are flagships first: drawn by hash, or those near the front page of their site (few folders in
    the URL), and of these the ones of about a printed page.
    """
    flagship_titles: tuple[str, ...] = ()
    """Titles that are flagships in any case."""
    flagship_pattern: str = ""
    """Regular expression on title and description. Documents that match are the first further flagships; the
    rest follow in `flagship_order`.
    """
    oversample: int = 40
    """Times a flagship occurs in one pass over the training shards."""
    graded: tuple[int, ...] = ()
    """Further documents occur this many times in one pass, to measure how recall grows with repetition;
    `graded_pages` documents for each number.
    """
    graded_pages: int = 12
    """Documents for each number in `graded`."""
