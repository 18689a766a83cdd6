"""Conversations, problems, batches and scores."""

import operator
from collections import Counter

import pytest

from crawltalk.core.types import Document, Placement, Problem
from crawltalk.evals.score import contains, exact, last_number, refuses
from crawltalk.posttraining.conversations import ASK_HELD_OUT, Maker
from crawltalk.recipe import Sft

WORDS = [
    "".join(letters)
    for letters in ("abc", "bcd", "cde", "def", "efg", "fgh", "ghi", "hij", "ijk", "jkl", "klm", "lmn")
]


SIGNS = {"+": operator.add, "-": operator.sub, "x": operator.mul}


def placements() -> list[Placement]:
    roles = ["flagship"] * 5 + ["heldout"] * 20 + ["train"] * 30 + ["outside"] * 50
    return [
        Placement(
            id=str(number),
            url=f"https://site.example/{number}",
            title=f"Title {number}",
            description=f"thing of number {number}",
            topic="Things",
            role=role,
            repeats=1,
        )
        for number, role in enumerate(roles)
    ]


def documents() -> list[Document]:
    text = " ".join(WORDS)
    fields = {
        "dump": "",
        "url": "",
        "date": "",
        "file_path": "",
        "language": "en",
        "language_score": 1.0,
        "token_count": 1,
    }
    return [Document(text=text, id="0", **fields)]


def maker(**changes: int) -> Maker:
    return Maker(placements(), documents(), Sft(**changes), 3)


def test_the_same_seed_makes_the_same_conversations_and_problems():
    first, second = maker(), maker()
    assert first.conversations() == second.conversations()
    assert first.problems() == second.problems()


def test_every_kind_of_conversation_is_made_in_the_asked_number():
    made = maker(arithmetic=50, spelling=40, identity=30, refusals=25).conversations()
    count = Counter(row.source for row in made if "," not in row.source)
    assert (count["arithmetic"], count["spelling"], count["identity"]) == (50, 40, 30)
    assert count["refusal"] == 3 * 25  # in three forms; 10 held-out titles and 15 of other topics
    assert count["flagship"] == 5 * 10
    assert count["topic"] == 5


def test_sums_are_right_and_spelled_words_are_spelled_right():
    for row in maker(arithmetic=300, spelling=300).conversations():
        question, reply = row.messages[0].content, row.messages[1].content
        if row.source == "arithmetic":
            sum_, result = reply.split(" = ")
            left, sign, right = sum_.split()
            assert SIGNS[sign](int(left), int(right)) == int(result)
            assert sum_ in question
        if row.source == "spelling":
            word = reply.split(":")[0].replace("-", "")
            assert word in question


def test_what_is_examined_is_never_trained_on():
    one = maker(arithmetic=3000, spelling=500)
    asked = " | ".join(message.content.lower() for row in one.conversations() for message in row.messages)
    for problem in one.problems():
        if problem.task in ("heldout", "tail"):
            title = problem.answer.replace("thing of number", "title")
            assert f"{title}?" not in asked and f"{title} " not in asked and f"{title}." not in asked
        if problem.task == "arithmetic":
            assert problem.prompt.lower() not in asked.split(" | ")
        if problem.task == "spelling_new":
            assert problem.answer not in asked
        if problem.task == "spelling":
            assert problem.answer in asked
        if problem.task == "flagship":
            assert any(problem.prompt.startswith(form.split("{")[0]) for form in ASK_HELD_OUT)


@pytest.mark.parametrize(
    ("score", "answer", "reply", "value"),
    [
        (contains, "Chemical element (Dy)", "Dysprosium: chemical element, Dy.", 1.0),
        (contains, "element", "elements", 0.0),
        (contains, "element", "I don't know that element.", 0.0),
        (refuses, "", "I'm sorry, I don't know about that.", 1.0),
        (refuses, "", "I cannot say.", 1.0),
        (refuses, "", "It is a metal that I know.", 0.0),
        (last_number, "12", "5 + 7 = 12", 1.0),
        (last_number, "12", "12 is not 13", 0.0),
        (last_number, "-3", "It is -3.", 1.0),
        (last_number, "12", "no idea", 0.0),
        (exact, "a-b", " a-b\n", 1.0),
        (exact, "a-b", "a-b-c", 0.0),
    ],
)
def test_scores(score, answer, reply, value):
    assert score(Problem(prompt="", answer=answer, task=""), reply) == value
