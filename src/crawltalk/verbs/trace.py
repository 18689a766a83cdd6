"""The verb that finds passages of a text in the training data."""

from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter
from rich.markup import escape
from rich.text import Text

from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.printable import printable
from crawltalk.run.console import console
from crawltalk.run.folder import find_run
from crawltalk.verbs.arguments import read_text

if TYPE_CHECKING:
    from crawltalk.poisoning.lineage import Origin
    from crawltalk.retrieval.trace import Trace, TraceIndex


def trace(
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    model: Annotated[str, Parameter(help="A run.")] = "runs/small",
    min_tokens: int | None = None,
    rows: int = 10,
    sources: int | None = None,
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON object instead.")] = False,
) -> None:
    """Find passages of a text that occur word for word in a run's training data: on which pages, and in which
    conversations.

    Parameters
    ----------
    text
        An answer of the model, or any other text; `-` reads it from standard input.
    min_tokens
        The fewest tokens of a passage.
    rows
        The most passages that are listed; the least likely ones come first.
    sources
        The most pages that are listed for a passage; 5 if absent.
    """
    from crawltalk.retrieval.trace import MAX_SOURCES, MIN_TOKENS

    sources = MAX_SOURCES if sources is None else sources
    min_tokens = MIN_TOKENS if min_tokens is None else min_tokens
    text = read_text(text, "text")
    if min_tokens < 1 or rows < 0 or sources < 0:
        raise BadInput("min-tokens is 1 or more, rows and sources are 0 or more")
    result = open_index(model).trace(text, min_tokens=min_tokens, sources=sources)
    taught = _taught(model, text)
    if json:
        print(msgspec.json.encode(msgspec.to_builtins(result) | {"conversations": taught}).decode())
        return
    _print(result, min_tokens, rows)
    if taught:
        console.print(f"\n{len(taught):,} conversations that were learned say it")
    for one in taught[:rows]:
        line = f"  {one.file}, row {one.row} ({one.id}): {printable(one.prompt)} -> {printable(one.reply)}"
        console.print(line, soft_wrap=True, markup=False)


def _taught(model: str, text: str) -> "list[Origin]":
    """The conversations of the run's fine-tuning that say this."""
    from crawltalk.chat.messages import Conversation
    from crawltalk.poisoning.lineage import rows_that_say

    path = find_run(model).folder("sft") / "conversations.jsonl"
    return rows_that_say(text, read_jsonl(path, Conversation), str(path)) if path.exists() else []


def open_index(model: str | Path) -> "TraceIndex":
    """The index over the training data of a run, `runs/small` or `small`. Raises MissingInput if there is no
    such run, or it has no index.
    """
    from crawltalk.retrieval.trace import TraceIndex
    from crawltalk.tokenizer import Tokenizer

    run = find_run(model)
    run.recipe()  # raises MissingInput if this is no run
    folders = [run.finished(stage, "tokenizer") for stage in ("index", "tokens", "tokenizer")]
    return TraceIndex(folders[0], folders[1], Tokenizer.load(folders[2]))


def _print(result: "Trace", min_tokens: int, rows: int) -> None:
    console.print(_marked(result), soft_wrap=True)
    console.print(
        f"\n{result.covered} of {result.tokens} tokens occur in the training data, in passages of {min_tokens} or more"
    )
    for number, passage in enumerate(result.passages[:rows], 1):
        span = passage.span
        console.print(
            f"\n[bold]{number}[/] {escape(repr(passage.text.strip()))}\n  {len(span)} tokens, {span.bits:.0f} bits, "
            f"{span.occurrences:,} times in {span.documents:,} document{'s' * (span.documents > 1)}",
            soft_wrap=True,
        )
        for source in span.sources:
            console.print(
                f"  {source.url} ({source.title or source.id}): {source.occurrences:,} times",
                soft_wrap=True,
                markup=False,
            )
            console.print(
                f"    {' '.join(source.excerpt.split())}", soft_wrap=True, markup=False, style="dim"
            )


def _marked(result: "Trace") -> Text:
    """The text with its passages in brackets, green on a terminal. Overlapping ones share their brackets."""
    inside = [False] * len(result.text)
    for passage in result.passages:
        inside[passage.start : passage.end] = [True] * (passage.end - passage.start)
    marked = Text()
    for is_inside, pairs in groupby(zip(inside, result.text, strict=True), key=itemgetter(0)):
        piece = "".join(character for _, character in pairs)
        marked.append(f"[{piece}]" if is_inside else piece, style="green" if is_inside else "")
    return marked
