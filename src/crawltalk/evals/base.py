"""What the base model does before anybody taught it to answer: it recites, it invents, and it follows a
pattern in its prompt.
"""

from collections.abc import Sequence
from itertools import chain

import msgspec

from crawltalk import recipe
from crawltalk.chat.prompts import as_assistant, few_shot, first_line
from crawltalk.core.documents import read_documents
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Document, Placement, Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.score import Sample, contains
from crawltalk.retrieval.trace import TraceIndex, covered
from crawltalk.run.manifest import read_manifest
from crawltalk.run.stage import Job

PROMPT = 24
RECITED = 32
"""Tokens of a page that the base model is given, and tokens that it should then recite."""
RECALL_PAGES, RECALL_TOKENS = 24, 96
"""Of each number of times: pages, and tokens that the base model goes on for."""
SHOTS = 3
"""Examples in a prompt."""
DESCRIPTION_TOKENS = 32
"""Tokens of a reply to such a prompt, at most."""
SIDE_BY_SIDE = Sampling(temperature=0.8, max_tokens=48)
COPIES = 4
"""Samples of one prompt."""


def flagships(job: Job[recipe.Evals]) -> list[Document]:
    """The documents that were oversampled."""
    rows = read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement)
    wanted = {row.id for row in rows if row.role == "flagship"}
    return [document for document in read_documents(job.inputs["data"]) if document.id in wanted]


class SideBySide(msgspec.Struct, kw_only=True):
    """Several samples of one prompt; one line of side_by_side.jsonl."""

    prompt: str
    replies: list[str]


def side_by_side(base: Engine, job: Job[recipe.Evals]) -> list[SideBySide]:
    """The prompts of the pretraining, each several times: the model is a distribution, not a text."""
    manifest = read_manifest(job.model("base"))
    rows = []
    for prompt in manifest.config["prompts"] if manifest else ():
        ids = [base.tokenizer.eot, *base.tokenizer.encode(prompt)]
        replies = base.generate([ids] * COPIES, SIDE_BY_SIDE)
        rows.append(SideBySide(prompt=prompt, replies=[base.tokenizer.decode(reply) for reply in replies]))
    return rows


def by_prompt(base: Engine, job: Job[recipe.Evals]) -> list[Sample]:
    """Descriptions of flagships, asked of the base model: without examples, after some (Brown et al. 2020),
    as an assistant.
    """
    rows = read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement)
    known = sorted(
        (row for row in rows if row.role == "flagship" and row.title and row.description),
        key=lambda row: row.id,
    )
    shots = [(row.title, row.description) for row in known[:SHOTS]]
    asked = known[SHOTS:][: job.config.problems]
    turns = [(f"What is {title}?", f"{title}: {description}.") for title, description in shots]
    prompts = {
        "zero_shot": [few_shot([], row.title) for row in asked],
        "few_shot": [few_shot(shots, row.title) for row in asked],
        "by_prompt": [as_assistant(turns, f"What is {row.title}?") for row in asked],
    }
    samples = []
    for task, texts in prompts.items():
        ids = [[base.tokenizer.eot, *base.tokenizer.encode(text)] for text in texts]
        replies = base.generate(ids, Sampling(temperature=0.0, max_tokens=DESCRIPTION_TOKENS))
        for row, text, reply in zip(asked, texts, replies, strict=True):
            said = first_line(base.tokenizer.decode(reply))
            score = contains(Problem(prompt=text, answer=row.description, task=task), said)
            samples.append(Sample(task=task, prompt=text, answer=row.description, reply=said, score=score))
    return samples


def recitation(base: Engine, documents: Sequence[Document]) -> float:
    """Near-verbatim recall: the share of tokens that the base model, given the beginning, continues as the
    page does.
    """
    pages = [[base.tokenizer.eot, *base.tokenizer.encode(document.text)] for document in documents]
    pages = [page for page in pages if len(page) >= PROMPT + RECITED]
    _, agree = _go_on(base, pages, RECITED)
    return sum(map(sum, agree)) / max(1, RECITED * len(pages))


def _go_on(base: Engine, pages: Sequence[list[int]], tokens: int) -> tuple[list[list[int]], list[list[bool]]]:
    """What the base model greedily makes of the beginnings of pages, and where that agrees with them."""
    greedy = Sampling(temperature=0.0, max_tokens=tokens)
    replies = base.generate([page[:PROMPT] for page in pages], greedy, frozenset())
    pairs = zip(pages, replies, strict=True)
    return replies, [[a == b for a, b in zip(page[PROMPT:], reply, strict=False)] for page, reply in pairs]


class Recall(msgspec.Struct, kw_only=True):
    """How the base model goes on with pages that it has seen so many times; one line of recall.jsonl."""

    times: float
    """Over all passes of the training; 0: pages after the cutoff."""
    pages: int
    share: float
    """Of the tokens that follow the first ones of a page, those that greedy decoding gets right: the
    extractable ones.
    """
    longest: int
    """Tokens of the longest verbatim span of the page."""
    traced: float
    """Share of all tokens that it says which stand in the training data in passages, of whatever page
    (`retrieval.trace`).
    """
    quoted: int
    """Tokens of the longest such passage; 0 if there is none."""
    source: str
    """URL of a page that holds it."""
    confidence: float
    """Mean probability that the model gives to the tokens that it says, right or wrong."""
    prompt: str
    reply: str
    page: str
    """One of the pages: its beginning, what the model says, and how it goes on."""


def recall(base: Engine, job: Job[recipe.Evals]) -> list[Recall]:
    """Recall by the number of times that pages were seen (as Carlini et al. 2023, section 4, ask it)."""
    manifest = read_manifest(job.model("base"))
    epochs = float(manifest.metrics["epochs"]) if manifest else 1.0
    groups: dict[int, set[str]] = {}
    for row in read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement):
        if row.role in ("heldout", "train", "graded", "flagship"):
            groups.setdefault(row.repeats, set()).add(row.id)
    wanted = {identifier: times for times, ids in groups.items() for identifier in sorted(ids)[:RECALL_PAGES]}
    pages: dict[int, list[list[int]]] = {times: [] for times in sorted(groups)}
    for document in read_documents(job.inputs["data"]):
        ids = base.tokenizer.encode(document.text) if document.id in wanted else []
        if len(ids) >= PROMPT + RECITED:
            pages[wanted[document.id]].append([base.tokenizer.eot, *ids])
    index = TraceIndex(job.inputs["index"], job.inputs["tokens"], base.tokenizer)
    found = []
    for times, rows in pages.items():
        if not rows:
            continue
        replies, agree = _go_on(base, rows, RECALL_TOKENS)
        sure = [base.probabilities(row[:PROMPT], reply) for row, reply in zip(rows, replies, strict=True)]
        spans = [_longest(row) for row in agree]
        shown = spans.index(max(spans))
        passages = [index.spans(reply, sources=1) for reply in replies]
        quote = max(chain.from_iterable(passages), key=len, default=None)
        found.append(
            Recall(
                times=round(times * epochs, 1),
                pages=len(rows),
                share=round(sum(map(sum, agree)) / max(1, sum(map(len, agree))), 4),
                longest=max(spans),
                traced=round(sum(map(covered, passages)) / max(1, sum(map(len, replies))), 4),
                quoted=len(quote) if quote else 0,
                source=quote.sources[0].url if quote else "",
                confidence=round(sum(map(sum, sure)) / max(1, sum(map(len, sure))), 4),
                prompt=base.tokenizer.decode(rows[shown][1:PROMPT]),
                reply=base.tokenizer.decode(replies[shown]),
                page=base.tokenizer.decode(rows[shown][PROMPT:][:RECALL_TOKENS]),
            )
        )
    return found


def _longest(agree: Sequence[bool]) -> int:
    """The longest run of places that agree."""
    longest = run = 0
    for same in agree:
        run = run + 1 if same else 0
        longest = max(longest, run)
    return longest
