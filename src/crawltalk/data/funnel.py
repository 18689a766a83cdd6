"""What the data stage did: pages and characters left after each step, why the others went, and, if the truth is known, how
right that was. `funnel.json` is the record; nothing is dropped without a row in `removed-*.parquet`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from crawltalk.data.urls import host_of

STEPS = ("broken", "url", "extraction", "language", "quality", "duplicate")
"""Where a page can be dropped, in order."""
EXAMPLES = 3
QUANTILES = (0, 5, 25, 50, 75, 95, 100)


class Removed(msgspec.Struct, kw_only=True):
    """A page that did not survive."""

    id: str
    url: str
    dump: str
    file_path: str
    step: str
    """One of `STEPS`."""
    reason: str
    """Short and countable."""
    detail: str
    """What is particular to this page: the domain, the probability, the URL of the page it duplicates."""
    text: str | None
    """Its main text, if it came that far."""


REMOVED_COLUMNS = dict.fromkeys(Removed.__struct_fields__, "string")


class Tally(msgspec.Struct):
    """Counts of one part, or of all."""

    pages: int = 0
    bytes: int = 0
    left: dict[str, list[int]] = {}
    """Step -> [pages, bytes or characters] after it; bytes of the body up to `url`, characters of the text from then on."""
    reasons: dict[str, dict[str, int]] = {}
    examples: dict[str, list[str]] = {}
    languages: dict[str, int] = {}
    warnings: list[str] = []

    def keep(self, step: str, size: int) -> None:
        """Count a page that is still there after `step`."""
        row = self.left.setdefault(step, [0, 0])
        row[0] += 1
        row[1] += size

    def drop(self, removed: Removed) -> None:
        """Count a page that went."""
        reasons = self.reasons.setdefault(removed.step, {})
        reasons[removed.reason] = reasons.get(removed.reason, 0) + 1
        examples = self.examples.setdefault(f"{removed.step}: {removed.reason}", [])
        if len(examples) < EXAMPLES:
            examples.append(removed.url)

    def add(self, other: "Tally") -> None:
        """Add the counts of another part."""
        self.pages += other.pages
        self.bytes += other.bytes
        for step, (pages, size) in other.left.items():
            row = self.left.setdefault(step, [0, 0])
            row[0] += pages
            row[1] += size
        for step, reasons in other.reasons.items():
            mine = self.reasons.setdefault(step, {})
            for reason, count in reasons.items():
                mine[reason] = mine.get(reason, 0) + count
        for name, urls in other.examples.items():
            mine_urls = self.examples.setdefault(name, [])
            mine_urls += urls[: EXAMPLES - len(mine_urls)]
        for language, count in other.languages.items():
            self.languages[language] = self.languages.get(language, 0) + count
        self.warnings += other.warnings


def summary(tally: Tally, urls: Iterable[str], lengths: Sequence[int], cluster_sizes: Mapping[int, int]) -> dict[str, Any]:
    """The funnel as plain data: steps, reasons, languages, domains, lengths (characters of the documents), duplicates."""
    units = {"crawl": "bytes", "broken": "bytes", "url": "bytes"}
    rows = {"crawl": [tally.pages, tally.bytes]} | {step: tally.left.get(step, [0, 0]) for step in (*STEPS, "pii")}
    ordered = sorted(lengths)
    return {
        "steps": [{"step": step, "pages": row[0], units.get(step, "characters"): row[1]} for step, row in rows.items()],
        "removed": [
            {"step": step, "reason": reason, "pages": count, "examples": tally.examples[f"{step}: {reason}"]}
            for step in STEPS
            for reason, count in sorted(tally.reasons.get(step, {}).items(), key=lambda item: (-item[1], item[0]))
        ],
        "poison": {"pages": sum(tally.reasons.get("broken", {}).values()), "warnings": tally.warnings},
        "languages": dict(sorted(tally.languages.items(), key=lambda item: (-item[1], item[0]))[:30]),
        "domains": dict(sorted(Counter(map(host_of, urls)).items(), key=lambda item: (-item[1], item[0]))[:30]),
        "characters": {f"p{q}": ordered[q * (len(ordered) - 1) // 100] for q in QUANTILES if ordered},
        "duplicates": {
            "clusters": sum(cluster_sizes.values()),
            "sizes": {str(size): count for size, count in sorted(cluster_sizes.items())},
        },
    }
