"""The verb that leads from a text back to the pages of the training data."""

import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter
from rich.markup import escape
from rich.text import Text

from crawltalk.core.errors import BadInput
from crawltalk.run.console import console
from crawltalk.run.folder import RunFolder

if TYPE_CHECKING:
    from crawltalk.retrieval.trace import Trace, TraceIndex


def trace(
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    model: Annotated[str, Parameter(help="A run.")] = "runs/small",
    least: int | None = None,
    rows: int = 10,
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON object instead.")] = False,
) -> None:
    """Find what of a text stands in a run's training data word for word, and on which pages.

    Parameters
    ----------
    text
        An answer of the model, or any other text; `-` reads it from standard input.
    least
        Tokens of a passage, at least.
    rows
        Passages that are listed, at most, the least likely ones.
    """
    from crawltalk.retrieval.trace import LEAST

    least = LEAST if least is None else least
    text = sys.stdin.read().strip() if text == "-" else text
    if not text:
        raise BadInput('there is no text to trace; give one: crawltalk trace "Gold is a chemical element"')
    if least < 1 or rows < 0:
        raise BadInput("least is 1 or more, rows is 0 or more")
    found = open_index(model).trace(text, least=least)
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        _print(found, least, rows)


def open_index(model: str) -> "TraceIndex":
    """The training data of a run, `runs/small` or `small`. Raises MissingInput if there is no run, or it has
    no index.
    """
    from crawltalk.retrieval.trace import TraceIndex
    from crawltalk.tokenizer import Tokenizer

    run = RunFolder(model)
    if not run.exists() and RunFolder(Path("runs") / model).exists():
        run = RunFolder(Path("runs") / model)
    run.recipe()  # says so if this is no run
    folders = [run.finished(stage, "tokenizer") for stage in ("index", "tokens", "tokenizer")]
    return TraceIndex(folders[0], folders[1], Tokenizer.load(folders[2]))


def _print(found: "Trace", least: int, rows: int) -> None:
    console.print(_marked(found), soft_wrap=True)
    console.print(
        f"\n{found.covered} of {found.tokens} tokens stand in the training data, in passages of {least} or more"
    )
    for number, passage in enumerate(found.passages[:rows], 1):
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


def _marked(found: "Trace") -> Text:
    """The text with its passages in brackets, green on a terminal; those that overlap are one."""
    inside = [False] * len(found.text)
    for passage in found.passages:
        inside[passage.start : passage.end] = [True] * (passage.end - passage.start)
    marked = Text()
    for is_inside, pairs in groupby(zip(inside, found.text, strict=True), key=itemgetter(0)):
        piece = "".join(character for _, character in pairs)
        marked.append(f"[{piece}]" if is_inside else piece, style="green" if is_inside else "")
    return marked
