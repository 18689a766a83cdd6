"""One input file -> one part: its documents with their MinHash bands, its dropped pages, its counts."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from crawltalk.core.documents import write_documents, write_table
from crawltalk.core.errors import BadRecipe
from crawltalk.core.recipe import Data
from crawltalk.core.stage import load_object, write_atomically
from crawltalk.core.types import Document
from crawltalk.data.dedup import band_hashes
from crawltalk.data.funnel import REMOVED_COLUMNS, Removed, Tally
from crawltalk.data.inputs import dump_name, read_input
from crawltalk.data.language import identify
from crawltalk.data.quality import filters
from crawltalk.data.urls import blocked_url, read_blocklist
from crawltalk.data.warc import Page, decode, too_deep

Extractor = Callable[[bytes], str | None]
EXTRACTORS = {
    "crawltalk": "crawltalk.data.extraction:extract",
    "resiliparse": "crawltalk.data.by_resiliparse:extract",
    "trafilatura": "crawltalk.data.by_trafilatura:extract",
}
"""Main-text extractors by name."""


class Task(msgspec.Struct, kw_only=True):
    """One input file to refine."""

    number: int
    path: Path
    parts: Path
    """Folder for the results."""
    config: Data

    def part(self, name: str) -> Path:
        """A file of this task's part: documents.parquet, removed.parquet, bands.npy or tally.json (written last)."""
        return self.parts / f"{self.number:05d}.{name}"


def load_extractor(name: str) -> Extractor:
    """A built-in extractor, or the user's `"my_package.module:name"`. Raises BadRecipe if there is none."""
    try:
        return load_object(EXTRACTORS.get(name, name))
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(EXTRACTORS)
        raise BadRecipe(f"data.extractor = {name!r} is neither {known} nor a module:name that loads ({error})") from None


def refine(task: Task, report: Callable[[int], Any] = lambda pages: None) -> None:
    """Write the part of one file; nothing if it is there already. `report` hears the number of pages now and then."""
    if task.part("tally.json").exists():
        return
    config = task.config
    task.part("working").touch()  # names the culprit if this process dies
    extractor, blocklist = load_extractor(config.extractor), read_blocklist(config.blocklist)
    checks = filters(config.quality)
    tally, documents, removed, bands = Tally(), [], [], []

    def drop(page: Page, step: str, reason: str, detail: str = "", text: str | None = None) -> None:
        row = Removed(
            id=page.id,
            url=page.url,
            dump=dump_name(task.path),
            file_path=task.path.name,
            step=step,
            reason=reason,
            detail=detail,
            text=text,
        )
        removed.append(row)
        tally.drop(row)

    for page in read_input(task.path, config.max_page_bytes, tally.warnings.append):
        size = len(page.body) or len((page.text or "").encode("utf-8", "replace"))
        tally.pages += 1
        tally.bytes += size
        if tally.pages % 200 == 0:
            report(tally.pages)
        if page.fault:
            drop(page, "broken", page.fault)
            continue
        html = decode(page.body, page.charset) if page.text is None else ""
        if too_deep(html):
            drop(page, "broken", "elements nested too deeply")
            continue
        tally.keep("broken", size)
        if blocked := blocked_url(page.url, blocklist):
            drop(page, "url", blocked)
            continue
        tally.keep("url", size)
        text = extractor(html.encode("utf-8", "replace")) if page.text is None else page.text
        if not text or not text.strip():
            drop(page, "extraction", "no main text")
            continue
        tally.keep("extraction", len(text))
        language, score = identify(text)
        tally.languages[language] = tally.languages.get(language, 0) + 1
        if language not in config.languages or score <= config.language_threshold:
            unsure = language in config.languages
            drop(page, "language", f"{language} unsure" if unsure else language, f"{score:.2f}", text)
            continue
        tally.keep("language", len(text))
        document = Document(
            id=page.id,
            url=page.url,
            text=text,
            dump=dump_name(task.path),
            date=page.date,
            file_path=task.path.name,
            language=language,
            language_score=round(score, 4),
            token_count=0,
        )
        failed = next(((name, reason) for name, check in checks.items() if (reason := check(document))), None)
        if failed:
            drop(page, "quality", ": ".join(failed), text=text)
            continue
        tally.keep("quality", len(document.text))
        documents.append(document)
        bands.append(band_hashes(document.text, config.ngram, config.bands, config.rows))

    write_documents(task.part("documents.parquet"), documents)
    write_table(task.part("removed.parquet"), removed, REMOVED_COLUMNS)
    buffer = io.BytesIO()
    np.save(buffer, np.array(bands, np.uint64).reshape(len(bands), config.bands), allow_pickle=False)
    write_atomically(task.part("bands.npy"), buffer.getvalue())
    write_atomically(task.part("tally.json"), msgspec.json.encode(tally))
    task.part("working").unlink()
