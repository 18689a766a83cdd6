"""Main text by trafilatura with FineWeb's arguments (`data.extractor = "trafilatura"`), if it is installed:
60 times slower.

Its memory of repeated passages is emptied before each page: what is found on a page depends on no other page.
"""

import trafilatura
from trafilatura.deduplication import LRU_TEST


def extract(html: bytes) -> str | None:
    """The main text of a page, or None."""
    LRU_TEST.clear()
    return trafilatura.extract(html, favor_precision=True, include_comments=False, deduplicate=True) or None
