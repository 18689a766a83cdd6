"""Passage retrieval: the parts of a run's documents that a question is about, by BM25 (Robertson & Zaragoza 2009,
section 3) of SQLite's FTS5.

A document is cut into passages of some lines. A question is a bag of words here, unlike a query of
`retrieval.search`, all of whose words have to occur. The index is `passages.sqlite` in the run's folder. It holds the
fingerprint of the data stage, and is built again when that has changed.
"""

import math
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import msgspec

from crawltalk.core.documents import read_documents
from crawltalk.core.errors import UserError
from crawltalk.core.types import Document
from crawltalk.retrieval.search import open_index, read_fingerprint
from crawltalk.run.folder import RunFolder

MIN_CHARACTERS, MAX_CHARACTERS = 500, 1000
"""Lines are put together until a passage has the first number of characters; one longer than the second is cut
between sentences or words.
"""
TITLE_WEIGHT = 3.0
"""Of a word in a page's title; a word of the passage has 1."""
PAIR_WEIGHT = 0.3
"""Of two neighbouring words of the question that are neighbours in the passage, too, times their inverse document
frequency as a phrase (Metzler & Croft 2005, A Markov Random Field Model for Term Dependencies, section 2).
"""
PAGE_SHARE = 0.2
"""What the second best passage of a page adds to its best one; the third adds the square of it."""
CANDIDATES = 60
"""Passages by BM25 alone that are ranked by all of this."""
MAX_TERMS = 64
"""Different words of a question that are used."""
_WORD = re.compile(r"[^\W_]+")
_QUESTION_WORDS = frozenset(Path(__file__).with_name("question_words.txt").read_text("utf-8").split())
_SENTENCE_END = re.compile(r"\n+|(?<=[.!?])[ \t]+(?=[\"'(]?[^\W\d_a-z])|(?<=。)")


class RetrievedPassage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a document that a question may be about."""

    id: str
    """`Document.id`."""
    url: str
    title: str
    """First line of the document."""
    text: str
    """`document.text[start:end]`."""
    start: int
    end: int
    score: float
    """BM25 of its words, pairs of words and page; higher is better, but only among passages of one question."""
    coverage: float
    """The share of the question's content words that occur in the title or the passage, each weighted by its inverse
    document frequency; a word that no passage has counts as the rarest. Between 0 and 1, comparable between questions.
    """


class Passages:
    """An index of passages. Several threads may search in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(open_index(path)) as index:
            self.count: int = index.execute("SELECT count(*) FROM passages").fetchone()[0]

    @classmethod
    def of_run(cls, run: RunFolder) -> "Passages":
        """The index of a run's documents, built first if it is not there yet (about a second for 6 MB of text).

        Raises MissingInput if the run has no documents yet, UserError if the index cannot be written.
        """
        data, manifest = run.finished("data"), run.manifest("data")
        path, fingerprint = run.path / "passages.sqlite", manifest.fingerprint if manifest else ""
        if read_fingerprint(path) != fingerprint:
            try:
                build_index(path, read_documents(data), fingerprint)
            except (OSError, sqlite3.Error) as error:
                raise UserError(
                    f"the index {path} cannot be written: {error}; free some space, then try again"
                ) from None
        return cls(path)

    def search(self, question: str, limit: int = 5) -> list[RetrievedPassage]:
        """The passages that fit a question best, the best first. Words that only make it a question do not count."""
        words = content_words(question)[:MAX_TERMS]
        if not words:
            return []
        with closing(open_index(self.path)) as index:
            return self._search(index, question, words, limit)

    def weights(self, words: Iterable[str]) -> dict[str, float]:
        """The inverse document frequency of each word: log(1 + (N - n + 0.5) / (n + 0.5)), n of N passages have it."""
        with closing(open_index(self.path)) as index:
            return {word: self._weight(index, word) for word in words}

    def weight_of_share(self, share: float) -> float:
        """The weight of a word that this share of the passages has, or one passage, whichever is more."""
        return self._inverse_frequency(max(1.0, share * self.count))

    def _inverse_frequency(self, count: float) -> float:
        return math.log(1 + (self.count - count + 0.5) / (count + 0.5))

    def _weight(self, index: sqlite3.Connection, word: str) -> float:
        counted = "SELECT count(*) FROM passages WHERE passages MATCH ?"
        return self._inverse_frequency(index.execute(counted, (f'"{word}"',)).fetchone()[0])

    def _search(
        self, index: sqlite3.Connection, question: str, words: list[str], limit: int
    ) -> list[RetrievedPassage]:
        match = " OR ".join(f'"{word}"' for word in words)
        rows = index.execute(
            "SELECT rowid, id, url, title, text, start, -bm25(passages, ?, 1.0) FROM passages "
            "WHERE passages MATCH ? ORDER BY bm25(passages, ?, 1.0), rowid LIMIT ?",
            (TITLE_WEIGHT, match, TITLE_WEIGHT, max(limit, CANDIDATES)),
        ).fetchall()
        ids = [row[0] for row in rows]
        weights = {word: self._weight(index, word) for word in words}
        covered = self._sums(index, ids, weights)
        in_order = [word.lower() for word in _WORD.findall(question)][:MAX_TERMS]
        pairs = {
            f"{first} {second}": self._weight(index, f"{first} {second}")
            for first, second in pairwise(in_order)
        }
        phrases = self._sums(index, ids, pairs)
        scores = {row[0]: row[-1] + PAIR_WEIGHT * phrases[row[0]] for row in rows}
        of_page: dict[str, list[float]] = {}
        for row in rows:
            of_page.setdefault(row[1], []).append(scores[row[0]])
        found = [
            RetrievedPassage(
                id=id,
                url=url,
                title=title,
                text=text,
                start=start,
                end=start + len(text),
                score=_with_page(scores[row], of_page[id]),
                coverage=covered[row] / sum(weights.values()),
            )
            for row, id, url, title, text, start, _ in rows
        ]
        return sorted(found, key=lambda passage: -passage.score)[:limit]

    def _sums(
        self, index: sqlite3.Connection, rows: list[int], weights: dict[str, float]
    ) -> dict[int, float]:
        """Of each passage the sum of the weights of those phrases that it has."""
        sums = dict.fromkeys(rows, 0.0)
        chosen = ",".join(map(str, rows))
        with_phrase = f"SELECT rowid FROM passages WHERE passages MATCH ? AND rowid IN ({chosen})"
        for phrase, weight in weights.items():
            for (row,) in index.execute(with_phrase, (f'"{phrase}"',)):
                sums[row] += weight
        return sums


def _with_page(score: float, of_page: list[float]) -> float:
    """A passage's score, and a share of those of the others of its page, which falls from one to the next."""
    others = sorted(of_page, reverse=True)
    others.remove(score)
    return score + sum(other * PAGE_SHARE ** (rank + 1) for rank, other in enumerate(others[:4]))


def words_of(text: str) -> list[str]:
    """The different words of a text in lower case, in order; FTS5 cuts texts at the same characters."""
    return list(dict.fromkeys(word.lower() for word in _WORD.findall(text)))


def stem(word: str) -> str:
    """Enough of a word to know it in another form; a number is itself only."""
    return word if word.isdigit() else word[:5]


def content_words(question: str) -> list[str]:
    """The words of a question that say what it is about; all of them if it has no others. What asks and what joins
    words stands in question_words.txt: in few pages such words are as rare as any.
    """
    words = words_of(question)
    return [word for word in words if word not in _QUESTION_WORDS] or words


def build_index(path: Path, documents: Iterable[Document], fingerprint: str) -> None:
    """Write the index, atomically."""
    work = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    work.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(work, isolation_level=None)) as index:
            index.executescript(
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN; CREATE VIRTUAL TABLE passages USING fts5("
                "title, text, id UNINDEXED, url UNINDEXED, start UNINDEXED, tokenize='porter unicode61');"
            )
            index.executemany(
                "INSERT INTO passages VALUES (?, ?, ?, ?, ?)",
                (
                    (
                        document.text.partition("\n")[0],
                        document.text[start:end],
                        document.id,
                        document.url,
                        start,
                    )
                    for document in documents
                    for start, end in cut(document.text)
                ),
            )
            index.execute("CREATE TABLE made_from AS SELECT ? AS fingerprint", (fingerprint,))
            index.execute("COMMIT")
        os.replace(work, path)
    finally:
        work.unlink(missing_ok=True)


def cut(text: str) -> list[tuple[int, int]]:
    """(start, end) of the passages of a document, in order: whole lines of at least MIN_CHARACTERS together, at most
    MAX_CHARACTERS. The title, its first line, is not part of any, unless there is nothing else.
    """
    title = text.find("\n") + 1
    passages: list[tuple[int, int]] = []
    start = end = title
    for piece_start, piece_end in _pieces(text, title):
        if end > start and piece_end - start > MAX_CHARACTERS:
            passages.append((start, end))
            start = piece_start
        end = piece_end
        if end - start >= MIN_CHARACTERS:
            passages.append((start, end))
            start = end
    if text[start:end].strip():
        passages.append((start, end))
    return [_stripped(text, *passage) for passage in passages if text[slice(*passage)].strip()]


def _pieces(text: str, start: int) -> Iterator[tuple[int, int]]:
    """The lines from `start` on, with their ends; what is too long is cut behind a sentence or a word."""
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        while end - start > MAX_CHARACTERS:
            window = text[start : start + MAX_CHARACTERS]
            sentence = max(window.rfind(mark) for mark in (". ", "? ", "! ", "。"))
            place = sentence if sentence >= MIN_CHARACTERS else window.rfind(" ")
            middle = start + (place + 1 if place > 0 else MAX_CHARACTERS)
            yield start, middle
            start = middle
        yield start, end
        start = end


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    passage = text[start:end]
    return start + len(passage) - len(passage.lstrip()), end - len(passage) + len(passage.rstrip())


def sentences(text: str) -> list[tuple[int, int]]:
    """(start, end) of the sentences of a text, in order: a line's end and what looks like the end of a sentence
    separate them.
    """
    ends = [match.start() for match in _SENTENCE_END.finditer(text)]
    spans = (_stripped(text, *span) for span in zip([0, *ends], [*ends, len(text)], strict=True))
    return [(start, end) for start, end in spans if end > start]
