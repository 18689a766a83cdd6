"""The data stage's parts against their peers, on the same pages in the same run; one process, one thread each."""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crawltalk.core.errors import MissingInput, UserError

PAGES = 300
"""Pages to measure on; trafilatura and datatrove together take about a tenth of a second for each."""


def data(pages: Path, runs: int) -> list[dict[str, Any]]:
    """Extraction, everything after it, signatures, and whether the filters decide as datatrove's do.

    `pages`: a folder of HTML or WARC files. The embedded crawl's pages are short.
    """
    try:
        from datatrove.data import Document as PeerDocument
        from datatrove.pipeline import filters as peer_filters
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
        from datatrove.pipeline.formatters import PIIFormatter

        from crawltalk.data.by_trafilatura import extract as by_trafilatura
    except ImportError as error:
        raise UserError(f"this benchmark needs its peers ({error}): pip install --group peers") from None
    from crawltalk.core.recipe import Data, Quality
    from crawltalk.core.types import Document
    from crawltalk.data.dedup import band_hashes
    from crawltalk.data.extraction import extract
    from crawltalk.data.pii import replace_pii
    from crawltalk.data.quality import filters

    logging.disable(logging.WARNING)
    html = _pages(pages)
    config, ours = Data(), filters(Quality())
    theirs = {
        "gopher_repetition": peer_filters.GopherRepetitionFilter(),
        "gopher_quality": peer_filters.GopherQualityFilter(),
        "c4": peer_filters.C4QualityFilter(filter_no_terminal_punct=False),
        "fineweb": peer_filters.FineWebQualityFilter(),
    }
    hasher = MinhashDedupSignature(
        tempfile.gettempdir(), MinhashConfig(n_grams=config.ngram, num_buckets=config.bands, hashes_per_bucket=config.rows)
    )
    formatter = PIIFormatter()
    texts = [text for page in html if (text := extract(page))]

    def document(text: str) -> Document:
        fields = {"id": "", "dump": "", "url": "", "date": "", "file_path": "", "language": "en"}
        return Document(text=text, language_score=1.0, token_count=0, **fields)

    def our_rest() -> None:
        for text in texts:
            page = document(text)
            for check in ours.values():
                check(page)
            band_hashes(page.text, config.ngram, config.bands, config.rows)
            replace_pii(page.text)

    def their_rest() -> None:
        for text in texts:
            page = PeerDocument(text=text, id="")
            for check in theirs.values():
                check.filter(page)
            hasher.get_signature(hasher.get_shingles(page.text))
            formatter.format(page.text)

    rows = [
        _compare(
            "data.extract",
            len(html),
            lambda: [extract(page) for page in html],
            lambda: [by_trafilatura(page) for page in html],
            "trafilatura, FineWeb's arguments",
            runs,
        ),
        _compare("data.after_extract", len(texts), our_rest, their_rest, "datatrove", runs),
        _compare(
            "data.dedup",
            len(texts),
            lambda: [band_hashes(text, config.ngram, config.bands, config.rows) for text in texts],
            lambda: [hasher.get_signature(hasher.get_shingles(text)) for text in texts],
            "datatrove, signatures",
            runs,
        ),
    ]
    for name, check in ours.items():
        same = sum(
            (check(document(text)) is None) == (theirs[name].filter(PeerDocument(text=text, id="")) is True)
            for text in texts
        )
        rows.append(figure(f"data.agreement.{name}", "share", [same / len(texts)], None, "datatrove"))
    return rows


def _pages(folder: Path) -> list[bytes]:
    """Bodies of about `PAGES` pages, spread over the folder: HTML files, or the sound pages of WARC files."""
    from crawltalk.data.warc import read_pages

    bodies = [path.read_bytes() for path in sorted(folder.rglob("*.html"))]
    for path in sorted(folder.glob("*.warc*")):
        bodies += [page.body for page in read_pages(path, 10_000_000, lambda warning: None) if not page.fault]
    if not bodies:
        raise MissingInput(f"{folder} holds neither *.html nor *.warc.gz; make a crawl with: crawltalk crawl small")
    return bodies[:: max(1, len(bodies) // PAGES)]


def _compare(
    name: str, count: int, ours: Callable[[], object], peer: Callable[[], object], peer_name: str, runs: int
) -> dict[str, Any]:
    """Pages a second of both, in turns; the first turn of each warms up and does not count."""
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        for side, work in enumerate((ours, peer)):
            began = time.perf_counter()
            work()
            if turn:
                rates[side].append(count / (time.perf_counter() - began))
    return figure(name, "docs/s", rates[0], rates[1], peer_name)


def figure(
    name: str, unit: str, ours: Sequence[float], peer: Sequence[float] | None, peer_name: str | None, cores: int | None = 1
) -> dict[str, Any]:
    """One line of a benchmark: medians over the runs; a ratio above 1 means that we are better."""
    theirs = None if peer is None else statistics.median(peer)
    median = statistics.median(ours)
    return {
        "name": name,
        "unit": unit,
        "ours": round(median, 4),
        "peer": None if theirs is None else round(theirs, 4),
        "peer_name": peer_name,
        "ratio": None if theirs is None else round(median / theirs, 2),
        "runs": len(ours),
        "min": round(min(ours), 4),
        "max": round(max(ours), 4),
        "cores": cores,
    }
