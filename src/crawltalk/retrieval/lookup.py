"""From a question to the passages of a run's documents that it is about: BM25 over the full-text index, then the part
of each document that holds most of the question's rare words.
"""

import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing

import msgspec

from crawltalk.retrieval.search import MAX_TERMS, Search, open_index

_SELECT = """SELECT place, url, title, text FROM pages WHERE pages MATCH ?
    ORDER BY bm25(pages, 6.0, 1.0) LIMIT ?"""
_WORDS = re.compile(r"\w+")
_BREAK = re.compile(r"(?<=[.!?])\s+|\n+")
_FUNCTION_WORDS = """
a about an and are as at be by can could describe did do does explain for from had has have how i in is it
its me my of on or please say tell than that the their them there these they this those to was were what
when where which who whom whose why will with would you your
"""
_IGNORED = frozenset(_FUNCTION_WORDS.split())


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a document, word for word."""

    position: str
    """Of the document, as in `SearchResult`."""
    url: str
    title: str
    start: int
    """Of the passage in the text below the title, in characters."""
    text: str


def question_words(question: str) -> list[str]:
    """The words of a question that say what it is about; all of them if none does."""
    words = list(dict.fromkeys(word.lower() for word in _WORDS.findall(question)))
    return [word for word in words if word not in _IGNORED][:MAX_TERMS] or words[:MAX_TERMS]


def find_passages(search: Search, question: str, *, count: int = 3, characters: int = 400) -> list[Passage]:
    """The best passage of each of the best documents, the best first; a word of the question is enough to be found.
    Waits for the index, if that is being built. Raises BadInput for a question without a word, and as `Search.search`.
    """
    words = question_words(question)
    search.wait(question)
    with closing(open_index(search.path)) as index:
        match = " OR ".join(f'"{word}"' for word in words)
        rows = index.execute(_SELECT, (match, count)).fetchall()
        total = index.execute("SELECT count(*) FROM pages").fetchone()[0]
        rarity = {word: _rarity(index, word, total) for word in words}
    return [_best_part(position, url, title, text, rarity, characters) for position, url, title, text in rows]


def _rarity(index: sqlite3.Connection, word: str, total: int) -> float:
    """The inverse document frequency of a word."""
    number = index.execute("SELECT count(*) FROM pages WHERE pages MATCH ?", (f'"{word}"',)).fetchone()[0]
    return math.log1p(total / (number + 1))


def _best_part(
    position: str, url: str, title: str, text: str, rarity: dict[str, float], characters: int
) -> Passage:
    """The sentences in a row, of at most so many characters, with the rarest words of the question. A word of the title
    counts little: the whole document is about it.
    """
    named = {word.lower() for word in _WORDS.findall(title)}
    weights = {word: weight * (0.1 if word in named else 1.0) for word, weight in rarity.items()}
    sentences = list(_sentences(text, characters))
    hits = [
        {word.lower() for word in _WORDS.findall(text[start:end])} & weights.keys()
        for start, end in sentences
    ]
    best, kept = -1.0, (0, min(len(text), characters))
    for first, (start, end) in enumerate(sentences):
        last = first
        found = set(hits[first])
        while last + 1 < len(sentences) and sentences[last + 1][1] - start <= characters:
            last += 1
            found |= hits[last]
        score = sum(weights[word] for word in found)
        if score > best:
            best, kept = score, (start, max(end, sentences[last][1]))
    start, end = kept
    return Passage(position=position, url=url, title=title, start=start, text=text[start:end])


def _sentences(text: str, characters: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence or line; one that is longer is cut."""
    at = 0
    ends: Sequence[tuple[int, int]] = [
        *(match.span() for match in _BREAK.finditer(text)),
        (len(text), len(text)),
    ]
    for end, after in ends:
        for start in range(at, end, characters):
            yield start, min(end, start + characters)
        at = after
