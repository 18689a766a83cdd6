"""Weights against context: the same questions from memory, with the page to read, among other pages, after a search.

Questions are about pages of a run, by how often its base model has read them. Each page is its first tokens; every
condition with several pages has the same number of them, and the right one stands first, in the middle or last (Liu et
al. 2024, section 2).
"""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from crawltalk.chat.messages import Message
from crawltalk.chat.prompts import few_shot, first_line
from crawltalk.core.documents import read_documents
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Placement, Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.evals.results import Result
from crawltalk.retrieval.passages import Passages
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
    flagship: bool
    """Whether fine-tuning asks about it, too."""

    @property
    def question(self) -> str:
        """As a person asks it."""
        return question_about(self.title, self.description)


def page_questions(tokens: Path, texts: Mapping[str, str], per_group: int = PAGES) -> list[PageQuestion]:
    """Questions about pages, at most `per_group` of each role and number of repeats, those that were kept out first.
    `tokens` is the folder of the stage; `texts` are the documents' by their id.
    """
    groups: dict[tuple[int, bool], list[PageQuestion]] = {}
    for row in sorted(read_jsonl(tokens / "documents.jsonl", Placement), key=lambda row: row.id):
        asked = row.role in ("heldout", "train", "graded", "flagship") and row.title and row.description
        if asked and row.id in texts:
            flagship = row.role == "flagship"
            page = PageQuestion(row.id, row.title, row.description, texts[row.id], row.repeats, flagship)
            groups.setdefault((row.repeats, flagship), []).append(page)
    return [page for group in sorted(groups) for page in groups[group][:per_group]]


def read_texts(data: Path) -> dict[str, str]:
    """Id -> text of the documents of a data stage."""
    return {document.id: document.text for document in read_documents(data)}


def ask_pages(
    engine: Engine,
    pages: Sequence[PageQuestion],
    texts: Mapping[str, str],
    passages: Passages,
    *,
    chat: bool,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Every question in every condition, greedily. `chat`: as a person asks it; else the model goes on behind the
    page's title and a colon. `texts`: the documents that the other pages are drawn from. Metrics: `correct`;
    `declined`; after a search `found`, whether it found the page.
    """
    tokens = min(PASSAGE_TOKENS, (engine.context - REPLY_TOKENS - _MARGIN) // PASSAGES)
    all_texts = list(texts.values())
    asked: list[tuple[PageQuestion, str, list[str], bool]] = []
    for page in pages:
        rng = random.Random(f"{seed} {page.id}")
        others = [text for text in rng.sample(all_texts, min(len(all_texts), PASSAGES)) if text != page.text]
        for condition in CONDITIONS:
            if condition == "searched":
                found = passages.search(page.question, PASSAGES)
                in_front = [f"{one.title}\n{one.text}" for one in found]
                asked.append((page, condition, in_front, page.id in [one.id for one in found]))
            else:
                asked.append((page, condition, _in_front(condition, page, others[: PASSAGES - 1]), True))
    prompts = [
        _prompt(engine, page, [_head(engine, text, tokens) for text in in_front], chat=chat)
        for page, _, in_front, _ in asked
    ]
    replies = engine.generate(
        prompts,
        Sampling(temperature=0.0, max_tokens=REPLY_TOKENS),
        progress=lambda done: progress(done, len(prompts)) if progress else None,
    )
    return [
        _result(page, condition, engine.tokenizer.decode(reply), chat=chat, found=found)
        for (page, condition, _, found), reply in zip(asked, replies, strict=True)
    ]


def _in_front(condition: str, page: PageQuestion, others: Sequence[str]) -> list[str]:
    """The pages that stand in front of the question."""
    if condition == "closed_book":
        return []
    if condition == "in_context":
        return [page.text]
    position = {"first": 0, "middle": (len(others) + 1) // 2, "last": len(others)}[condition]
    return [*others[:position], page.text, *others[position:]]


def _head(engine: Engine, text: str, tokens: int) -> str:
    """The first tokens of a page, as text."""
    return engine.tokenizer.decode(engine.tokenizer.encode(text)[:tokens])


def _prompt(engine: Engine, page: PageQuestion, passages: Sequence[str], *, chat: bool) -> list[int]:
    read = "".join(f"{passage}\n\n" for passage in passages)
    if chat:
        return engine.chat_prompt([Message("user", f"{read}{page.question}")], reply=REPLY_TOKENS)[0]
    return [*engine.renderer.begin, *engine.tokenizer.encode(read + few_shot([], page.title))]


def _result(page: PageQuestion, condition: str, reply: str, *, chat: bool, found: bool) -> Result:
    said = reply if chat else first_line(reply)
    problem = Problem(prompt=page.question, answer=page.description, task=TASK)
    scores = {"correct": contains(problem, said), "declined": float(is_refusal(said))}
    if condition == "searched":
        scores["found"] = float(found)
    return Result(
        task=TASK,
        id=page.id,
        prompt=page.question,
        answer=page.description,
        reply=said,
        scores=scores,
        group={"condition": condition, "repeats": f"{page.times}{' (flagship)' if page.flagship else ''}"},
    )
