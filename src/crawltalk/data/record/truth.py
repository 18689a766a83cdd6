"""How right the data stage was, if the crawl has a truth.jsonl that says what each page really is.

For each step, among the pages that reached it: recall is the share of the pages that should be dropped here that
were dropped; precision is the share of the dropped pages that should be. Duplicates are counted per cluster: a
cluster of n pages should lose n - 1, and one that loses all n has lost one too many. Two articles that are
similar by themselves (Jaccard similarity of their n-grams >= `SAME`) are duplicates too, although the file does
not list them; they count for precision, not for recall.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from crawltalk.core.types import Document
from crawltalk.data.dedup import jaccard
from crawltalk.data.filters.pii import public_ip, replace_pii
from crawltalk.data.record.funnel import Removed

SAME = 0.75
STEPS = ("broken", "url", "language", "quality")


class Truth(msgspec.Struct, kw_only=True):
    """What a page of the sample crawl really is; a row of the crawl's truth.jsonl."""

    url: str
    record_id: str
    kind: str
    language: str | None = None
    removed_by: str | None = None
    """The step that should drop it, or None."""
    cluster: str | int | None = None
    """Pages of one cluster have the same content."""
    original: str | None = None
    title: str | None = None
    topic: str | None = None
    emails: list[str] = []
    ips: list[str] = []
    main_text: str | None = None


def word_f1(extracted: str, truth: str) -> float:
    """F1 of two bags of words."""
    left, right = Counter(extracted.split()), Counter(truth.split())
    return 2 * (left & right).total() / max(1, left.total() + right.total())


class Scores:
    """Collects the verdicts of a run page by page and compares them with the truth."""

    def __init__(self, truth: Iterable[Truth], ngram: int = 5) -> None:
        self.truth = {row.record_id: row for row in truth}
        self.ngram = ngram
        self.step: dict[str, str] = {}
        self.twins: dict[str, str] = {}
        self.f1: list[float] = []
        self.leaks: list[str] = []

    def removed(self, page: Removed, twin: str | None = None) -> None:
        """Add a dropped page. `twin` is the id of the document that was kept instead of a duplicate."""
        self.step[page.id] = page.step
        if twin is not None:
            self.twins[page.id] = twin

    def kept(self, document: Document) -> None:
        """Add a document that was kept."""
        row = self.truth.get(document.id)
        if row is None:
            return
        if row.main_text:
            self.f1.append(word_f1(document.text, replace_pii(row.main_text)[0]))
        planted = [*row.emails, *(ip for ip in row.ips if public_ip(ip))]
        self.leaks += [item for item in planted if item in document.text]

    def report(self) -> dict[str, Any]:
        """Precision and recall per step, personal data left, F1 of the extraction; with examples of what went
        wrong.
        """
        steps: dict[str, Any] = {}
        for number, step in enumerate(STEPS):
            earlier = set(STEPS[:number]) | ({"extraction"} if number > 1 else set())
            here = [row for id_, row in self.truth.items() if self.step.get(id_) not in earlier]
            expected = {row.record_id for row in here if row.removed_by == step}
            removed = {row.record_id for row in here if self.step.get(row.record_id) == step}
            steps[step] = _ratios(len(expected & removed), len(removed), len(expected)) | {
                "missed": [self.truth[id_].url for id_ in sorted(expected - removed)[:5]],
                "wrong": [self.truth[id_].url for id_ in sorted(removed - expected)[:5]],
            }
        steps["duplicate"] = self._duplicates()
        return {
            "steps": steps,
            "pii_left": len(self.leaks),
            "pii_examples": self.leaks[:5],
            "extract_f1": round(sum(self.f1) / max(1, len(self.f1)), 4),
            "extract_pages": len(self.f1),
        }

    def _duplicates(self) -> dict[str, Any]:
        clusters: dict[Any, list[str]] = defaultdict(list)
        gone_before = set(STEPS) | {"extraction"}
        for id_, row in self.truth.items():
            if row.cluster is not None and self.step.get(id_) not in gone_before:
                clusters[row.cluster].append(id_)
        expected = hits = 0
        missed: list[str] = []
        for members in clusters.values():
            lost = sum(self.step.get(id_) == "duplicate" for id_ in members)
            expected += len(members) - 1
            hits += min(lost, len(members) - 1)
            if lost < len(members) - 1:
                missed += [self.truth[id_].url for id_ in members if self.step.get(id_) != "duplicate"][1:]
        natural, wrong = 0, []
        right = 0
        for id_, twin in self.twins.items():
            mine, other = self.truth.get(id_), self.truth.get(twin)
            if mine is None or other is None:
                continue
            if mine.cluster is not None and mine.cluster == other.cluster:
                right += 1
            elif (
                mine.main_text
                and other.main_text
                and jaccard(mine.main_text, other.main_text, self.ngram) >= SAME
            ):
                right += 1
                natural += 1
            else:
                wrong.append(f"{mine.url} = {other.url}")
        removed = right + len(wrong)
        return {
            "precision": _ratio(right, removed),
            "recall": _ratio(hits, expected),
            "found": removed,
            "expected": expected,
            "natural": natural,
            "missed": missed[:5],
            "wrong": wrong[:5],
        }


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 1.0


def _ratios(right: int, removed: int, expected: int) -> dict[str, float | int]:
    return {
        "precision": _ratio(right, removed),
        "recall": _ratio(right, expected),
        "found": removed,
        "expected": expected,
    }
