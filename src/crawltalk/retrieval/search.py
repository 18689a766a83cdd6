"""Full text over a run's documents: SQLite's FTS5, from Python's standard library.

The index is `search.sqlite` in the run's folder, about twice as large as the text. A thread makes it at the
first search, under the name `search.sqlite.PID.tmp`, and renames it when it is complete. It holds the
fingerprint of the data stage, and is made anew when that has changed.
"""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from pyarrow.parquet import ParquetFile

from crawltalk.core.documents import titled
from crawltalk.core.errors import BadInput, UserError
from crawltalk.run.folder import RunFolder

ROWS = 20
"""Of one answer."""
WORDS = 32
"""Of a query, at most."""
MARKS = ("\x02", "\x03")
"""Around the words that were found, in a snippet."""
_TABLE = "CREATE VIRTUAL TABLE pages USING fts5(title, text, url UNINDEXED, place UNINDEXED)"
_FIND = """SELECT place, url, title, snippet(pages, 1, ?, ?, '…', 32) FROM pages WHERE pages MATCH ?
    ORDER BY bm25(pages, 4.0, 1.0) LIMIT ? OFFSET ?"""


class Search:
    """The index of one run: made when it is first asked."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.path = run, run.path / "search.sqlite"
        self._lock = Lock()
        self._done, self._total = 0, 0
        self._thread: Thread | None = None
        self._error: OSError | sqlite3.Error | None = None

    def find(self, words: str, offset: int) -> dict[str, Any]:
        """Pages that hold all of the words ("several in quotes" next to each other), the best first, with
        snippets.

        While the index is being made: how far that is, instead. Raises BadInput for a query without a word.
        """
        query = _query(words)
        folder = self.run.finished("data")
        manifest = self.run.manifest("data")
        fingerprint = manifest.fingerprint if manifest else ""
        if _fingerprint(self.path) != fingerprint:
            return {"indexing": self._make(folder, fingerprint)}
        with closing(_open(self.path)) as index:
            count = index.execute("SELECT count(*) FROM pages WHERE pages MATCH ?", (query,)).fetchone()[0]
            found = index.execute(_FIND, (*MARKS, query, ROWS, offset)).fetchall()
        names = ("place", "url", "title", "snippet")
        return {"count": count, "rows": [dict(zip(names, row, strict=True)) for row in found]}

    def _make(self, folder: Path, fingerprint: str) -> dict[str, int]:
        """Start the thread unless it is at work, and say how many documents of how many are done."""
        with self._lock:
            if self._error is not None:
                error, self._error = self._error, None
                raise UserError(
                    f"the search index {self.path} cannot be written: {error}; make room there, then search again"
                )
            if self._thread is None or not self._thread.is_alive():
                self._done, self._total = 0, sum(_count(path) for path in _files(folder))
                self._thread = Thread(target=self._build, args=(folder, fingerprint), daemon=True)
                self._thread.start()
            return {"done": self._done, "of": self._total}

    def _build(self, folder: Path, fingerprint: str) -> None:
        work = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            work.unlink(missing_ok=True)
            with closing(sqlite3.connect(work, isolation_level=None)) as index:
                index.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN; {_TABLE};")
                index.executemany("INSERT INTO pages VALUES (?, ?, ?, ?)", self._pages(folder))
                index.execute("CREATE TABLE made_from AS SELECT ? AS fingerprint", (fingerprint,))
                index.execute("COMMIT")
            os.replace(work, self.path)
        except (
            OSError,
            sqlite3.Error,
        ) as error:  # a full disk, a folder that may not be written: said at the next search
            work.unlink(missing_ok=True)
            self._error = error

    def _pages(self, folder: Path) -> Iterator[tuple[str, str, str, str]]:
        """Title, text, URL and place of each document."""
        for number, path in enumerate(_files(folder)):
            with ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    for row, page in enumerate(
                        file.read_row_group(group, columns=["text", "url"]).to_pylist()
                    ):
                        title, rest = titled(page)
                        yield title, rest["text"], page["url"], f"{number}.{group}.{row}"
                        self._done += 1


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("documents-*.parquet"))


def _count(path: Path) -> int:
    with ParquetFile(path) as file:
        return file.metadata.num_rows


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def _fingerprint(path: Path) -> str | None:
    """What data the index was made from, None if there is none, or no index that can be read."""
    if not path.exists():
        return None
    try:
        with closing(_open(path)) as index:
            return index.execute("SELECT fingerprint FROM made_from").fetchone()[0]
    except sqlite3.DatabaseError:
        return None


def _query(words: str) -> str:
    """A person's words as a query of FTS5, in which none of them is an operator."""
    parts = [part.strip('"') for part in re.findall(r'"[^"\0]*"|[^\s"\0]+', words)]
    parts = [part for part in parts if re.search(r"\w", part)][:WORDS]
    if not parts:
        raise BadInput("type a word to search for")
    return " ".join(f'"{part}"' for part in parts)
