"""How much of a text each training document holds, by the two ways to find it: spans of tokens, and words."""

from collections.abc import Sequence

from crawltalk.retrieval.passages import Passages
from crawltalk.retrieval.trace import MIN_TOKENS, TraceIndex


def scores_by_spans(
    index: TraceIndex, ids: Sequence[int], *, min_tokens: int = MIN_TOKENS
) -> dict[str, float]:
    """Of each document that holds a span of the text's tokens, by its id, the bits of all of them (`Span.bits`)."""
    scores: dict[str, float] = {}
    for span in index.spans(ids, min_tokens=min_tokens, sources=index.documents):
        for source in span.sources:
            scores[source.id] = scores.get(source.id, 0.0) + span.bits
    return scores


def scores_by_words(passages: Passages, text: str, limit: int) -> dict[str, float]:
    """BM25 of the best passage of each document, by its id, among the best `limit` passages."""
    scores: dict[str, float] = {}
    for passage in passages.search(text, limit):
        scores.setdefault(passage.id, passage.score)
    return scores
