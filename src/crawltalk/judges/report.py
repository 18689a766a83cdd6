"""What a judge said, and what we say of the same attempts.

FOLDER/report.json       one `Report`
FOLDER/verdicts.jsonl    a `Verdict` for each attempt
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from crawltalk.core.errors import BadInput
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.statistics import wilson
from crawltalk.redteam.frame import Outcome

REPORT, VERDICTS = "report.json", "verdicts.jsonl"


class Verdict(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One attempt, judged twice."""

    part: str
    """Probe and detector, suite, or task."""
    attempt: str
    """Of the judge: what tells it from the others of its part."""
    theirs: bool | None
    """Whether the judge counts a hit: an attack that succeeded, an answer that is right. None: it was not evaluated."""
    ours: Outcome
    reason: str = ""
    """Why ours is what it is, where the reply alone does not say it."""
    reply: str = ""


class Disagreement(msgspec.Struct, kw_only=True):
    """Attempts on which the judge and we differ, for one reason."""

    theirs: bool
    ours: Outcome
    reason: str
    count: int


class Figure(msgspec.Struct, kw_only=True):
    """Hits of a control."""

    evaluated: int
    hits: int


class Part(msgspec.Struct, kw_only=True):
    """One probe with one detector, one suite, or one task."""

    name: str
    asked: int
    """Attempts that were to be made, as far as the judge says it."""
    evaluated: int
    """Those that the judge gave a verdict on."""
    skipped: dict[str, int]
    """Reason -> attempts without one. A judge that skips all of them may end without an error."""
    hits: int
    rate: float | None
    """Of the evaluated ones; None if there are none."""
    interval: tuple[float, float] | None
    """Wilson's, at 95 %."""
    ours: dict[Outcome, int]
    controls: dict[str, Figure] = {}
    """Null models, through the same judge."""
    disagreements: list[Disagreement] = []
    figures: dict[str, float] = {}
    """What else the judge measures, and our figure beside it."""


class Report(msgspec.Struct, kw_only=True):
    """report.json."""

    judge: str
    version: str
    model: str
    commands: list[list[str]]
    """What was run, one after the other."""
    seconds: float
    finished: bool
    """Whether the judge came to its end. What it wrote before is reported in any case."""
    problem: str = ""
    """Why it did not."""
    capability: float | None = None
    """Harmless questions that the model answers, where that was asked: who answers nothing refuses nothing."""
    parts: list[Part] = []
    notes: list[str] = []


def part_of(name: str, verdicts: Sequence[Verdict], asked: int | None = None) -> Part:
    """The figures of a part from its attempts."""
    judged = [one for one in verdicts if one.theirs is not None]
    hits = sum(one.theirs is True for one in judged)
    counts = Counter(one.ours for one in verdicts)
    unevaluated = Counter(one.reason or "no reply" for one in verdicts if one.theirs is None)
    missing = (asked or 0) - len(verdicts)
    if missing > 0:
        unevaluated["not reached before the end"] = missing
    return Part(
        name=name,
        asked=max(len(verdicts), asked or 0),
        evaluated=len(judged),
        skipped=dict(unevaluated),
        hits=hits,
        rate=hits / len(judged) if judged else None,
        interval=wilson(hits, len(judged)) if judged else None,
        ours={outcome: counts[outcome] for outcome in Outcome},
        disagreements=disagreements(judged),
    )


def disagreements(verdicts: Iterable[Verdict]) -> list[Disagreement]:
    """The most frequent first."""
    found = Counter(
        (one.theirs, one.ours, one.reason)
        for one in verdicts
        if one.theirs is not None and one.ours is not (Outcome.SUCCESS if one.theirs else Outcome.FAIL)
    )
    return [
        Disagreement(theirs=bool(theirs), ours=ours, reason=reason, count=count)
        for (theirs, ours, reason), count in found.most_common()
    ]


def read_report(folder: Path) -> Report | None:
    """Read report.json; None if there is none. Raises BadInput if it is another file."""
    path = folder / REPORT
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{path}: {error}; choose another --out") from None


def write_report(folder: Path, report: Report, verdicts: Sequence[Verdict]) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / VERDICTS, verdicts)
    write_atomically(folder / REPORT, msgspec.json.format(msgspec.json.encode(report)))
