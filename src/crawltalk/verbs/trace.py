"""The verb that finds a text in the training data: its passages, or what it was learned from."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    from crawltalk.attribution.training import Ranked
    from crawltalk.poisoning.lineage import Origin
    from crawltalk.retrieval.trace import Trace, TraceIndex
    from crawltalk.run.folder import RunFolder

CHECKPOINTS = 3
"""Most of a base model's checkpoints that `--by influence` adds up; each costs as much as the model itself."""


def trace(
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    model: Annotated[str, Parameter(help="A run.")] = "runs/small",
    by: Literal["ngrams", "bm25", "influence"] | None = None,
    prompt: str = "",
    candidates: int | None = None,
    min_tokens: int | None = None,
    rows: int = 10,
    sources: int | None = None,
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON object instead.")] = False,
) -> None:
    """Find passages of a text that occur word for word in a run's training data, on which pages and in which
    conversations; or, with --by, rank what it was trained on.

    Parameters
    ----------
    text
        An answer of the model, or any other text; `-` reads it from standard input.
    by
        List documents instead, the best ones first: by the pairs of tokens that they share with the text (ngrams), by
        words (bm25), or by how much likelier they made it, from gradients (influence).
    prompt
        With --by influence: the text is the assistant's reply to this, and conversations that it learned from are
        listed, too.
    candidates
        With --by influence: how many documents, and conversations, are looked at, of those that share most with the
        text.
    min_tokens
        The fewest tokens of a passage.
    rows
        The most passages that are listed, the least likely ones first; or the most documents.
    sources
        The most pages that are listed for a passage; 5 if absent.
    """
    from crawltalk.retrieval.trace import MAX_SOURCES, MIN_TOKENS

    if by is not None:
        if min_tokens is not None or sources is not None:
            raise BadInput("--min-tokens and --sources belong to passages; leave out --by")
        _rank(text, model, by, prompt, candidates, rows, json)
        return
    if prompt or candidates is not None:
        raise BadInput("--prompt and --candidates belong to --by influence")
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


def _rank(
    text: str,
    model: str,
    by: str,
    prompt: str,
    candidates: int | None,
    rows: int,
    json: bool,
) -> None:
    """The training data of a run, ranked for a text."""
    from crawltalk.attribution.training import CANDIDATES, TrainingDocuments, conversations_by_influence
    from crawltalk.chat.messages import Conversation
    from crawltalk.chat.render import ChatRenderer
    from crawltalk.model.config import read_config, shape_of
    from crawltalk.model.hf import load_model
    from crawltalk.retrieval.passages import Passages
    from crawltalk.tokenizer import Tokenizer

    if by != "influence" and (prompt or candidates is not None):
        raise BadInput("--prompt and --candidates belong to --by influence")
    candidates = CANDIDATES if candidates is None else candidates
    if rows < 1 or candidates < 1:
        raise BadInput("candidates and, with --by, rows are 1 or more")
    if prompt and not prompt.strip():
        raise BadInput("the prompt is empty; put the words that the text replies to in quotes")
    text = read_text(text, "text")
    index, run = open_index(model), find_run(model)
    base = run.finished("pretrain")
    documents = TrainingDocuments(index, Tokenizer.load(base), shape_of(read_config(base), base).context)
    conversations: list[Ranked] = []
    if by == "ngrams":
        listed = documents.by_ngrams(text, rows)
    elif by == "bm25":
        listed = documents.by_words(text, Passages.of_run(run), rows)
    else:
        models = [load_model(folder) for folder in _checkpoints(run)]
        listed = documents.by_influence(text, models, rows, candidates)
        if prompt:
            assistant = run.finished("sft")
            conversations = conversations_by_influence(
                prompt,
                text,
                load_model(assistant),
                list(read_jsonl(assistant / "conversations.jsonl", Conversation)),
                ChatRenderer.load(assistant),
                rows,
                candidates,
            )
    if json:
        print(
            msgspec.json.encode(
                {"text": text, "by": by, "documents": listed, "conversations": conversations}
            ).decode()
        )
        return
    _print_ranked("documents", listed)
    if prompt:
        _print_ranked("conversations", conversations)


def _checkpoints(run: "RunFolder") -> list[Path]:
    """Folders of models of the pretraining: those that were kept on the way, evenly spaced, and the last."""
    last, manifest = run.finished("pretrain"), run.manifest("pretrain")
    end = f"step-{int(manifest.metrics['steps']):06d}" if manifest else ""
    kept = sorted(folder for folder in last.glob("checkpoints/step-*") if folder.name != end)
    count = min(len(kept), CHECKPOINTS - 1)
    return [*(kept[(number + 1) * len(kept) // count - 1] for number in range(count)), last]


def _print_ranked(what: str, rows: "Sequence[Ranked]") -> None:
    console.print(f"[bold]{what}[/]" if rows else f"no {what} share anything with the text")
    for number, row in enumerate(rows, 1):
        where = row.url or f"line {row.id} of sft/conversations.jsonl"
        console.print(
            f"{number:3}  {row.score:10.4g}  {where} ({row.title or row.id})", soft_wrap=True, markup=False
        )
        console.print(f"     {row.excerpt}", soft_wrap=True, markup=False, style="dim")


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
