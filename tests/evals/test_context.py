"""Questions about pages, from memory and with pages in context."""

from pathlib import Path

from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.types import Placement
from crawltalk.engine import Engine
from crawltalk.evals.context import CONDITIONS, PASSAGES, PageQuestion, _in_front, ask_pages, page_questions
from support.engines import SHAPE, TOKENIZER
from support.library import PAGES, library, library_index
from support.models import random_model

WIDE = Engine(random_model(type(SHAPE)(**{**vars(SHAPE), "context": 512})), TOKENIZER)
TEXTS = {document.id: document.text for document in library()}


def write_placements(folder: Path) -> Path:
    roles = [("heldout", 0), ("train", 1), ("graded", 8), ("flagship", 8)]
    rows = [
        Placement(
            id=f"<{name}>",
            url="",
            title=text.split("\n")[0],
            description=text.split("\n")[1].split(". ")[0] + ".",
            topic="",
            role=role,  # pyrefly: ignore[bad-argument-type]
            repeats=repeats,
        )
        for (name, text), (role, repeats) in zip(PAGES.items(), roles, strict=True)
    ]
    write_jsonl(folder / "documents.jsonl", rows)
    return folder


def test_pages_are_grouped_by_how_often_they_were_read_and_flagships_apart(tmp_path: Path):
    pages = page_questions(write_placements(tmp_path), TEXTS)
    assert [(page.times, page.flagship) for page in pages] == [(0, False), (1, False), (8, False), (8, True)]
    assert page_questions(tmp_path, TEXTS, per_group=0) == []


def test_the_page_stands_where_the_condition_says():
    page = PageQuestion("<tides>", "Tides", "Rise and fall of the sea", PAGES["tides"], 1, False)
    others = ["one", "two"]
    placed = {name: _in_front(name, page, others) for name in CONDITIONS if name != "searched"}
    assert placed["closed_book"] == []
    assert placed["in_context"] == [page.text]
    assert [placed[name].index(page.text) for name in ("first", "middle", "last")] == [0, 1, 2]
    assert all(len(placed[name]) == PASSAGES for name in ("first", "middle", "last"))


def test_every_question_is_asked_in_every_condition_and_the_search_finds_its_page(tmp_path: Path):
    pages = page_questions(write_placements(tmp_path), TEXTS)
    for chat in (True, False):
        results = ask_pages(WIDE, pages, TEXTS, library_index(tmp_path), chat=chat)
        assert len(results) == len(pages) * len(CONDITIONS)
        found = [result.scores["found"] for result in results if result.group["condition"] == "searched"]
        assert found == [1.0] * len(pages)
        assert {result.group["repeats"] for result in results} == {"0", "1", "8", "8 (flagship)"}
