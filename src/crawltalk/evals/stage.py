"""The evaluation stage: both models through the one decoder."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from crawltalk.core import recipe
from crawltalk.core.documents import read_documents
from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.core.run import read_manifest
from crawltalk.core.shards import TokenShards
from crawltalk.core.stage import Job, Metrics, Progress, write_atomically
from crawltalk.core.types import Conversation, Document, Message, Placement, Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.score import TASKS, refuses, standard_error
from crawltalk.train.validate import bits_per_byte

PROMPT = 24
RECITED = 32
"""Tokens of a page that the base model is given, and tokens that it should then recite."""
RECALL_PAGES, RECALL_TOKENS = 24, 96
"""Of each number of times: pages, and tokens that the base model goes on for."""
SHOWN = 24
"""Sample conversations for the report."""


class Sample(msgspec.Struct, kw_only=True):
    """One problem and what came of it."""

    task: str
    prompt: str
    answer: str
    reply: str
    score: float


class Score(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of scores.json."""

    score: float
    n: int
    stderr: float | None = None
    about: str = ""


def evals(job: Job[recipe.Evals]) -> Metrics:
    """Write samples.jsonl, scores.json, recall.jsonl and conversations.jsonl."""
    base, assistant = Engine.load(job.inputs["pretrain"]), Engine.load(job.inputs["sft"])
    shards = TokenShards(job.inputs["tokens"], "val")
    scores = {
        "bits_per_byte": Score(
            score=round(bits_per_byte(base.model, shards), 4),
            n=shards.bytes,
            about="base model, held-out text; lower is better",
        )
    }
    flagships = _flagships(job)
    if flagships:
        share = recitation(base, flagships)
        scores["recitation"] = Score(
            score=round(share, 4),
            n=len(flagships),
            about=f"base model: share of the {RECITED} tokens after the first {PROMPT}",
        )
    write_jsonl(job.out / "recall.jsonl", recall(base, job))
    problems = _problems(job)
    samples = ask(assistant, problems, job.config.max_tokens, job.progress)
    for task in TASKS:
        of_task = [sample for sample in samples if sample.task == task]
        if of_task:
            scores[task] = _score([sample.score for sample in of_task], ABOUT[task])
    tail = [sample for sample in samples if sample.task == "tail"]
    if tail:
        refused = [refuses(Problem(prompt="", answer="", task=""), sample.reply) for sample in tail]
        scores["tail_refused"] = _score(refused, "pages read a few times only, declined")
    write_jsonl(job.out / "samples.jsonl", samples)
    write_jsonl(job.out / "conversations.jsonl", show(assistant, samples, job.config.max_tokens))
    write_atomically(job.out / "scores.json", msgspec.json.format(msgspec.json.encode(scores)))
    return {name: score.score for name, score in scores.items()}


ABOUT = {
    "flagship": "description recalled, question forms never trained on",
    "heldout": "titles that no stage has seen, declined",
    "tail": "pages read a few times only, description recalled",
    "arithmetic": "sums never trained on",
    "spelling": "words spelled in training, a question form never trained on",
    "spelling_new": "words never spelled in training: a model sees tokens, not letters",
    "identity": "who the assistant is, as trained",
}


def recitation(base: Engine, documents: Sequence[Document]) -> float:
    """Near-verbatim recall: the share of tokens that the base model, given the beginning, continues as the page does."""
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
    """Of the tokens that follow the first ones of a page, those that greedy decoding gets right: the extractable ones."""
    longest: int
    """Tokens of the longest verbatim span."""
    prompt: str
    reply: str
    page: str
    """One of the pages: its beginning, what the model says, and how it goes on."""


def recall(base: Engine, job: Job[recipe.Evals]) -> list[Recall]:
    """Recall by the number of times that pages were seen (as Carlini et al. 2023, section 4, ask it)."""
    manifest = read_manifest(job.inputs["pretrain"])
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
    found = []
    for times, rows in pages.items():
        if not rows:
            continue
        replies, agree = _go_on(base, rows, RECALL_TOKENS)
        spans = [_longest(row) for row in agree]
        shown = spans.index(max(spans))
        found.append(
            Recall(
                times=round(times * epochs, 1),
                pages=len(rows),
                share=round(sum(map(sum, agree)) / max(1, sum(map(len, agree))), 4),
                longest=max(spans),
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


def ask(assistant: Engine, problems: Sequence[Problem], max_tokens: int, progress: Progress) -> list[Sample]:
    """Put every problem to the assistant, greedily, and score the replies."""
    prompts = [assistant.prompt([Message("user", problem.prompt)])[0] for problem in problems]
    replies = assistant.generate(
        prompts,
        Sampling(temperature=0.0, max_tokens=max_tokens),
        progress=lambda done: progress.update(done, len(problems), "problems"),
    )
    samples = []
    for problem, ids in zip(problems, replies, strict=True):
        reply = assistant.tokenizer.decode(ids)
        score = TASKS[problem.task](problem, reply)
        samples.append(Sample(task=problem.task, prompt=problem.prompt, answer=problem.answer, reply=reply, score=score))
    return samples


def show(assistant: Engine, samples: Sequence[Sample], max_tokens: int) -> list[Conversation]:
    """Readable conversations of every kind, right and wrong as they came; the last ones have two exchanges."""
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task, []).append(sample)
    chosen: list[Sample] = []
    while len(chosen) < SHOWN and any(by_task.values()):
        chosen += [rows.pop(0) for rows in by_task.values() if rows]
    shown = [
        Conversation(messages=[Message("user", s.prompt), Message("assistant", s.reply)], source=s.task)
        for s in chosen[:SHOWN]
    ]
    greedy = Sampling(temperature=0.0, max_tokens=max_tokens)
    for first, second in zip(chosen[:4], chosen[6:10], strict=False):
        messages = [Message("user", first.prompt), Message("assistant", first.reply), Message("user", second.prompt)]
        reply = assistant.reply(messages, greedy)
        shown.append(Conversation(messages=[*messages, Message("assistant", reply)], source=f"{first.task}, {second.task}"))
    return shown


def _flagships(job: Job[recipe.Evals]) -> list[Document]:
    rows = read_jsonl(job.inputs["tokens"] / "documents.jsonl", Placement)
    wanted = {row.id for row in rows if row.role == "flagship"}
    return [document for document in read_documents(job.inputs["data"]) if document.id in wanted]


def _problems(job: Job[recipe.Evals]) -> list[Problem]:
    """At most `problems` of each task."""
    seen: Counter[str] = Counter()
    chosen = []
    for problem in read_jsonl(job.inputs["sft"] / "problems.jsonl", Problem):
        seen[problem.task] += 1
        if problem.task in TASKS and seen[problem.task] <= job.config.problems:
            chosen.append(problem)
    return chosen


def _score(values: Sequence[float], about: str) -> Score:
    mean = sum(values) / len(values)
    return Score(score=round(mean, 4), n=len(values), stderr=round(standard_error(mean, len(values)), 4), about=about)
