"""How much each training document shares with a text, found without the model: runs of tokens, or words."""

from collections.abc import Sequence

from crawltalk.retrieval.passages import Passages
from crawltalk.retrieval.trace import MIN_TOKENS, TraceIndex


def scores_by_ngrams(index: TraceIndex, ids: Sequence[int], *, n: int = 2) -> dict[str, float]:
    """Of each document that shares `n` tokens in a row with a text, by its id: for each such run, one divided by the
    number of documents that have it. Two tokens foretell best what leaving documents out changes; see EXPERIMENTS.md.
    """
    scores: dict[str, float] = {}
    for run in {tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)}:
        documents = index.documents_with(run)
        for identifier in documents:
            scores[identifier] = scores.get(identifier, 0.0) + 1 / len(documents)
    return scores


def scores_by_spans(
    index: TraceIndex, ids: Sequence[int], *, min_tokens: int = MIN_TOKENS
) -> dict[str, float]:
    """Of each document that holds maximal spans of a text's tokens, by its id, the bits of all of these."""
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
