"""The page that a question names."""

from msgspec.structs import replace

from crawltalk.retrieval.passages import Passages
from support.corpora import documents

TEXTS = [
    "Sodium\nMetal\nSodium silicate is made of it.",
    "Sodium silicate\nGlass\nIt dissolves in water.",
    "Water\nLiquid\nSodium reacts with water.",
    "C++\nLanguage",
]
PASSAGES = Passages(replace(documents()[0], id=str(n), text=text) for n, text in enumerate(TEXTS))


def test_the_page_that_a_question_names_is_found():
    page = PASSAGES.best("Please explain what sodium silicate is.")
    assert page is not None
    assert page.text == TEXTS[1]
    assert (PASSAGES.best("What is Water?") or page).id == "2"


def test_a_page_that_the_question_does_not_name_is_no_answer():
    assert PASSAGES.best("What does glass mean?") is None
    assert PASSAGES.best("What is a silicate of sodium that dissolves?", without="0") is None


def test_a_page_can_be_passed_over():
    page = PASSAGES.best("What is sodium silicate?", without="1")
    assert page is not None
    assert page.id == "0"


def test_signs_of_a_query_are_words_at_most():
    assert PASSAGES.best("?!") is None
    page = PASSAGES.best('What is "C++" OR (NEAR AND *')
    assert page is not None
    assert page.id == "3"
