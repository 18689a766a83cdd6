"""What the data stage did: pages and characters left after each step, why the others were dropped, and, if the
truth is known, how right that was. The result is `funnel.json`; every dropped page has a row in
`removed-*.parquet`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from time import thread_time
from typing import Any

import msgspec

from crawltalk.core.printable import printable

STEPS = ("broken", "url", "early_language", "extraction", "site_lines", "language", "quality", "duplicate")
"""Steps that can drop a page, in order; any other step drops only what fails."""
EXAMPLES = 3
SHOWN = 30
"""Languages and hosts in the record."""
MANY = 1_000_000
"""With more hosts than this, those seen only once are forgotten, so that memory does not grow with the corpus."""
QUANTILES = (0, 5, 25, 50, 75, 95, 100)


class Removed(msgspec.Struct, kw_only=True):
    """A dropped page."""

    id: str
    url: str
    dump: str
    file_path: str
    step: str
    """One of `STEPS`, or a later step that failed."""
    reason: str
    """Short and countable."""
    detail: str
    """Details of this page: the domain, the probability, the URL of the page that it duplicates."""
    text: str | None
    """Its main text, if that was extracted."""


REMOVED_COLUMNS = dict.fromkeys(Removed.__struct_fields__, "string")


class Stats(msgspec.Struct):
    """Counts of one part, or of all."""

    pages: int = 0
    bytes: int = 0
    left: dict[str, list[int]] = {}
    """Step -> [pages, bytes or characters] after it; bytes of the body up to `url`, characters of the text
    from then on.
    """
    reasons: dict[str, dict[str, int]] = {}
    examples: dict[str, list[str]] = {}
    languages: dict[str, int] = {}
    hosts: dict[str, int] = {}
    """Pages of each host in the crawl."""
    costs: dict[str, list[float]] = {}
    """Step -> [pages that entered it, CPU seconds]."""
    boilerplate: tuple[int, ...] = (0, 0, 0, 0)
    """Characters of pages, and those in lines that their sites repeat: before such lines were dropped, and after."""

    def keep(self, step: str, size: int) -> None:
        """Count a page that is left after `step`."""
        row = self.left.setdefault(step, [0, 0])
        row[0] += 1
        row[1] += size

    def count_page(self, host: str, size: int) -> None:
        """Count a page that was read; `size`: bytes of its body."""
        self.pages += 1
        self.bytes += size
        host = printable(host)
        self.hosts[host] = self.hosts.get(host, 0) + 1

    def count_language(self, language: str) -> None:
        """Count a page whose language was identified."""
        self.languages[language] = self.languages.get(language, 0) + 1

    def count_boilerplate(self, counts: Sequence[int]) -> None:
        """Add characters to `boilerplate`."""
        self.boilerplate = tuple(mine + more for mine, more in zip(self.boilerplate, counts, strict=True))

    def drop(self, removed: Removed) -> None:
        """Count a page that was dropped."""
        reasons = self.reasons.setdefault(removed.step, {})
        reasons[removed.reason] = reasons.get(removed.reason, 0) + 1
        examples = self.examples.setdefault(f"{removed.step}: {removed.reason}", [])
        if len(examples) < EXAMPLES:
            examples.append(printable(removed.url, 200))

    def add(self, other: "Stats") -> None:
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
        for mine_counts, counts in ((self.languages, other.languages), (self.hosts, other.hosts)):
            for name, count in counts.items():
                mine_counts[name] = mine_counts.get(name, 0) + count
        if len(self.hosts) > MANY:
            self.hosts = {host: count for host, count in self.hosts.items() if count > 1}
        self.count_boilerplate(other.boilerplate)
        for step, (pages, seconds) in other.costs.items():
            cost = self.costs.setdefault(step, [0, 0.0])
            cost[0] += pages
            cost[1] += seconds


class Clock:
    """Adds up the CPU seconds of each step in `Stats.costs`."""

    def __init__(self, costs: dict[str, list[float]]) -> None:
        self.costs, self.last = costs, thread_time()

    def lap(self, step: str) -> None:
        """Add the time since the last lap to `step`."""
        now = thread_time()
        row = self.costs.setdefault(step, [0, 0.0])
        row[0] += 1
        row[1] += now - self.last
        self.last = now


def summary(
    stats: Stats,
    warnings: Sequence[str],
    hosts: Mapping[str, int],
    lengths: Counter[int],
    cluster_sizes: Counter[int],
) -> dict[str, Any]:
    """The funnel as plain data: steps, reasons, languages, hosts before and after, lengths of the documents,
    duplicates.

    `hosts`: documents of each; `lengths`: characters -> documents; `cluster_sizes`: documents -> clusters.
    """
    units = {"crawl": "bytes", "broken": "bytes", "url": "bytes", "early_language": "bytes"}
    rows = {"crawl": [stats.pages, stats.bytes]} | {
        step: stats.left.get(step, [0, 0]) for step in (*STEPS, "pii")
    }
    for step in ("early_language", "site_lines"):
        if step not in stats.left and step not in stats.reasons:
            del rows[step]
    return {
        "steps": [
            {"step": step, "pages": row[0], units.get(step, "characters"): row[1]}
            for step, row in rows.items()
        ],
        "removed": [
            {"step": step, "reason": reason, "pages": count, "examples": stats.examples[f"{step}: {reason}"]}
            for step in (*STEPS, *sorted(stats.reasons.keys() - set(STEPS)))
            for reason, count in most(stats.reasons.get(step, {})).items()
        ],
        "poison": {"pages": sum(stats.reasons.get("broken", {}).values()), "warnings": list(warnings)},
        "languages": most(stats.languages, SHOWN),
        "hosts": {
            "crawl": most(stats.hosts, SHOWN),
            "documents": {printable(host): count for host, count in most(hosts, SHOWN).items()},
        },
        "characters": {f"p{q}": quantile(lengths, q) for q in QUANTILES if lengths},
        "duplicates": {
            "clusters": sum(cluster_sizes.values()),
            "sizes": {str(size): count for size, count in sorted(cluster_sizes.items())},
        },
    }


def most(counts: Mapping[str, int], number: int | None = None) -> dict[str, int]:
    """The most frequent first, by name among equals."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:number])


def quantile(counts: Counter[int], percent: int) -> int:
    """The value below which `percent` of all lie; `counts`: value -> how often."""
    before = percent * (counts.total() - 1) // 100
    for value in sorted(counts):
        before -= counts[value]
        if before < 0:
            return value
    raise ValueError("nothing was counted")
