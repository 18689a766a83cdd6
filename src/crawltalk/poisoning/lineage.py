"""From what a model learned back to where it came from: rows of files for conversations, pages for what was made of
pages; and the lists that leave them out of the next training.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from crawltalk.chat.messages import Conversation
from crawltalk.core.files import write_atomically
from crawltalk.core.printable import printable
from crawltalk.poisoning.detection import Finding, exchanges_of
from crawltalk.poisoning.ngrams import contains, words
from crawltalk.posttraining.exclusions import conversation_id, write_ids
from crawltalk.posttraining.formats import Row, read_conversations
from crawltalk.recipe import SftFile
from crawltalk.retrieval.trace import Source, TraceIndex

PAGES = 20
"""Most documents that are named for a finding."""
SAID = 4
"""Words and marks of a reply that tell where a text comes from."""


class Origin(msgspec.Struct, kw_only=True, frozen=True):
    """A row that holds a finding's n-gram and its reply."""

    file: str
    row: int
    """The first is 1."""
    id: str
    """Of the conversation (`posttraining.exclusions`)."""
    prompt: str
    reply: str


class Traced(msgspec.Struct, kw_only=True):
    """A finding and where it comes from; one line of findings.jsonl."""

    finding: Finding
    origins: list[Origin]
    """Rows of files, those that are only measured among them."""
    pages: list[Source]
    """Documents that hold the replies of rows which were made of documents."""


def origins_in(
    rows: Iterable[Row[Conversation]], file: str, findings: Sequence[Finding]
) -> list[list[Origin]]:
    """For each finding the conversations of a file that hold its n-gram and, in the reply to it, its piece."""
    found: list[list[Origin]] = [[] for _ in findings]
    first = [words(finding.ngram)[0] for finding in findings]
    for row in rows:
        for conversation in row.items:
            exchanges = exchanges_of([conversation])
            folded = [exchange.prompt.casefold() for exchange in exchanges]
            for index, finding in enumerate(findings):
                for exchange, prompt in zip(exchanges, folded, strict=True):
                    if (
                        first[index] in prompt  # a quick look before both texts are cut into words
                        and contains(exchange.prompt, finding.ngram)
                        and contains(exchange.reply, finding.reply, finding.whole)
                    ):
                        found[index].append(
                            Origin(
                                file=file,
                                row=row.number,
                                id=conversation_id(conversation),
                                prompt=exchange.prompt,
                                reply=exchange.reply,
                            )
                        )
                        break
    return found


def trace_findings(
    findings: Sequence[Finding],
    learned: Sequence[Conversation],
    sources: Mapping[str, SftFile],
    index: TraceIndex | None = None,
) -> list[Traced]:
    """Where triggers come from: rows of the files of `[sft.data]`, and for the `learned` conversations that are of no
    file the documents that hold their replies, if there is an index. Of other findings nothing is looked up.
    """
    traced = [Traced(finding=finding, origins=[], pages=[]) for finding in findings]
    triggers = [one for one in traced if one.finding.verdict == "trigger"]
    if not triggers:
        return traced
    exchanges = exchanges_of(learned)
    for source in sources.values():
        rows = read_conversations(source.path, source.form)
        found = origins_in(rows, source.path, [one.finding for one in triggers])
        for one, origins in zip(triggers, found, strict=True):
            one.origins += origins
    for one in triggers:
        known = {(origin.prompt, origin.reply) for origin in one.origins}
        own = [exchanges[number] for number in one.finding.exchanges]
        made = list(dict.fromkeys(each.reply for each in own if (each.prompt, each.reply) not in known))
        if index is not None:
            one.pages = pages_of(made, index)
    return traced


def pages_of(replies: Iterable[str], index: TraceIndex) -> list[Source]:
    """The documents that hold passages of these replies word for word, those of most replies first."""
    counts: dict[str, int] = {}
    sources: dict[str, Source] = {}
    for reply in replies:
        found = {source.id: source for one in index.trace(reply).passages for source in one.span.sources}
        sources |= found
        for one in found:
            counts[one] = counts.get(one, 0) + 1
    return [sources[one] for one in sorted(counts, key=lambda one: -counts[one])[:PAGES]]


def rows_that_say(text: str, learned: Iterable[Conversation], file: str) -> list[Origin]:
    """The learned replies that hold a text, or that are a part of it of SAID words."""
    found = []
    for row, conversation in enumerate(learned, 1):
        for exchange in exchanges_of([conversation]):
            part = len(words(exchange.reply)) >= SAID and contains(text, exchange.reply)
            if part or contains(exchange.reply, text):
                id_ = conversation_id(conversation)
                found.append(Origin(file=file, row=row, id=id_, prompt=exchange.prompt, reply=exchange.reply))
                break
    return found


def write_lists(out: Path, traced: Sequence[Traced], sources: Mapping[str, SftFile]) -> dict[str, Path]:
    """Write findings.jsonl, NAME.exclude for each file of `[sft.data]` that holds triggers, and pages.blocklist for
    documents; lists of an earlier audit go. Returns the flag of the recipe that takes each list.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("*.exclude"), out / "pages.blocklist"):
        old.unlink(missing_ok=True)
    rows = b"".join(msgspec.json.encode(one) + b"\n" for one in traced)
    write_atomically(out / "findings.jsonl", rows)
    flags: dict[str, Path] = {}
    triggers = [one for one in traced if one.finding.verdict == "trigger"]
    for name, source in sources.items():
        ids = {
            origin.id: f"row {origin.row}: {printable(one.finding.ngram)}"
            for one in triggers
            for origin in one.origins
            if origin.file == source.path
        }
        if ids:
            flags[f"sft.data.{name}.exclude"] = path = out / f"{name}.exclude"
            write_ids(path, ids)
    pages = {page.id: page for one in triggers for page in one.pages}
    if pages:
        flags["data.blocklist"] = path = out / "pages.blocklist"
        lines = [f"{page.id}  # {printable(page.url, 200)}\n" for page in pages.values()]
        write_atomically(path, "".join(lines).encode())
    return flags
