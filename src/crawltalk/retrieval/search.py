"""Full-text search over a run's documents, by SQLite's FTS5 from Python's standard library.

The index is `search.sqlite` in the run's folder, about twice as large as the text. The first search starts a
thread that builds it as `search.sqlite.PID.tmp` and renames it when it is complete. The index holds the
fingerprint of the data stage, and is built again when that has changed.
"""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock, Thread

import msgspec
from pyarrow.parquet import ParquetFile

from crawltalk.core.documents import titled
from crawltalk.core.errors import BadInput, UserError
from crawltalk.run.folder import RunFolder

MAX_RESULTS = 20
"""Results of one search; `offset` gives the next ones."""
MAX_TERMS = 32
"""Words and phrases of a query that are used."""
MATCH_START, MATCH_END = "\x02", "\x03"
"""Characters around each match in a snippet."""
_CREATE = "CREATE VIRTUAL TABLE pages USING fts5(title, text, url UNINDEXED, place UNINDEXED)"
_SELECT = """SELECT place, url, title, snippet(pages, 1, ?, ?, '…', 32) FROM pages WHERE pages MATCH ?
    ORDER BY bm25(pages, 4.0, 1.0) LIMIT ? OFFSET ?"""


class SearchResult(msgspec.Struct, frozen=True):
    """A document that matches a query."""

    position: str
    """Its position in the data stage's `documents-*.parquet`, as `file.group.row`: the numbers of file, row group
    and row.
    """
    url: str
    title: str
    snippet: str
    """Text around the matches, each between MATCH_START and MATCH_END."""


class SearchResults(msgspec.Struct, frozen=True):
    """The best results of a search, from an offset on."""

    count: int
    """All documents that match."""
    results: list[SearchResult]


class IndexProgress(msgspec.Struct, frozen=True):
    """How far the index is: documents done, of all."""

    done: int
    total: int


class Search:
    """The search index of one run."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.path = run, run.path / "search.sqlite"
        self._lock = Lock()
        self._done, self._total = 0, 0
        self._thread: Thread | None = None
        self._error: OSError | sqlite3.Error | None = None

    def search(self, query: str, offset: int = 0) -> SearchResults | IndexProgress:
        """Documents that hold all words of a query (and its "phrases in quotes"), the best first.

        While the index is being built it returns how far that is; search again a little later. Raises BadInput
        for a query without a word, MissingInput if the run has no documents yet, and UserError if the index
        cannot be written.
        """
        match = _match_expression(query)
        data = self.run.finished("data")
        manifest = self.run.manifest("data")
        fingerprint = manifest.fingerprint if manifest else ""
        if read_fingerprint(self.path) != fingerprint:
            return self._start_build(data, fingerprint)
        with closing(open_index(self.path)) as index:
            count = index.execute("SELECT count(*) FROM pages WHERE pages MATCH ?", (match,)).fetchone()[0]
            rows = index.execute(_SELECT, (MATCH_START, MATCH_END, match, MAX_RESULTS, offset)).fetchall()
        return SearchResults(count, [SearchResult(*row) for row in rows])

    def _start_build(self, data: Path, fingerprint: str) -> IndexProgress:
        """Start the thread unless it is running."""
        with self._lock:
            if self._error is not None:
                error, self._error = self._error, None
                raise UserError(
                    f"the search index {self.path} cannot be written: {error}; free some space, then search again"
                )
            if self._thread is None or not self._thread.is_alive():
                self._done, self._total = 0, sum(_count_rows(path) for path in _document_files(data))
                self._thread = Thread(target=self._build, args=(data, fingerprint), daemon=True)
                self._thread.start()
            return IndexProgress(self._done, self._total)

    def _build(self, data: Path, fingerprint: str) -> None:
        work = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            work.unlink(missing_ok=True)
            with closing(sqlite3.connect(work, isolation_level=None)) as index:
                index.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN; {_CREATE};")
                index.executemany("INSERT INTO pages VALUES (?, ?, ?, ?)", self._rows(data))
                index.execute("CREATE TABLE made_from AS SELECT ? AS fingerprint", (fingerprint,))
                index.execute("COMMIT")
            os.replace(work, self.path)
        except (
            OSError,
            sqlite3.Error,
        ) as error:  # a full disk or a read-only folder: the next search raises it
            work.unlink(missing_ok=True)
            self._error = error

    def _rows(self, data: Path) -> Iterator[tuple[str, str, str, str]]:
        """(title, text, URL, position) of each document."""
        for number, path in enumerate(_document_files(data)):
            with ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    documents = file.read_row_group(group, columns=["text", "url"]).to_pylist()
                    for row, document in enumerate(documents):
                        title, rest = titled(document)
                        yield title, rest["text"], document["url"], f"{number}.{group}.{row}"
                        self._done += 1


def _document_files(data: Path) -> list[Path]:
    return sorted(data.glob("documents-*.parquet"))


def _count_rows(path: Path) -> int:
    with ParquetFile(path) as file:
        return file.metadata.num_rows


def open_index(path: Path) -> sqlite3.Connection:
    """An index that was built, to read."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def read_fingerprint(path: Path) -> str | None:
    """The fingerprint of the data that an index was built from; None if there is no index that can be read."""
    if not path.exists():
        return None
    try:
        with closing(open_index(path)) as index:
            return index.execute("SELECT fingerprint FROM made_from").fetchone()[0]
    except sqlite3.DatabaseError:
        return None


def _match_expression(query: str) -> str:
    """A person's query in the syntax of FTS5, quoted so that no word of it is an operator."""
    terms = [term.strip('"') for term in re.findall(r'"[^"\0]*"|[^\s"\0]+', query)]
    terms = [term for term in terms if re.search(r"\w", term)][:MAX_TERMS]
    if not terms:
        raise BadInput("type a word to search for")
    return " ".join(f'"{term}"' for term in terms)
