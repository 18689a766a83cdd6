"""The files that refining writes: for each input file several parts, each with the results of up to `PART_PAGES`
pages.

A finished part is never lost or done twice: memory is bounded by one part, a killed run continues behind the
last finished one, and a page that kills its process costs the work of one part. The files of part 2 of input
file 7:

    00007-00002.documents.parquet   what passed all filters, with personal data replaced
    00007-00002.removed.parquet     the other pages, with step and reason
    00007-00002.bands.npy           MinHash bands, and a hash of the URL as the last: (bands + 1, documents)
    00007-00002.facts.npy           `FACTS` of each document
    00007-00002.names.bin           ids and URLs (`Names`)
    00007-00002.stats.json          counts; written last
    00007.done                      number of parts and warnings; written when the file has been read to its end

If lines that many pages of a site have are dropped, all files are surveyed before. The files of that begin with
`survey-`:

    survey-00007-00002.lines.npy    hashes of the lines of each page
    survey-00007-00002.texts.npy    `TEXTS` of each page (`filters.boilerplate`)
    survey-00007-00002.stats.json   as above
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

import msgspec
import numpy as np

from crawltalk.core.documents import read_table, write_documents, write_table
from crawltalk.core.files import write_array, write_atomically
from crawltalk.core.types import Document
from crawltalk.data.filters.boilerplate import TEXTS, Lines
from crawltalk.data.record.funnel import REMOVED_COLUMNS, Removed, Stats
from crawltalk.recipe import Data

PART_PAGES = 4000
FACTS = np.dtype(
    [
        ("rank", np.float64),  # the highest of a cluster stays
        ("tie", np.uint64),  # the lowest among equals
        ("extracted", np.int64),  # characters before personal data was replaced
        ("characters", np.int64),
        ("replaced", np.int64),  # pieces of personal data
    ]
)


class Done(msgspec.Struct):
    """Written when a file has been read to its end."""

    parts: int
    warnings: list[str]


class FileTask(msgspec.Struct, kw_only=True):
    """One input file to refine."""

    number: int
    source: str
    """A path, or a URL that fsspec can read."""
    size: int
    """Bytes; the largest files come first."""
    folder: Path
    """Where its parts are written."""
    config: Data
    ended: str = ""
    """If the last process that had this file died: the name of the signal."""
    survey: bool = False
    """Whether only the lines of its pages are wanted."""
    fruitless: int = 0
    """How many processes in a row died before they read a page of it."""

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.source.rstrip("/").rsplit("/", 1)[-1]

    @property
    def _stem(self) -> str:
        return f"{'survey-' * self.survey}{self.number:05d}"

    def file(self, name: str) -> Path:
        """A file about the whole input file: `done`, `working`, `deaths`."""
        return self.folder / f"{self._stem}.{name}"

    def part(self, part: int, name: str) -> Path:
        """A file of one part."""
        return self.folder / f"{self._stem}-{part:05d}.{name}"

    def done(self) -> Done | None:
        """Parts and warnings of a file that has been read to its end; None if it has not."""
        path = self.file("done")
        return msgspec.json.decode(path.read_bytes(), type=Done) if path.exists() else None

    def page_at_work(self) -> int:
        """Number of the page that a process works on, or died at; 0 if there is none."""
        path = self.file("working")
        return int(np.fromfile(path, np.int64)[0]) if path.exists() else 0

    def finished_parts(self) -> int:
        """How many parts are complete."""
        count = 0
        while self.part(count, "stats.json").exists():
            count += 1
        return count


class Signed(msgspec.Struct, kw_only=True):
    """A document with what deduplication needs."""

    document: Document
    bands: np.ndarray
    """MinHash bands, and a hash of the URL as the last: (bands + 1,) uint64."""
    rank: float
    """The highest of a cluster stays."""
    tie: int
    """The lowest among equals."""
    extracted: int
    """Characters before personal data was replaced."""
    replaced: int = 0
    """Pieces of personal data."""


class Part:
    """An unfinished part, in memory."""

    def __init__(self, task: FileTask, number: int) -> None:
        self.task, self.number = task, number
        self.stats = Stats()
        self.documents: list[Document] = []
        self.removed: list[Removed] = []
        self.bands: list[np.ndarray] = []
        self.facts: list[tuple[float, int, int, int, int]] = []

    def add(self, signed: Signed) -> None:
        """Add a document that passed all steps."""
        self.documents.append(signed.document)
        self.bands.append(signed.bands)
        sizes = (signed.extracted, len(signed.document.text))
        self.facts.append((signed.rank, signed.tie, *sizes, signed.replaced))

    def remove(self, page: Removed) -> None:
        """Add a page that a step dropped."""
        self.removed.append(page)
        self.stats.drop(page)

    def write(self) -> None:
        """Write all files, the statistics last."""
        config, file = self.task.config, lambda name: self.task.part(self.number, name)
        write_documents(file("documents.parquet"), self.documents)
        write_table(file("removed.parquet"), self.removed, REMOVED_COLUMNS)
        write_array(
            file("bands.npy"),
            np.array(self.bands, np.uint64).reshape(len(self.bands), config.bands + 1).T.copy(),
        )
        write_array(file("facts.npy"), np.array(self.facts, FACTS))
        write_names(file("names.bin"), ((page.id, page.url) for page in self.documents))
        write_atomically(file("stats.json"), msgspec.json.encode(self.stats))


class SurveyPart:
    """An unfinished part of a survey, in memory."""

    def __init__(self, task: FileTask, number: int) -> None:
        self.task, self.number = task, number
        self.stats = Stats()
        self.pages: list[Lines] = []

    def add(self, page: Lines) -> None:
        """Add the lines of a page."""
        self.pages.append(page)

    def remove(self, page: Removed) -> None:
        """A page without text has no lines."""

    def write(self) -> None:
        """Write all files, the statistics last."""
        hashes = [page.hashes for page in self.pages]
        texts = [(page.text, page.host, len(page.hashes)) for page in self.pages]
        write_array(
            self.task.part(self.number, "lines.npy"), np.concatenate([np.zeros(0, np.uint64), *hashes])
        )
        write_array(self.task.part(self.number, "texts.npy"), np.array(texts, TEXTS))
        write_atomically(self.task.part(self.number, "stats.json"), msgspec.json.encode(self.stats))


def write_names(path: Path, names: Iterable[tuple[str, str]]) -> None:
    """Write ids and URLs to one file: their number, the end of each string, then the strings in UTF-8."""
    pieces = [piece.encode("utf-8", "replace") for pair in names for piece in pair]
    ends = np.fromiter(accumulate(map(len, pieces)), np.int64, len(pieces))
    write_atomically(path, b"".join([np.int64(len(pieces)).tobytes(), ends.tobytes(), *pieces]))


class Names:
    """Ids and URLs of all documents of several files by their number, read from disk one by one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = [np.memmap(path, np.uint8, "r") for path in paths]
        counts = [int(file[:8].view(np.int64)[0]) // 2 for file in self.files]
        self.starts = [0, *accumulate(counts)]

    def __getitem__(self, number: int) -> tuple[str, str]:
        index = bisect_right(self.starts, number) - 1
        file, row = self.files[index], 2 * (number - self.starts[index])
        pieces = int(file[:8].view(np.int64)[0])
        ends = file[8 : 8 + 8 * pieces].view(np.int64)
        first = 8 + 8 * pieces
        start = int(ends[row - 1]) if row else 0
        id_ = file[first + start : first + int(ends[row])].tobytes().decode()
        return id_, file[first + int(ends[row]) : first + int(ends[row + 1])].tobytes().decode()


def names_of(documents: Iterable[Path], path: Path) -> Path:
    """Write the `Names` file of documents in Parquet files, such as those of an earlier crawl."""
    rows = (row for file in documents for row in read_table(file, ["id", "url"]))
    write_names(path, ((row["id"], row["url"]) for row in rows))
    return path
