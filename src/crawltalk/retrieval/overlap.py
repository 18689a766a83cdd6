"""Whether a question of a benchmark stands in the training data: contamination (Brown et al. 2020, appendix C).

A question is contaminated if so many of its words stand one after the other in a document, letter by letter. Words and
not tokens are counted, as a small vocabulary cuts ten tokens out of five words (Llama 2's rule, Touvron et al. 2023,
section A.6, is ten tokens of a vocabulary of 32,000). Passages come from the index of tokens, so other capitals,
punctuation or line breaks end one: what is found is the least that there is.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from crawltalk.core.printable import printable

if TYPE_CHECKING:
    from crawltalk.retrieval.trace import TraceIndex

FEWEST, MOST = 8, 13
"""Words: between these the 5th percentile of the lengths of a benchmark's questions decides."""
_WORD = re.compile(r"\w+")
_SHOWN = 200


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """The longest passage of a question in the training data, and the first of the documents that hold it."""

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
