"""Whether a question of a benchmark stands in the training data: contamination (Brown et al. 2020, appendix C).

A question is contaminated if so many of its words stand one after the other in a document, letter by letter. Words and
not tokens are counted, as a small vocabulary cuts ten tokens out of five words (Llama 2's rule, Touvron et al. 2023,
section A.6, is ten tokens of a vocabulary of 32,000). Passages come from the index of tokens, so other capitals,
punctuation or line breaks end one: what is found is the least that there is. Texts that no index covers, those of
fine-tuning, are read word by word (`overlaps_in`), by the same rule.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from crawltalk.core.printable import printable

if TYPE_CHECKING:
    from crawltalk.retrieval.trace import TraceIndex

FEWEST, MOST = 8, 13
"""Words: between these the 5th percentile of the lengths of a benchmark's questions decides."""
_WORD = re.compile(r"\w+")
_SHOWN = 200


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """The longest passage of a question in the training data, and the first of the documents that hold it: pages, or
    lines of a file of conversations.
    """

    words: int
    text: str
    documents: int
    id: str
    url: str
    title: str


def words_in(text: str) -> int:
    """Words of a text."""
    return len(_WORD.findall(text))


def ngram_of(texts: Sequence[str]) -> int:
    """How many words of a question of this benchmark must stand in a document."""
    return max(FEWEST, min(MOST, sorted(map(words_in, texts))[len(texts) // 20]))


def overlap(index: "TraceIndex", text: str, ngram: int) -> Overlap | None:
    """The passage of most words, if it has `ngram`. A word is a token at least."""
    passages = index.trace(text, min_tokens=ngram, sources=1).passages
    spans = [match.span() for match in _WORD.finditer(text)]
    counted = [
        (sum(passage.start <= start and end <= passage.end for start, end in spans), passage)
        for passage in passages
    ]
    words, longest = max(counted, key=lambda pair: pair[0], default=(0, None))
    if longest is None or words < ngram:
        return None
    source = longest.span.sources[0]
    return Overlap(
        words=words,
        text=printable(longest.text.strip(), _SHOWN),
        documents=longest.span.documents,
        id=source.id,
        url=source.url,
        title=source.title,
    )


Spans = list[tuple[int, int]]


def overlaps_in(
    documents: Iterable[tuple[str, Sequence[str]]], questions: Sequence[str], ngram: int
) -> dict[int, Overlap]:
    """Number of a question -> its passage of most words, if it has `ngram`, in documents of several texts each, such as
    the messages of a conversation: (what the document is called, its texts). They are read once, and not kept.
    """
    spans = [_spans(question) for question in questions]
    windows = [_window_hashes(text, words, ngram) for text, words in zip(questions, spans, strict=True)]
    counts = [len(row) for row in windows]
    numbers = np.repeat(np.arange(len(questions)), counts)
    positions = np.concatenate([np.arange(0), *map(np.arange, counts)])
    keys = np.concatenate([np.zeros(0, np.int64), *windows])
    order = np.argsort(keys, kind="stable")
    keys, owners_of = keys[order], np.stack([numbers, positions], axis=1)[order]
    found: dict[int, Overlap] = {}
    last: dict[int, str] = {}  # the document that was counted last
    for name, texts in documents:
        for text in texts:
            words = _spans(text)
            hashes = _window_hashes(text, words, ngram)
            lows, highs = (np.searchsorted(keys, hashes, side) for side in ("left", "right"))
            running: set[tuple[int, int]] = set()
            ended = -1
            for place in np.flatnonzero(highs > lows).tolist():
                owners = owners_of[lows[place] : highs[place]].tolist()
                goes_on = running if ended == place else set()
                running, ended = {(number, at + 1) for number, at in owners}, place + 1
                for number, at in owners:
                    if (number, at) in goes_on:  # a part of the passage that began a word before
                        continue
                    shared = _shared(text, words[place:], questions[number], spans[number][at:])
                    before = found.get(number)
                    if shared < ngram or (before is not None and shared < before.words):
                        continue
                    passage = printable(text[words[place][0] : words[place + shared - 1][1]], _SHOWN)
                    if before is None or shared > before.words:
                        found[number] = Overlap(
                            words=shared, text=passage, documents=1, id=name, url="", title=""
                        )
                    elif passage == before.text and last[number] != name:
                        found[number] = msgspec.structs.replace(before, documents=before.documents + 1)
                    else:
                        continue
                    last[number] = name
    return found


def _window_hashes(text: str, words: Spans, ngram: int) -> np.ndarray:
    """A hash for each `ngram` words of a text with all that stands between them."""
    ends = words[ngram - 1 :]
    return np.array(
        [hash(text[start:end]) for (start, _), (_, end) in zip(words, ends, strict=False)], np.int64
    )


def _spans(text: str) -> Spans:
    return [match.span() for match in _WORD.finditer(text)]


def _shared(text: str, words: Spans, question: str, asked: Spans) -> int:
    """How many words from the first ones on are the same, with all that stands between them."""
    count = last = met = 0
    for (start, end), (first, final) in zip(words, asked, strict=False):
        if text[start:end] != question[first:final] or (count and text[last:start] != question[met:first]):
            break
        count, last, met = count + 1, end, final
    return count
