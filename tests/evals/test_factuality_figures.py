"""What the figures of factuality count, from questions with known replies."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crawltalk.core.jsonl import read_jsonl, write_jsonl
from crawltalk.engine import Engine
from crawltalk.evals.factuality import Reply, factuality, reliability, risk_and_coverage
from crawltalk.posttraining.factuality import Question, choose, judged
from crawltalk.posttraining.judge import by_rules
from crawltalk.recipe import Factuality
from crawltalk.tasks.reading import choices
from support.corpora import documents, placements
from support.engines import SHAPE, TOKENIZER
from support.models import random_model

ASKED = list(choose(placements(), Factuality(samples=4, rarely=5, never=15), 3))


def replied(index: int, right: int, same: int = 1) -> Question:
    """A question with four replies: `right` times the answer, `same` times one wrong reply, then different ones."""
    row = ASKED[index % len(ASKED)]
    wrong = ["wrong"] * same + [f"wrong {number}" for number in range(4)]
    return judged(replace(row, replies=[*[row.answer] * right, *wrong][:4]), by_rules, teach=True)


def test_reliability_compares_agreement_with_being_right():
    rows = [replied(0, 4), replied(1, 4), replied(2, 0, 4), replied(3, 1), replied(4, 0)]
    assert [(one.agreement, one.correct, one.questions) for one in reliability(rows)] == [
        (0.25, 0.5, 2),
        (1.0, pytest.approx(2 / 3, abs=1e-4), 3),
    ]


def test_risk_is_of_what_is_answered():
    rows = [replied(0, 4), replied(1, 0, 4), replied(2, 0)]
    assert [(one.agreement, one.coverage, one.risk) for one in risk_and_coverage(rows)] == [
        (1.0, pytest.approx(2 / 3, abs=1e-4), 0.5),
        (0.25, 1.0, pytest.approx(2 / 3, abs=1e-4)),
    ]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=30))
def test_bins_and_points_count_every_question_once(drawn):
    rows = [replied(index, *shape) for index, shape in enumerate(drawn)]
    assert sum(one.questions for one in reliability(rows)) == len(rows)
    points = risk_and_coverage(rows)
    assert points[-1].coverage == 1
    assert [one.coverage for one in points] == sorted(one.coverage for one in points)
    assert all(0 <= one.risk <= 1 for one in points)


def test_an_assistant_is_asked_with_and_without_pages(tmp_path):
    rows = [replied(index, index % 5) for index in range(len(ASKED))]
    write_jsonl(tmp_path / "questions.jsonl", rows)
    assistant = Engine(random_model(dataclasses.replace(SHAPE, context=256)), TOKENIZER)
    scores = factuality(assistant, tmp_path, documents(), tmp_path, 24, 8)
    replies = list(read_jsonl(tmp_path / "factuality.jsonl", Reply))
    assert {
        way: sum(row.way == way for row in replies) for way in ("closed", "quoted", "free", "without")
    } == {
        "closed": 5 + 8 + 8,
        "quoted": 8,
        "free": 8,
        "without": 8,
    }
    quoted = [row for row in replies if row.way == "quoted"]
    for row in quoted:
        assert row.reply in choices(row.prompt.rpartition("\n\n")[0])
    invented = [row.verdict == "incorrect" for row in replies if row.way == "closed" and row.seen == "never"]
    assert scores["invented"].score == sum(invented) / 8
    assert scores["searched"].score == sum(row.verdict == "correct" for row in quoted) / 8
    often = [row for row in rows if row.seen == "often"]
    kept = [row for seen in ("rarely", "never") for row in rows if (row.seen, row.split) == (seen, "test")]
    tested = [*often, *(row for row in kept if row.seen == "rarely")][: 5 + 8]
    tested += [row for row in kept if row.seen == "never"][:8]
    assert scores["known_kept"].n == sum(row.correct >= 0.5 for row in tested)


def fact(title: str, seen: str, *replies: str) -> Question:
    row = Question(
        id=f"invented:{title}" if seen == "never" else title,
        title=title,
        answer="Norland",
        role="outside",
        seen=seen,
        repeats=0,
        split="test",
        prompt=f"In which country is {title}?",
        relation="country",
        passage=f"{title}\nCity in Norland\n{title} lies by the sea.",
    )
    return judged(replace(row, replies=list(replies)), by_rules, teach=False)


def test_invented_names_have_pages_that_search_finds(tmp_path):
    rows = [
        fact("Old Town", "rarely", "Norland", "Norland"),
        fact("Other Town", "rarely", "Sudland", "Norland"),
    ]
    rows += [fact(name, "never", "Sudland", "No") for name in ("Narlo", "Quinpel")]
    write_jsonl(tmp_path / "questions.jsonl", rows)
    assistant = Engine(random_model(dataclasses.replace(SHAPE, context=256)), TOKENIZER)
    scores = factuality(assistant, tmp_path, documents(), tmp_path, 8, 8)
    result = json.loads((tmp_path / "factuality.json").read_text(encoding="utf-8"))
    assert result["found"] == 1.0
    assert scores["known_kept"].n == scores["known_kept_untaught"].n == 2
    quoted = [row for row in read_jsonl(tmp_path / "factuality.jsonl", Reply) if row.way == "quoted"]
    assert [row.prompt.partition("\n")[0] for row in quoted] == ["Narlo", "Quinpel"]
