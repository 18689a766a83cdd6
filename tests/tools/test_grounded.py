"""Answers from a run's pages."""

import pytest

from crawltalk.tools.grounded import NOTHING_FOUND, GroundedAssistant, best_sentence, is_supported
from support.library import library, library_index

TEXTS = {document.id: document.text for document in library()}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (
            "What raises the level of the oceans?",
            "The gravity of the Moon raises the level of the oceans twice a day.",
        ),
        ("What is obsidian?", "Obsidian is a volcanic glass which people used for blades."),
    ],
)
def test_without_a_model_the_answer_is_the_sentence_that_fits_and_its_page_is_cited(
    tmp_path, question, answer
):
    given = GroundedAssistant(library_index(tmp_path)).answer(question)
    assert given.text == answer
    (citation,) = given.citations
    assert TEXTS[citation.id][citation.start : citation.end] == citation.quote == answer


@pytest.mark.parametrize("question", ["Who wrote the play about two lovers in Verona?", "?", ""])
def test_what_is_not_in_the_pages_is_declined(tmp_path, question):
    given = GroundedAssistant(library_index(tmp_path)).answer(question)
    assert given.declined
    assert given.text == NOTHING_FOUND


def test_a_model_reads_the_passage_and_its_answer_is_kept_if_the_passage_supports_it(tmp_path):
    asked = []

    def read(messages):
        asked.extend(messages)
        return "Wild yeast and bacteria ferment sourdough.\nAnd more."

    given = GroundedAssistant(library_index(tmp_path), read).answer("What is sourdough?")
    assert given.text == "Wild yeast and bacteria ferment sourdough."
    assert given.citations[0].quote == "Sourdough is a dough that wild yeast and bacteria have fermented."
    assert given.citations[0].quote in asked[0].content


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Sourdough comes from ancient Egyptian bakeries.",
        "Sourdough is a dough of 1849.",
        "Sourdough is a dough that",
    ],
)
def test_an_answer_that_the_passage_does_not_support_gives_way_to_the_quotation(tmp_path, reply):
    given = GroundedAssistant(library_index(tmp_path), lambda messages: reply).answer("What is sourdough?")
    assert given.text == given.citations[0].quote


def test_a_model_that_finds_nothing_in_the_passage_declines(tmp_path):
    given = GroundedAssistant(library_index(tmp_path), lambda messages: NOTHING_FOUND).answer(
        "What is sourdough?"
    )
    assert given.declined


def test_an_answer_without_words_of_its_own_is_not_supported(tmp_path):
    passage = library_index(tmp_path).search("What is sourdough?")[0]
    assert not is_supported("No.", passage, "What is sourdough?")
    assert is_supported("Sourdough is dough.", passage, "What is it?")


def test_a_sentence_is_quoted_before_a_heading_that_fits_as_well(tmp_path):
    text = "Sourdough\nSourdough is fermented. Sourdough is a dough."
    start, end = best_sentence(library_index(tmp_path), "What is sourdough?", text)
    assert text[start:end] == "Sourdough is fermented."
