"""The page that answers a question: full-text search by SQLite's FTS5 over documents in memory, for the evaluation.

Unlike `search`, which finds pages that hold every word, it takes a question as people write it. Rare words count most
(BM25; Robertson and Zaragoza 2009), and a page counts only if the question names it: small models take any page that
they are given for the right one.
"""

import re
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from crawltalk.core.types import Document

TITLE_WEIGHT = 4.0
"""How much more a word counts in the title of a page than in its text."""
LOOKED_AT = 20
"""Pages among which one that the question names is looked for."""
_WORD = re.compile(r"\w+")


class Page(NamedTuple):
    id: str
    text: str
    """The title is its first line."""


class Passages:
    """Documents that are searched by questions."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._index = sqlite3.connect(":memory:")
        self._index.execute("CREATE VIRTUAL TABLE pages USING fts5(title, text, id UNINDEXED)")
        rows = ((*_title_and_rest(document.text), document.id) for document in documents)
        self._index.executemany("INSERT INTO pages VALUES (?, ?, ?)", rows)

    def best(self, question: str, *, without: str = "") -> Page | None:
        """The page of the longest title that stands in the question, the best fit among equals; None if the question
        names no page. `without`: the id of a page that is passed over.
        """
        words = dict.fromkeys(_WORD.findall(question.lower()))
        if not words:
            return None
        found = self._index.execute(
            "SELECT id, title, text FROM pages WHERE pages MATCH ? AND id != ? "
            "ORDER BY bm25(pages, ?, 1.0), rowid LIMIT ?",
            (" OR ".join(f'"{word}"' for word in words), without, TITLE_WEIGHT, LOOKED_AT),
        )
        named = [row for row in found if _names(question, row[1])]
        if not named:
            return None
        id_, title, text = max(named, key=lambda row: len(row[1]))  # the first of those as long
        return Page(id_, f"{title}\n{text}")


def _names(question: str, title: str) -> bool:
    """Whether all words of a title stand in the question, one after another."""
    words = " ".join(_WORD.findall(title.lower()))
    return bool(words) and f" {words} " in f" {' '.join(_WORD.findall(question.lower()))} "


def _title_and_rest(text: str) -> tuple[str, str]:
    title, _, rest = text.partition("\n")
    return title, rest
