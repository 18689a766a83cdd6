"""One input file -> its parts: every page goes through FineWeb's steps up to deduplication, and keeps its
reason if it goes.

A page that hangs or kills its process is set aside alone: the process notes which page it is at, kernel
timers end it if a page takes too long, and the next process that takes up the file, on whatever machine,
reads the note.
"""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from time import thread_time
from typing import Any

import msgspec
import numpy as np

from crawltalk.core.errors import BadRecipe, UserError
from crawltalk.core.files import write_atomically
from crawltalk.core.objects import load_object
from crawltalk.core.types import Document
from crawltalk.data.dedup import band_hashes
from crawltalk.data.extract.main_text import extract, extract_text, visible_text
from crawltalk.data.filters.language import identify, likely
from crawltalk.data.filters.quality import Filter, filters, gopher_repetition
from crawltalk.data.filters.urls import blocked_url, host_of
from crawltalk.data.parts import PART_PAGES, Done, Part, Task
from crawltalk.data.pii import replace_pii
from crawltalk.data.read.inputs import dump_name, local_copy, read_input
from crawltalk.data.read.warc import Page, decode, too_deep
from crawltalk.data.record.funnel import Removed
from crawltalk.recipe import Data, Quality
from crawltalk.run.processes import limit_time

Extractor = Callable[[bytes], str | None]
EXTRACTORS = {
    "crawltalk": "crawltalk.data.extract.main_text:extract",
    "resiliparse": "crawltalk.data.extract.by_resiliparse:extract",
    "trafilatura": "crawltalk.data.extract.by_trafilatura:extract",
}
"""Main-text extractors by name."""
WALL = 10
"""Times the limit of CPU seconds after which a page that waits for something is given up."""


def load_extractor(name: str) -> Extractor:
    """A built-in extractor, or the user's `"my_package.module:name"`. Raises BadRecipe if there is none."""
    try:
        return load_object(EXTRACTORS.get(name, name))
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(EXTRACTORS)
        raise BadRecipe(
            f"data.extractor = {name!r} is neither {known} nor a module:name that loads ({error})"
        ) from None


def load_filters(config: Data) -> dict[str, Filter]:
    """All filters on documents by name, in order: FineWeb's, then those that the recipe adds. Raises
    BadRecipe.
    """
    found = filters(config.quality)
    for name in config.filters:
        try:
            found[name] = load_object(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise BadRecipe(f"data.filters: {name!r} is no module:name that loads ({error})") from None
    if config.classifier is not None:
        from crawltalk.data.filters import classifier

        found["classifier"] = classifier.filter_by(config.classifier, config.classifier_threshold)
    if config.benchmarks:
        from crawltalk.data.filters import decontamination

        hashes = decontamination.read_benchmarks(config.benchmarks, config.benchmark_ngram)
        found["decontamination"] = decontamination.filter_by(hashes, config.benchmark_ngram)
    return found


def load_rank(config: Data) -> Callable[[Document], float]:
    """What makes a document the one of its cluster that stays: the highest rank. Raises BadRecipe."""
    if config.keep == "longest":
        return lambda document: len(document.text)
    if config.keep == "newest":
        return lambda document: float("".join(filter(str.isdigit, document.date))[:14].ljust(14, "0"))
    if config.keep == "classifier" and config.classifier is not None:
        from crawltalk.data.filters.classifier import Classifier

        model = Classifier.load(config.classifier)
        return lambda document: model.score(document.text)
    raise BadRecipe(
        f"data.keep = {config.keep!r} is neither longest, newest nor classifier (with data.classifier)"
    )


def warm_up(extractor: Extractor = extract) -> None:
    """Load what is loaded at first use (models, compiled code): it should not count as the first page's time."""
    extractor(b"<p>A page.</p>")
    identify("A page.")
    band_hashes("A page.")
    gopher_repetition(Quality())(
        Document(text="A page.", **dict.fromkeys(_TEXTS, ""), language_score=1.0, token_count=0)
    )


_TEXTS = ("id", "dump", "url", "date", "file_path", "language")


class Guard:
    """Notes which page is being worked at, and knows at which one earlier processes died.

    The first death may be anybody's fault, so the page gets a second chance; after the second death it is set
    aside.
    """

    def __init__(self, task: Task, ended: str) -> None:
        self.task, self.limit = task, task.config.page_seconds
        deaths = task.file("deaths")
        state = (
            msgspec.json.decode(deaths.read_bytes())
            if deaths.exists()
            else {"last": 0, "poison": {}, "stop": 0}
        )
        if died_at := task.page_at_work():
            if str(died_at) in state["poison"]:  # reading it kills, too
                state["stop"] = died_at
            elif died_at == state["last"]:
                state["poison"][str(died_at)] = self._reason(ended)
            state["last"] = died_at
            write_atomically(deaths, msgspec.json.encode(state))
        self.poison: dict[str, str] = state["poison"]
        self.stop: int = state["stop"]
        self._mark = np.memmap(task.file("working"), np.int64, "w+", shape=1)

    def _reason(self, ended: str) -> str:
        if ended == "SIGPROF":
            return f"more than {self.limit:g} CPU seconds (a guard against hangs: a faster machine may not agree)"
        if ended == "SIGALRM":
            return f"no result within {self.limit * WALL:g} s"
        return f"ended its process twice ({ended})" if ended else "ended its process twice"

    def enter(self, number: int) -> None:
        """Page `number` comes next."""
        self._mark[0] = number
        limit_time(self.limit, self.limit * WALL)

    def leave(self) -> None:
        """The file is done."""
        limit_time(0, 0)
        self.task.file("working").unlink()


def refine(task: Task, report: Callable[[int], Any] = lambda pages: None, ended: str = "") -> None:
    """Write the parts of one file that are not there yet. `report` hears the number of pages now and then.

    To be called in a process of its own, which may die of it. Called again, it goes on behind the last
    finished part; `ended` says how the process before ended, if that is known (a signal's name).
    """
    if task.done():
        return
    with local_copy(task.source, task.folder) as path:
        guard = Guard(task, ended)
        warnings: list[str] = []
        parts = _read(task, path, guard, warnings, report)
        write_atomically(task.file("done"), msgspec.json.encode(Done(parts, warnings)))
        guard.leave()


def _read(task: Task, path: Path, guard: Guard, warnings: list[str], report: Callable[[int], Any]) -> int:
    """Read a file to its end; returns the number of its parts."""
    sieve = Sieve(task)
    pages = read_input(path, task.config.max_page_bytes, warnings.append)
    finished = task.finished_parts()
    part, number = Part(task, finished), 0
    while True:
        number += 1
        guard.enter(number)
        if number == guard.stop:
            warnings.append(
                f"{task.name}: reading page {number:,} ends the process; what follows is left out"
            )
            break
        clock = Clock(part.tally.costs)
        page = next(pages, None)
        if page is None:
            break
        if number <= finished * PART_PAGES:
            continue
        clock.lap("read")
        page.fault = guard.poison.get(str(number), page.fault)
        sieve.sift(page, part, clock)
        if number % PART_PAGES == 0:
            _write(part)
            part = Part(task, part.number + 1)
        if number % 100 == 0:
            report(number)
    if part.tally.pages or not part.number:
        _write(part)
        return part.number + 1
    return part.number


def _write(part: Part) -> None:
    """Write a part, with no page's limits on it; the time that it takes goes into the tally, which is written
    last.
    """
    limit_time(0, 0)
    part.write()


class Clock:
    """Adds up the CPU seconds of each step."""

    def __init__(self, costs: dict[str, list[float]]) -> None:
        self.costs, self.last = costs, thread_time()

    def lap(self, step: str) -> None:
        """The time since the last lap belongs to `step`."""
        now = thread_time()
        row = self.costs.setdefault(step, [0, 0.0])
        row[0] += 1
        row[1] += now - self.last
        self.last = now


def _hash(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big"))


_NEXT = {
    "": "broken",
    "broken": "url",
    "url": "extraction",
    "early_language": "extraction",
    "extraction": "language",
}
_NEXT |= dict.fromkeys(("language", "quality"), "quality")


class Sieve:
    """All that a page goes through, loaded once per file."""

    def __init__(self, task: Task) -> None:
        self.config = task.config
        self.origin = {"dump": dump_name(task.name), "file_path": task.name}
        extractor = load_extractor(task.config.extractor)
        self.extract: Callable[[str], str | None] = lambda html: extractor(html.encode("utf-8", "replace"))
        if extractor is extract:
            self.extract = extract_text  # the page is decoded already
        self.blocklist = np.load(task.folder / "blocklist.npy", mmap_mode="r")
        self.filters = load_filters(task.config)
        self.rank = load_rank(task.config)
        warm_up(extractor)

    def sift(self, page: Page, part: Part, clock: Clock) -> None:  # noqa: PLR0911 - one return per step
        """Put a page among the part's documents, or among its removed pages with step and reason."""
        text: str | None = None
        passed = ""
        size = len(page.body) or len((page.text or "").encode("utf-8", "replace"))
        part.tally.pages += 1
        part.tally.bytes += size
        part.tally.see_host(host_of(page.url))

        def drop(step: str, reason: str, detail: str = "") -> None:
            clock.lap(step)
            row = Removed(
                id=page.id, url=page.url, step=step, reason=reason, detail=detail, text=text, **self.origin
            )
            part.removed.append(row)
            part.tally.drop(row)

        def keep(step: str, left: int) -> None:
            nonlocal passed
            clock.lap(step)
            part.tally.keep(step, left)
            passed = step

        if page.fault:
            return drop("broken", page.fault)
        try:
            html = decode(page.body, page.charset) if page.text is None else ""
            if too_deep(html):
                return drop("broken", "elements nested too deeply")
            keep("broken", size)

            if blocked := blocked_url(page.url, self.blocklist):
                return drop("url", *blocked.split(" ", 1))
            keep("url", size)

            if self.config.early_language and page.text is None:
                seen = likely(visible_text(html))
                if (
                    max((seen.get(language, 0) for language in self.config.languages), default=0)
                    <= self.config.early_language
                ):
                    return drop("early_language", next(iter(seen), "und"))
                keep("early_language", size)

            text = self.extract(html) if page.text is None else page.text
            if not text or not text.strip():
                return drop("extraction", "no main text")
            keep("extraction", len(text))

            language, score = identify(text)
            part.tally.languages[language] = part.tally.languages.get(language, 0) + 1
            if language not in self.config.languages or score <= self.config.language_threshold:
                unsure = language in self.config.languages
                return drop("language", f"{language} unsure" if unsure else language, f"{score:.2f}")
            keep("language", len(text))

            document = Document(
                id=page.id,
                url=page.url,
                text=text,
                date=page.date,
                language=language,
                language_score=round(score, 4),
                token_count=0,
                **self.origin,
            )
            for name, check in self.filters.items():
                if reason := check(document):
                    return drop("quality", f"{name}: {reason.split(': ')[0]}", reason.partition(": ")[2])
            keep("quality", len(document.text))
            self._accept(document, part)
            clock.lap("signature")
        except UserError:
            raise
        except (
            Exception
        ) as error:  # whatever an extractor or a filter of the user's does on this page, the others go on
            return drop(_NEXT[passed], f"failed: {type(error).__name__}", str(error)[:200])
        return None

    def _accept(self, document: Document, part: Part) -> None:
        """Sign the text, then replace personal data in it, as FineWeb does last.

        The URL is one band more: pages of the same URL are one page, fetched twice.
        """
        config, extracted = self.config, document.text
        bands = band_hashes(extracted, config.ngram, config.bands, config.rows)
        rank = self.rank(document)
        document.text, replaced = replace_pii(extracted)
        document.token_count = (len(document.text.encode("utf-8", "ignore")) + 3) // 4
        tie = _hash(f"{document.url}\0{document.id}")
        part.bands.append(np.append(bands, _hash(document.url or f"{self.origin} {document.id}")))
        part.facts.append((rank, int(tie), len(extracted), len(document.text), replaced))
        if config.site_lines:
            from crawltalk.data.filters.boilerplate import line_hashes

            part.lines.append(line_hashes(host_of(document.url), document.text))
        part.documents.append(document)
