"""What the base model does before fine-tuning: it recites, it invents, and it follows a pattern in its prompt."""

import json
from collections.abc import Sequence
from itertools import chain

import msgspec

from crawltalk import recipe
from crawltalk.chat.prompts import as_assistant, few_shot, first_line
from crawltalk.core.documents import read_documents
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Document, Placement, Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.scores import ScoredReply, score_reply
from crawltalk.retrieval.trace import TraceIndex, covered
from crawltalk.run.manifest import read_manifest
from crawltalk.run.stage import Job
from crawltalk.tasks.recall import question_about, reply_about
from crawltalk.tasks.scoring import contains

PROMPT_TOKENS = 24
RECITED_TOKENS = 32
"""Tokens of a page that the base model is given, and tokens that it should then recite."""
RECALL_PAGES, RECALL_TOKENS = 24, 96
"""Pages for each number of repeats, and tokens of each that the base model continues."""
PROMPTS = {
    "zero_shot": "base model: a title and a colon, its description expected",
    "few_shot": "base model: the same after three examples",
    "by_prompt": "base model: asked in a transcript of a helpful assistant, after three turns",
}
"""Ways to ask the base model for a description (`prompted`) -> what the score measures."""
SHOTS = 3
"""Examples in a prompt."""
DESCRIPTION_TOKENS = 32
"""Tokens of a reply to such a prompt, at most."""
SIDE_BY_SIDE = Sampling(temperature=0.8, max_tokens=48)
SAMPLES = 4
"""Samples of one prompt."""


def flagships(job: Job[recipe.Evals]) -> list[Document]:
    """The documents that were oversampled."""
    rows = read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement)
    ids = {row.id for row in rows if row.role == "flagship"}
    return [document for document in read_documents(job.inputs["data"]) if document.id in ids]


class SideBySide(msgspec.Struct, kw_only=True):
    """Several samples of one prompt; one line of side_by_side.jsonl."""

    prompt: str
    replies: list[str]


def side_by_side(base: Engine, job: Job[recipe.Evals]) -> list[SideBySide]:
    """The prompts of the pretraining, each several times: the model is a distribution, not a text."""
    samples = map(json.loads, (job.model("base") / "samples.jsonl").read_text(encoding="utf-8").splitlines())
    rows = []
    for prompt in dict.fromkeys(sample["prompt"] for sample in samples):
        ids = [base.tokenizer.eot, *base.tokenizer.encode(prompt)]
        replies = base.generate([ids] * SAMPLES, SIDE_BY_SIDE)
        rows.append(SideBySide(prompt=prompt, replies=[base.tokenizer.decode(reply) for reply in replies]))
    return rows


def prompted(base: Engine, job: Job[recipe.Evals]) -> list[ScoredReply]:
    """Descriptions of flagships, asked for in each way of `PROMPTS`: without examples, after some (Brown et al.
    2020), as an assistant.
    """
    rows = read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement)
    known = sorted(
        (row for row in rows if row.role == "flagship" and row.title and row.description),
        key=lambda row: row.id,
    )
    shots = [(row.title, row.description) for row in known[:SHOTS]]
    pages = known[SHOTS:][: job.config.problems]
    questions = {page.id: question_about(page.title, page.description) for page in known}
    turns = [(questions[page.id], reply_about(page)) for page in known[:SHOTS]]
    prompts = {
        "zero_shot": [few_shot([], page.title) for page in pages],
        "few_shot": [few_shot(shots, page.title) for page in pages],
        "by_prompt": [as_assistant(turns, questions[page.id]) for page in pages],
    }
    scored = []
    for kind, texts in prompts.items():
        ids = [[base.tokenizer.eot, *base.tokenizer.encode(text)] for text in texts]
        replies = base.generate(ids, Sampling(temperature=0.0, max_tokens=DESCRIPTION_TOKENS))
        for page, text, reply in zip(pages, texts, replies, strict=True):
            problem = Problem(prompt=text, answer=page.description, task=kind)
            scored.append(score_reply(problem, first_line(base.tokenizer.decode(reply)), contains))
    return scored


def recitation(base: Engine, documents: Sequence[Document]) -> float:
    """Near-verbatim recall: the share of tokens that the base model, given the beginning, continues as the
    page does.
    """
    pages = [[base.tokenizer.eot, *base.tokenizer.encode(document.text)] for document in documents]
    pages = [page for page in pages if len(page) >= PROMPT_TOKENS + RECITED_TOKENS]
    _, matches = _continue(base, pages, RECITED_TOKENS)
    return sum(map(sum, matches)) / max(1, RECITED_TOKENS * len(pages))


def _continue(
    base: Engine, pages: Sequence[list[int]], tokens: int
) -> tuple[list[list[int]], list[list[bool]]]:
    """The greedy continuation of each page's beginning, and which of its tokens are those of the page."""
    greedy = Sampling(temperature=0.0, max_tokens=tokens)
    replies = base.generate([page[:PROMPT_TOKENS] for page in pages], greedy, frozenset())
    pairs = zip(pages, replies, strict=True)
    return replies, [
        [a == b for a, b in zip(page[PROMPT_TOKENS:], reply, strict=False)] for page, reply in pairs
    ]


class Recall(msgspec.Struct, kw_only=True):
    """How the base model continues pages that it has seen so many times; one line of recall.jsonl."""

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
    """Share of the generated tokens that belong to passages of the training data, of any page
    (`retrieval.trace`).
    """
    quoted: int
    """Tokens of the longest such passage; 0 if there is none."""
    source: str
    """URL of a page that holds it."""
    confidence: float
    """Mean probability that the model gives to the tokens that it generates, right or wrong."""
    prompt: str
    reply: str
    page: str
    """An example: the beginning of a page, the model's continuation, and the page's own."""


def recall(base: Engine, job: Job[recipe.Evals]) -> list[Recall]:
    """Recall by the number of times that pages were seen (as in Carlini et al. 2023, section 4)."""
    manifest = read_manifest(job.model("base"))
    epochs = float(manifest.metrics["epochs"]) if manifest else 1.0
    groups: dict[int, set[str]] = {}
    for row in read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement):
        if row.role in ("heldout", "train", "graded", "flagship"):
            groups.setdefault(row.repeats, set()).add(row.id)
    times_of = {id_: times for times, ids in groups.items() for id_ in sorted(ids)[:RECALL_PAGES]}
    pages: dict[int, list[list[int]]] = {times: [] for times in sorted(groups)}
    for document in read_documents(job.inputs["data"]):
        ids = base.tokenizer.encode(document.text) if document.id in times_of else []
        if len(ids) >= PROMPT_TOKENS + RECITED_TOKENS:
            pages[times_of[document.id]].append([base.tokenizer.eot, *ids])
    index = TraceIndex(job.inputs["index"], job.inputs["tokens"], base.tokenizer)
    results = []
    for times, rows in pages.items():
        if not rows:
            continue
        replies, matches = _continue(base, rows, RECALL_TOKENS)
        probabilities = [
            base.probabilities(row[:PROMPT_TOKENS], reply) for row, reply in zip(rows, replies, strict=True)
        ]
        spans = [longest_run(row) for row in matches]
        example = spans.index(max(spans))
        passages = [index.spans(reply, sources=1) for reply in replies]
        quote = max(chain.from_iterable(passages), key=len, default=None)
        results.append(
            Recall(
                times=round(times * epochs, 1),
                pages=len(rows),
                share=round(sum(map(sum, matches)) / max(1, sum(map(len, matches))), 4),
                longest=max(spans),
                traced=round(sum(map(covered, passages)) / max(1, sum(map(len, replies))), 4),
                quoted=len(quote) if quote else 0,
                source=quote.sources[0].url if quote else "",
                confidence=round(sum(map(sum, probabilities)) / max(1, sum(map(len, probabilities))), 4),
                prompt=base.tokenizer.decode(rows[example][1:PROMPT_TOKENS]),
                reply=base.tokenizer.decode(replies[example]),
                page=base.tokenizer.decode(rows[example][PROMPT_TOKENS:][:RECALL_TOKENS]),
            )
        )
    return results


def longest_run(matches: Sequence[bool]) -> int:
    """The number of positions in the longest unbroken run of True."""
    longest = run = 0
    for same in matches:
        run = run + 1 if same else 0
        longest = max(longest, run)
    return longest
