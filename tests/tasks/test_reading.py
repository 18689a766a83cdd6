"""Passages, and the replies that quote them."""

import random

from hypothesis import given
from hypothesis import strategies as st

from crawltalk.tasks.reading import PASSAGE, Reading, choices, passage_of
from support.corpora import small_corpus


@given(st.text())
def test_a_passage_is_a_beginning_of_the_page(text):
    passage = passage_of(text)
    assert text.startswith(passage)
    assert len(passage) <= PASSAGE


def test_a_passage_ends_with_a_whole_word():
    assert passage_of("one two three", 8) == "one two"
    assert passage_of("one two three", 7) == "one two"


def test_replies_quote_a_sentence():
    passage = "Orchard\nPlace of trees\nIt has trees. They bear fruit"
    assert choices(passage) == (
        "Orchard: Place of trees.",
        "Orchard: It has trees.",
    )


def test_a_good_reply_is_among_the_choices_of_its_passage():
    task = Reading(small_corpus())
    rng = random.Random(0)
    for split in ("train", "test"):
        problems = list(task.problems(rng, split=split))
        assert len(problems) == 10
        for problem in problems:
            passage = problem.prompt.rpartition("\n\n")[0]
            assert task.conversation(problem, rng).messages[1].content in choices(passage)
