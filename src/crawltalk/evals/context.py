"""Weights against context: the same questions from memory, with the page to read, among other pages, after a search.

Questions are about pages of a run, by how often its base model has read them. Each page is its first tokens; every
condition with several pages has the same number of them, and the right one stands first, in the middle or last (Liu et
al. 2024, section 2).
"""

import random
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from crawltalk.chat.messages import Message
from crawltalk.chat.prompts import few_shot, first_line
from crawltalk.core.documents import read_documents, titled
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Placement, Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.results import Result
from crawltalk.tasks.recall import question_about
from crawltalk.tasks.scoring import contains, is_refusal

TASK = "context"
CONDITIONS = {
    "closed_book": "from the weights alone",
    "in_context": "the page in front of the question",
    "first": "the page, then others",
    "middle": "the page between others",
    "last": "others, then the page",
    "searched": "what a search for the question finds",
}
"""Where the answer can come from -> what stands in front of the question."""
PAGES = 16
"""Pages for each number of repeats."""
PASSAGES = 3
"""Pages in front of a question, where there are several."""
PASSAGE_TOKENS = 96
REPLY_TOKENS = 32
_MARGIN = 48
"""Tokens of a question and of the turns around it."""


class PageQuestion(NamedTuple):
    """A question about a page."""

    id: str
    title: str
    description: str
    """The answer."""
    text: str
    """The page."""
    times: int
    """How often one pass over the training shows it; 0: never."""

    @property
    def question(self) -> str:
        """As a person asks it."""
        return question_about(self.title, self.description)


class Library:
    """All pages of a run, to search and to draw from."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._pages = sqlite3.connect(":memory:")
        self._pages.execute("CREATE VIRTUAL TABLE pages USING fts5(title, text)")
        rows = (titled({"text": text}) for text in texts)
        self._pages.executemany(
            "INSERT INTO pages VALUES (?, ?)", ((title, rest["text"]) for title, rest in rows)
        )

    def search(self, question: str, count: int) -> list[str]:
        """The pages that hold words of a question, the best first (BM25; a title counts four times)."""
        words = " OR ".join(f'"{word}"' for word in dict.fromkeys(re.findall(r"\w+", question)))
        rows = self._pages.execute(
            "SELECT title, text FROM pages WHERE pages MATCH ? ORDER BY bm25(pages, 4.0, 1.0) LIMIT ?",
            (words or '""', count),
        )
        return ["\n".join(row) for row in rows.fetchall()]

    def close(self) -> None:
        """Free its memory."""
        self._pages.close()


def page_questions(tokens: Path, documents: dict[str, str], per_group: int = PAGES) -> list[PageQuestion]:
    """Questions about pages of each number of repeats, those that were kept out first. `tokens` is the folder of the
    stage; `documents` are texts by their id.
    """
    groups: dict[int, list[PageQuestion]] = {}
    for row in sorted(read_jsonl(tokens / "documents.jsonl", Placement), key=lambda row: row.id):
        asked = row.role in ("heldout", "train", "graded", "flagship") and row.title and row.description
        if asked and row.id in documents:
            page = PageQuestion(row.id, row.title, row.description, documents[row.id], row.repeats)
            groups.setdefault(row.repeats, []).append(page)
    return [page for times in sorted(groups) for page in groups[times][:per_group]]


def read_texts(data: Path) -> dict[str, str]:
    """Id -> text of the documents of a data stage."""
    return {document.id: document.text for document in read_documents(data)}


def ask_pages(
    engine: Engine,
    pages: Sequence[PageQuestion],
    documents: dict[str, str],
    *,
    chat: bool,
    seed: int = 0,
    conditions: Sequence[str] = tuple(CONDITIONS),
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Every question in every condition, greedily. `chat`: as a person asks it; else the model goes on behind the
    page's title and a colon. Metrics: `correct`; `declined`; after a search `found`, whether it found the page.
    """
    texts = list(documents.values())
    tokens = min(PASSAGE_TOKENS, (engine.context - REPLY_TOKENS - _MARGIN) // PASSAGES)
    asked: list[tuple[PageQuestion, str, list[str]]] = []
    with closing(Library(texts)) as library:
        for page in pages:
            rng = random.Random(f"{seed} {page.id}")
            others = [text for text in rng.sample(texts, min(len(texts), PASSAGES)) if text != page.text]
            for condition in conditions:
                found = _in_front(condition, page, others[: PASSAGES - 1], library)
                asked.append((page, condition, found))
    prompts = [
        _prompt(engine, page, [_head(engine, text, tokens) for text in found], chat=chat)
        for page, _, found in asked
    ]
    sampling = Sampling(temperature=0.0, max_tokens=REPLY_TOKENS)
    replies = engine.generate(
        prompts, sampling, progress=lambda done: progress(done, len(prompts)) if progress else None
    )
    return [
        _result(page, condition, found, engine.tokenizer.decode(reply), chat=chat)
        for (page, condition, found), reply in zip(asked, replies, strict=True)
    ]


def _in_front(condition: str, page: PageQuestion, others: list[str], library: Library) -> list[str]:
    """The pages that stand in front of the question."""
    if condition == "searched":
        return library.search(page.question, PASSAGES)
    position = {"first": 0, "middle": len(others) // 2 + len(others) % 2, "last": len(others)}.get(condition)
    if position is not None:
        return [*others[:position], page.text, *others[position:]]
    return [page.text] if condition == "in_context" else []


def _head(engine: Engine, text: str, tokens: int) -> str:
    """The first tokens of a page, as text."""
    return engine.tokenizer.decode(engine.tokenizer.encode(text)[:tokens])


def _prompt(engine: Engine, page: PageQuestion, passages: Sequence[str], *, chat: bool) -> list[int]:
    read = "".join(f"{passage}\n\n" for passage in passages)
    if chat:
        return engine.chat_prompt([Message("user", f"{read}{page.question}")], reply=REPLY_TOKENS)[0]
    return [*engine.renderer.begin, *engine.tokenizer.encode(read + few_shot([], page.title))]


def _result(page: PageQuestion, condition: str, found: Sequence[str], reply: str, *, chat: bool) -> Result:
    said = reply if chat else first_line(reply)
    problem = Problem(prompt=page.question, answer=page.description, task=TASK)
    scores = {"correct": contains(problem, said), "declined": float(is_refusal(said))}
    if condition == "searched":
        scores["found"] = float(page.text in found)
    return Result(
        task=TASK,
        id=page.id,
        prompt=page.question,
        answer=page.description,
        reply=said,
        scores=scores,
        group={"condition": condition, "repeats": str(page.times)},
    )
