"""The data stage against its peers, on the same pages in the same run: its parts on one process, the whole on
two.
"""

import json as jsonlib
import logging
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from crawltalk.core.errors import MissingInput, UserError
from crawltalk.crawl.records import gzip_record
from crawltalk.pipeline import STAGES
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.execute import build
from crawltalk.run.folder import RunFolder
from crawltalk.run.manifest import Manifest

PAGES = 300
"""Pages to measure parts on; trafilatura and datatrove together take about a tenth of a second for each."""

SCALING = 3
"""Times the pages are read to compare one process with two, so that starting up weighs little."""


def data(pages: str | Path, runs: int) -> Iterator[dict[str, Any]]:
    """All comparisons, one after the other. `pages`: a folder of HTML or WARC files; the embedded crawl's
    pages are short.

    The extractors are judged on the gold sets in the folder (`crawltalk.data.extract.gold`).
    """
    pages = Path(pages)
    with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as name:
        yield from parts(pages, runs)
        yield from _gold(pages)
        yield from _memory(pages, Path(name))
        yield from _whole(pages, runs, Path(name))


def parts(pages: str | Path, runs: int) -> list[dict[str, Any]]:
    """Extraction, everything after it, signatures, and whether the filters decide as datatrove's do."""
    try:
        from datatrove.data import Document as PeerDocument
        from datatrove.pipeline import filters as peer_filters
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
        from datatrove.pipeline.formatters import PIIFormatter
        from rensa import RMinHash  # pyrefly: ignore[missing-module-attribute]

        from crawltalk.data.extract.by_trafilatura import extract as by_trafilatura
    except ImportError as error:
        raise UserError(f"this benchmark needs its peers ({error}): pip install --group peers") from None
    from crawltalk.core.types import Document
    from crawltalk.data.dedup import band_hashes
    from crawltalk.data.extract.main_text import extract
    from crawltalk.data.filters.pii import replace_pii
    from crawltalk.data.filters.quality import filters
    from crawltalk.recipe import Data, Quality

    logging.disable(logging.WARNING)
    html = _pages(Path(pages))
    config, ours = Data(), filters(Quality())
    theirs = {
        "gopher_repetition": peer_filters.GopherRepetitionFilter(),
        "gopher_quality": peer_filters.GopherQualityFilter(),
        "c4": peer_filters.C4QualityFilter(filter_no_terminal_punct=False),
        "fineweb": peer_filters.FineWebQualityFilter(),
    }
    hasher = MinhashDedupSignature(
        tempfile.gettempdir(),
        MinhashConfig(n_grams=config.ngram, num_buckets=config.bands, hashes_per_bucket=config.rows),
    )
    formatter = PIIFormatter()
    texts = [text for page in html if (text := extract(page))]

    def document(text: str) -> Document:
        fields = {"id": "", "dump": "", "url": "", "date": "", "file_path": "", "language": "en"}
        return Document(text=text, language_score=1.0, token_count=0, **fields)

    def rensa_bands(text: str) -> list[int]:
        words = text.lower().split()
        mine = RMinHash(num_perm=config.bands * config.rows, seed=1)
        mine.update(
            [
                " ".join(words[start : start + config.ngram])
                for start in range(max(1, len(words) - config.ngram + 1))
            ]
        )
        return mine.digest()

    def our_rest() -> None:
        for text in texts:
            page = document(text)
            for check in ours.values():
                result = check(page)
                page = result if isinstance(result, Document) else page
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
        _compare(
            "data.dedup",
            len(texts),
            lambda: [band_hashes(text, config.ngram, config.bands, config.rows) for text in texts],
            lambda: [rensa_bands(text) for text in texts],
            "rensa, signatures",
            runs,
        ),
    ]
    for name, check in ours.items():
        same = sum(
            (not isinstance(check(document(text)), str))
            == (theirs[name].filter(PeerDocument(text=text, id="")) is True)
            for text in texts
        )
        rows.append(figure(f"data.agreement.{name}", "share", [same / len(texts)], None, "datatrove"))
    return rows


def _gold(folder: Path) -> list[dict[str, Any]]:
    """F1 of the extractors on each gold set that lies in the folder; pages that taught ours are left out."""
    from crawltalk.data.extract.by_trafilatura import extract as by_trafilatura
    from crawltalk.data.extract.gold import gold_sets
    from crawltalk.data.extract.main_text import extract

    return [
        figure(
            "data.extract_f1",
            "F1",
            [known.score(extract)],
            [known.score(by_trafilatura)],
            f"trafilatura, FineWeb's arguments, {known.name} ({len(known.pages)} pages)",
        )
        for known in gold_sets(folder)
    ]


def _whole(pages: Path, runs: int, folder: Path) -> list[dict[str, Any]]:
    """WARC to final Parquet: ours on two processes, on one, and datatrove's executor with two tasks; the same
    blocklist.
    """
    warcs, many, blocklist = folder / "warcs", folder / "many", folder / "blocklist"
    bodies = _bodies(pages)
    count, many_count = _write_warcs(bodies, warcs), _write_warcs(bodies * SCALING, many)
    with tarfile.open(
        Path(str(files("datatrove"))) / "assets" / "url_filterblacklistsv0_3_0.tar.gz"
    ) as archive:
        archive.extractall(blocklist, filter="data")
    rates: dict[str, list[float]] = {"ours": [], "two": [], "one": [], "peer": []}
    for turn in range(runs):
        for side, workers, source, size in (
            ("ours", 2, warcs, count),
            ("two", 2, many, many_count),
            ("one", 1, many, many_count),
        ):
            began = time.perf_counter()
            _run_ours(
                folder / f"{side}{turn}", f"{source}/*.warc.gz", workers, {"data.blocklist": str(blocklist)}
            )
            rates[side].append(size / (time.perf_counter() - began))
        command = [
            sys.executable,
            "-m",
            "crawltalk.bench.datatrove",
            str(warcs),
            str(folder / f"peer{turn}"),
            "2",
        ]
        began = time.perf_counter()
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(
                f"datatrove failed ({last}); its packages are installed with: pip install --group peers"
            )
        rates["peer"].append(count / (time.perf_counter() - began))
    return [
        figure(
            "data.end_to_end",
            "docs/s",
            rates["ours"],
            rates["peer"],
            f"datatrove, 2 tasks, {count:,} pages",
            2,
        ),
        figure(
            "data.scaling_2",
            "docs/s",
            rates["two"],
            rates["one"],
            f"ours on one process, {many_count:,} pages",
            2,
        ),
    ]


def _memory(pages: Path, folder: Path) -> list[dict[str, Any]]:
    """Peak memory of the stage's largest process on ten times the documents; a ratio of 1 would be ten times
    the memory.
    """
    from crawltalk.data.extract.main_text import extract

    texts = [text for body in _bodies(pages)[:1000] if (text := extract(body))]
    peaks = []
    for times in (2, 20):
        path = folder / f"texts-{times}.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for copy in range(times):
                for number, text in enumerate(texts):
                    row = {
                        "text": f"{text}\nCopy {copy} of {number}.",
                        "url": f"http://{copy}.example/{number}",
                        "id": f"{copy}-{number}",
                    }
                    file.write(jsonlib.dumps(row) + "\n")
        peaks.append(_peak(folder / f"memory{times}", path))
    return [
        figure(
            "data.memory_10x",
            "MB",
            [peaks[1]],
            [peaks[0]],
            f"itself, {2 * len(texts):,} documents instead of ten times",
        )
    ]


def _peak(out: Path, source: Path) -> float:
    """MB of the stage's largest process. A process of its own starts it: a child inherits the peak of the one
    it is forked from.
    """
    command = [sys.executable, "-m", "crawltalk"]
    flags = ["--out", str(out), "--crawl.source", str(source), "--machine.workers", "1"]
    for verb in ("crawl", "data"):
        subprocess.run([*command, verb, "gpt2", *flags], check=True, capture_output=True)
    manifest = RunFolder(out).manifest("data")
    assert manifest is not None
    return manifest.peak_memory_bytes / 1e6


def _run_ours(out: Path, source: str, workers: int, settings: dict[str, str]) -> Manifest:
    flags = {"crawl.source": source, "machine.workers": str(workers), **settings}
    run = RunFolder(out)
    build(run, STAGES, ["crawl", "data"], load_recipe("gpt2", (), flags), lambda event: None)
    manifest = run.manifest("data")
    assert manifest is not None
    return manifest


def _write_warcs(bodies: list[bytes], folder: Path, count: int = 4) -> int:
    """Write the pages as responses, spread over a few files. Returns the number of pages."""
    folder.mkdir()
    order = list(range(len(bodies)))
    random.Random(0).shuffle(order)
    for number in range(count):
        with open(folder / f"pages-{number}.warc.gz", "wb") as file:
            for index in order[number::count]:
                block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + bodies[index]
                head = {
                    "WARC-Type": "response",
                    "WARC-Record-ID": f"<urn:uuid:{uuid.UUID(int=index)}>",
                    "WARC-Target-URI": f"https://site-{index % 97}.example/{index}.html",
                    "WARC-Date": "2024-05-01T00:00:00Z",
                    "WARC-Identified-Payload-Type": "text/html",
                    "Content-Type": "application/http; msgtype=response",
                    "Content-Length": str(len(block)),
                }
                file.write(gzip_record(head, block))
    return len(bodies)


def _bodies(folder: Path) -> list[bytes]:
    """All pages: HTML files, or the valid pages of WARC files."""
    from crawltalk.data.read.warc import read_pages

    bodies = [path.read_bytes() for path in sorted(folder.rglob("*.html"))]
    for path in sorted(folder.glob("*.warc*")):
        bodies += [page.body for page in read_pages(path, 10_000_000, lambda warning: None) if not page.fault]
    if not bodies:
        raise MissingInput(
            f"{folder} holds neither *.html nor *.warc.gz; make a crawl with: crawltalk crawl small"
        )
    return bodies


def _pages(folder: Path) -> list[bytes]:
    """About `PAGES` pages, spread over the folder."""
    bodies = _bodies(folder)
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


LESS_IS_BETTER = ("s", "CPU s", "ms", "us", "MB", "bytes/token")
"""Units in which a smaller figure is better."""


def figure(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float] | None,
    peer_name: str | None,
    cores: int | None = 1,
) -> dict[str, Any]:
    """One line of a benchmark: medians over the runs; a ratio above 1 means that we are better, also
    for units of `LESS_IS_BETTER`.
    """
    theirs = None if peer is None else statistics.median(peer)
    median = statistics.median(ours)
    return {
        "name": name,
        "unit": unit,
        "ours": round(median, 4),
        "peer": None if theirs is None else round(theirs, 4),
        "peer_name": peer_name,
        "ratio": None
        if not theirs or not median
        else round(theirs / median if unit in LESS_IS_BETTER else median / theirs, 2),
        "runs": len(ours),
        "min": round(min(ours), 4),
        "max": round(max(ours), 4),
        "cores": cores,
    }
