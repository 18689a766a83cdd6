"""Passages of documents, and the search among them by questions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.retrieval.passages import MAX_CHARACTERS, Passages, build_index, cut, sentences
from support.library import library_index, page

TEXTS = st.text(st.sampled_from("abcdefgh .\n?!é。"), max_size=3000)


@given(TEXTS)
def test_passages_are_in_order_and_hold_all_of_a_text_but_its_title(text):
    passages = cut(text)
    title = text.partition("\n")[0] if "\n" in text else ""
    body = "".join(text[len(title) :].split())
    assert "".join("".join(text[start:end].split()) for start, end in passages) == body
    assert all(0 < end - start <= 2 * MAX_CHARACTERS for start, end in passages)
    assert all(text[start:end] == text[start:end].strip() for start, end in passages)


@given(TEXTS)
def test_sentences_hold_all_of_a_text_and_none_spans_lines(text):
    spans = sentences(text)
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())
    assert not any("\n" in text[start:end] for start, end in spans)


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("What raises the level of the oceans?", "tides"),
        ("Which piece moves along diagonals?", "chess"),
        ("why does dough rise", "bread"),
        ("What do windows consist of?", "glass"),
        ("CASTLING", "chess"),
    ],
)
def test_a_question_finds_its_page(tmp_path, question, name):
    best = library_index(tmp_path).search(question)[0]
    assert best.url.endswith(name)
    assert best.coverage > 0.5


def test_words_that_no_page_has_lower_the_coverage(tmp_path):
    index = library_index(tmp_path)
    assert index.search("the Moon")[0].coverage == 1.0
    assert index.search("Who was the first astronaut on the Moon?")[0].coverage < 0.5
    assert index.search("astronaut") == []
    assert index.search("?!") == []


@pytest.mark.parametrize("question", ['"', "a OR b", "NEAR(", "title:x", "x*", "-y", "a\0b", "()", "'; DROP"])
def test_what_is_syntax_elsewhere_is_words_here(tmp_path, question):
    library_index(tmp_path).search(question)


def test_what_a_passage_quotes_stands_at_its_place(tmp_path):
    texts = {f"{number}": "Title\n" + f"Sentence number {number} is here. " * 80 for number in range(3)}
    build_index(tmp_path / "index", [page(name, text) for name, text in texts.items()], "")
    found = Passages(tmp_path / "index").search("sentence number 2", 20)
    assert len(found) > 3
    for passage in found:
        text = texts[passage.url.rpartition("/")[2]]
        assert text[passage.start : passage.end] == passage.text


def test_a_page_whose_other_passages_fit_too_comes_first(tmp_path):
    filler = "Nothing but words stands in here, and more of them, to the end of it. " * 9
    alone = f"One\n{filler}\nThe gauge measures. {filler}"
    many = f"Two\nThe gauge measures. {filler}\nAnother gauge measures. {filler}\nA gauge measures. {filler}"
    build_index(tmp_path / "index", [page("alone", alone), page("many", many)], "")
    assert Passages(tmp_path / "index").search("What does the gauge measure?")[0].url.endswith("many")
