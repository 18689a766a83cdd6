"""Whether a question stands in the training data."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.retrieval.overlap import ngram_of, overlap, overlaps_in, words_in
from crawltalk.retrieval.trace import TraceIndex
from support.traced import TOKENIZER, make_index, open_index

QUESTION = "Which of these animals lays its eggs in the nest of another bird and never builds one?"
PAGES = [
    "A page about cars. The engine burns petrol, and a shaft turns the wheels of the car.",
    f"A quiz for the weekend. {QUESTION} The cuckoo does, as the next page shows.",
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> TraceIndex:
    pages = [TOKENIZER.encode(page) for page in PAGES]
    return open_index(make_index(tmp_path_factory.mktemp("planted"), pages))


def test_a_question_that_is_planted_in_the_corpus_is_found_with_its_document(index: TraceIndex):
    found = overlap(index, QUESTION, 13)
    assert found is not None
    assert (found.words, found.documents, found.url.startswith("https://")) == (17, 1, True)
    assert "lays its eggs in the nest" in found.text
    assert (
        overlap(index, "Which animal of these lays eggs into nests of other birds, and builds none?", 8)
        is None
    )


def test_other_capitals_end_a_passage_and_a_part_that_is_long_enough_counts(index: TraceIndex):
    half = QUESTION.replace("another", "Another")
    assert overlap(index, half, 13) is None
    found = overlap(index, half, 8)
    assert found is not None and found.words == 11


@given(st.integers(0, 12), st.integers(8, 13))
@settings(deadline=None)
def test_so_many_words_of_a_document_are_found_wherever_they_begin(index: TraceIndex, start: int, count: int):
    words = PAGES[1].split()[start : start + count]
    found = overlap(index, f"Tell me: {' '.join(words)}", words_in(" ".join(words)))
    assert found is not None and found.words >= count


def test_as_many_words_decide_as_the_short_questions_of_a_benchmark_have():
    assert ngram_of(["one two"] * 20) == 8
    assert ngram_of(["word " * 30] * 20) == 13
    assert ngram_of(["word " * 10] * 2 + ["word " * 40] * 18) == 10


def test_texts_without_an_index_are_searched_by_the_same_rule():
    half = QUESTION.replace("another", "Another")
    unlike = "Which animal of these lays eggs into nests of other birds, and builds none?"
    documents = [("line 1", [PAGES[0]]), ("line 2", ["A quiz.", PAGES[1]]), ("line 3", [PAGES[1], PAGES[1]])]
    found = overlaps_in(documents, [QUESTION, half, unlike, "Why?"], 8)
    assert sorted(found) == [0, 1]
    assert (found[0].words, found[0].documents, found[0].id, found[0].text) == (
        17,
        2,
        "line 2",
        QUESTION[:-1],
    )
    assert (found[1].words, found[1].documents) == (11, 2)
    assert sorted(overlaps_in(documents, [QUESTION, half], 13)) == [0]
    assert overlaps_in([], [QUESTION], 8) == overlaps_in(documents, ["Why?"], 8) == {}


@given(st.integers(0, 12), st.integers(8, 13), st.sampled_from(["", "Tell me: ", "and "]), st.booleans())
@settings(deadline=None)
def test_an_index_and_reading_find_as_many_words(
    index: TraceIndex, start: int, count: int, before: str, cut: bool
):
    asked = before + " ".join(PAGES[1].split()[start : start + count]) + (" otherwise" if cut else "")
    indexed = overlap(index, asked, 8)
    read = overlaps_in([(str(place), [page]) for place, page in enumerate(PAGES)], [asked], 8).get(0)
    assert (indexed and indexed.words) == (read and read.words)
