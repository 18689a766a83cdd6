"""The frontier of a web crawl: the known URLs and the state of each. It is an SQLite database, so that a crawl
that was killed continues exactly where it stopped: a page is written to the WARC file first, then its row is
committed together with the file's new length.
"""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

_TABLES = """
CREATE TABLE IF NOT EXISTS pages (
    url TEXT PRIMARY KEY, host TEXT NOT NULL, depth INTEGER NOT NULL, hops INTEGER NOT NULL, place INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting', tries INTEGER NOT NULL DEFAULT 0, note TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS waiting ON pages (state, host, depth, place);
CREATE TABLE IF NOT EXISTS bodies (digest TEXT PRIMARY KEY, url TEXT NOT NULL, date TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Entry(msgspec.Struct):
    """A URL that waits to be fetched."""

    url: str
    host: str
    depth: int
    """Links away from a start."""
    hops: int
    """Redirects in a row that led here."""
    tries: int


class Frontier:
    """URLs by state: waiting, stored, or the reason why the URL was not stored."""

    def __init__(self, path: Path) -> None:
        self.base = sqlite3.connect(path)
        self.base.executescript(_TABLES)

    def add(self, urls: Iterable[tuple[str, str]], depth: int, hops: int = 0) -> None:
        """Add (URL, host) pairs. One that is known already keeps the smaller of both depths."""
        last = self.base.execute("SELECT COALESCE(MAX(place), 0) FROM pages").fetchone()[0]
        self.base.executemany(
            "INSERT INTO pages (url, host, depth, hops, place) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (url) DO UPDATE SET depth = MIN(depth, excluded.depth)",
            [(url, host, depth, hops, last + number) for number, (url, host) in enumerate(urls, 1)],
        )

    def next_of(self, host: str, depth: int) -> Entry | None:
        """The waiting URL of a host that is nearest to the start, no deeper than `depth`."""
        row = self.base.execute(
            "SELECT url, host, depth, hops, tries FROM pages WHERE state = 'waiting' AND host = ? AND depth <= ?"
            " ORDER BY depth, place LIMIT 1",
            (host, depth),
        ).fetchone()
        return Entry(*row) if row else None

    def waiting_hosts(self, depth: int) -> list[str]:
        """Hosts that have a waiting URL no deeper than `depth`."""
        rows = self.base.execute(
            "SELECT DISTINCT host FROM pages WHERE state = 'waiting' AND depth <= ?", (depth,)
        )
        return sorted(row[0] for row in rows)

    def settle(self, url: str, state: str, note: str = "") -> None:
        """Set the final state of a URL."""
        self.base.execute(
            "UPDATE pages SET state = ?, note = ?, tries = tries + 1 WHERE url = ?", (state, note, url)
        )

    def retry(self, url: str) -> None:
        """Count one try of a URL that stays waiting."""
        self.base.execute("UPDATE pages SET tries = tries + 1 WHERE url = ?", (url,))

    def counts(self) -> dict[str, int]:
        """URLs by state."""
        return dict(self.base.execute("SELECT state, COUNT(*) FROM pages GROUP BY state ORDER BY state"))

    def first_with(self, digest: str, url: str, date: str) -> tuple[str, str] | None:
        """URL and date of the page that had this body first. If there is none, this page is recorded as the first
        and None is returned.
        """
        row = self.base.execute("SELECT url, date FROM bodies WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            self.base.execute("INSERT INTO bodies VALUES (?, ?, ?)", (digest, url, date))
        return row

    def load_value(self, name: str) -> Any:
        """A value that was saved, perhaps by an earlier process; None if there is none."""
        row = self.base.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def save_value(self, name: str, value: Any) -> None:
        """Save a JSON value for this process and later ones."""
        self.base.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def commit(self) -> None:
        self.base.commit()

    def close(self) -> None:
        """Close the database; changes that are not committed are lost."""
        self.base.close()
