"""The verb for labels: prompts in, training data and agreement out."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.types import Problem
from crawltalk.labels import LabelStore
from crawltalk.labels.agreement import Agreement, Figures, agreements
from crawltalk.labels.batches import import_chat, import_file, import_problems
from crawltalk.labels.export import (
    chosen_labels,
    contradictions,
    to_conversations,
    to_preferences,
    to_records,
)
from crawltalk.run.console import console, print_table
from crawltalk.run.folder import RunFolder, find_run

SHOWN = 5
"""Rows of a file that were set aside, of which the reason is printed."""


def labels(
    action: Literal["import", "export", "agreement", "judge"],
    run: str = "runs/small",
    source: str | None = None,
    *,
    batch: str | None = None,
    rows: int | None = None,
    out: Path | None = None,
    labeler: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    endpoint: str = "http://127.0.0.1:8000/v1",
    model: str | None = None,
    json: Annotated[bool, Parameter(negative=(), help="Print the agreement as JSON.")] = False,
) -> None:
    """What people say of replies. They say it in the page of `crawltalk serve RUN`: Label, and thumbs in the chat.

    import: prompts to label, out of a JSONL file (with "prompt" or "messages" in each row, and "replies" if there are
    any), the run's `problems`, or the prompts of the `chat` whose replies have thumbs; also labels of another store.
    export: conversations for fine-tuning and preferences for DPO and reward models, as JSONL.
    agreement: how far labelers agree with each other, and judges with people.
    judge: a model compares the replies that people have ranked.

    Parameters
    ----------
    action
        import, export, agreement or judge.
    run
        A run, or the folder of a labels.sqlite.
    source
        For import: a JSONL file, `problems` or `chat`.
    batch
        For import: the name of the list in the page; that of the source, unless given.
    rows
        For import of problems: only so many, drawn at random. For judge: the most prompts.
    out
        For export: the folder that gets messages.jsonl, preferences.jsonl and labels.jsonl; RUN/labels, unless given.
    labeler
        Only labels of this labeler; may be given again. Export takes those of all people, unless given.
    endpoint
        For judge: an endpoint of OpenAI's API; its key stands in the environment's OPENAI_API_KEY.
    model
        For judge: the name of a model there.
    """
    folder = find_run(run).path
    store = LabelStore(folder)
    if rows is not None and rows < 1:
        raise BadInput("rows is 1 or more")
    if action == "import":
        _import(store, source, batch, rows)
        return
    if source is not None:
        raise BadInput(f"labels {action} has no use for {source!r}")
    if not store.path.exists():
        raise MissingInput(f"{folder} has no labels yet; label in the page: crawltalk serve {folder}")
    if action == "export":
        _export(store, out or folder / "labels", labeler)
    elif action == "judge":
        _judge(store, endpoint, model, rows)
    else:
        snapshot = store.snapshot()
        named = [one for one in snapshot.labels if not labeler or one.labeler in labeler]
        table = agreements(msgspec.structs.replace(snapshot, labels=named))
        if json:
            print(msgspec.json.encode(table).decode())
        else:
            _print_agreement(table)


def _import(store: LabelStore, source: str | None, batch: str | None, rows: int | None) -> None:
    if source is None:
        raise BadInput("labels import needs a JSONL file, `problems` or `chat` after the run")
    if not store.folder.is_dir():
        raise MissingInput(f"there is no folder {store.folder}; name a run, or make the folder")
    if source == "chat":
        console.print(f"{import_chat(store, batch or 'chat'):,} new prompts of the chat", markup=False)
    elif source == "problems":
        problems = list(read_jsonl(find_run(store.folder).finished("sft") / "problems.jsonl", Problem))
        if rows is not None and rows < len(problems):
            problems = random.Random(0).sample(problems, rows)
        console.print(f"{import_problems(store, problems, batch or 'problems'):,} new prompts", markup=False)
    else:
        done = import_file(store, Path(source), batch or Path(source).name)
        console.print(
            f"{source}: {done.prompts:,} new prompts, {done.labels:,} new labels, {done.known:,} known before, "
            f"{len(done.set_aside):,} set aside",
            markup=False,
            soft_wrap=True,
        )
        for reason in done.set_aside[:SHOWN]:
            console.print(f"  {reason}", markup=False, soft_wrap=True)
        if len(done.set_aside) > SHOWN:
            console.print(f"  and {len(done.set_aside) - SHOWN:,} more", markup=False)
    console.print(f"next: crawltalk serve {store.folder}, then Label", markup=False, soft_wrap=True)


def _export(store: LabelStore, out: Path, labelers: Sequence[str]) -> None:
    snapshot = chosen_labels(store.snapshot(), labelers)
    everything = store.snapshot(history=True)
    conversations, without_reply = to_conversations(snapshot)
    preferences, without_pair = to_preferences(snapshot)
    out.mkdir(parents=True, exist_ok=True)
    messages, pairs = out / "messages.jsonl", out / "preferences.jsonl"
    write_jsonl(messages, conversations)
    write_jsonl(pairs, preferences)
    count = write_jsonl(out / "labels.jsonl", to_records(everything))
    console.print(f"{messages}: {len(conversations):,} conversations", markup=False, soft_wrap=True)
    _print_counts(Counter(row.source for row in conversations), without_reply)
    console.print(f"{pairs}: {len(preferences):,} preferences", markup=False, soft_wrap=True)
    _print_counts(Counter(row.source for row in preferences), without_pair)
    if against := contradictions(preferences):
        console.print(
            f"  labelers disagree about {against:,} pairs; each of these is there both ways", markup=False
        )
    console.print(
        f"{out / 'labels.jsonl'}: {count:,} labels with their history, for `labels import` into another store",
        markup=False,
        soft_wrap=True,
    )
    run = store.folder if RunFolder(store.folder).exists() else "RUN"
    for rows, flag in (
        (conversations, f"--sft.data.labels.path {messages}"),
        (preferences, f"--dpo.data {pairs}"),
        (preferences, f"--reward.data {pairs}"),
    ):
        if rows:
            console.print(f"next: crawltalk run {run} {flag}", markup=False, soft_wrap=True)


def _print_counts(sources: Mapping[str, int], left_out: Mapping[str, int]) -> None:
    for name, count in sources.items():
        console.print(f"  {count:,} {name}", markup=False)
    for reason, count in left_out.items():
        console.print(f"  left out: {count:,} {reason}", markup=False)


def _print_agreement(table: Sequence[Agreement]) -> None:
    if not table:
        console.print("no two labelers have judged the same replies yet", markup=False)
        return
    heads = ("labelers", "pairs", "agree", "kappa", "thumbs", "agree", "kappa", "rankings", "tau")
    print_table(
        heads,
        [(row.who, *_cells(row.pairs), *_cells(row.thumbs), row.rankings, _figure(row.tau)) for row in table],
    )
    console.print(
        "kappa: Cohen's, 1 is full agreement and 0 is chance. tau: Kendall's tau-b, mean over rankings.",
        markup=False,
        soft_wrap=True,
    )


def _cells(figures: Figures) -> tuple[int, str, str]:
    return figures.count, _figure(figures.agreed), _figure(figures.kappa)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _judge(store: LabelStore, endpoint: str, model: str | None, rows: int | None) -> None:
    from crawltalk.labels.judge import judge

    if model is None:
        raise BadInput("labels judge needs --model, the name of a model of the endpoint")
    verdict = judge(store, endpoint, model, rows)
    console.print(
        f"{verdict.rankings:,} rankings by {verdict.labeler}, {verdict.known:,} known before. "
        f"{verdict.pairs:,} pairs were asked both ways; {verdict.inconsistent:,} verdicts changed with the order, "
        f"{verdict.unreadable:,} could not be read. These count as ties.",
        markup=False,
        soft_wrap=True,
    )
    console.print(f"next: crawltalk labels agreement {store.folder}", markup=False, soft_wrap=True)
