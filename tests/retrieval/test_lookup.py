"""From a question to the passages that answer it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.retrieval.lookup import _best_part, find_passages, question_words
from crawltalk.retrieval.search import Search
from crawltalk.tools.answers import Answerer
from crawltalk.tools.loop import Limits
from crawltalk.tools.toolbox import Surroundings, make_tools
from support.searchable import run_with

PAGES = [
    "Dysprosium\nDysprosium is a chemical element. "
    + "It has the atomic number 66. It was found in Paris. " * 9
    + "Its melting point is 1412 degrees. "
    + "It is soft. " * 40,
    "Paris\nParis is the capital of France. The Seine flows through it.",
    "Helium\nHelium is a gas. Its melting point is very low.",
]


@pytest.fixture
def run(tmp_path):
    return run_with(tmp_path, "1", PAGES)


def test_a_question_is_answered_by_the_part_of_the_page_it_is_about(run):
    passages = find_passages(Search(run), "What is the melting point of dysprosium?", count=2, characters=120)
    assert [passage.title for passage in passages] == ["Dysprosium", "Helium"]
    assert "1412 degrees" in passages[0].text and len(passages[0].text) <= 120
    for passage in passages:
        text = PAGES[int(passage.position.split(".")[2])].split("\n", 1)[1]
        assert text[passage.start :].startswith(passage.text)
    assert passages[0].url == "https://a.example/0"


def test_a_word_of_the_question_is_enough_and_function_words_are_none(run):
    assert question_words("What is the capital of France?") == ["capital", "france"]
    assert question_words("Who is it?") == ["who", "is", "it"]
    [first, *_] = find_passages(
        Search(run), "Would you please tell me of the Seine and its unknowable springs?"
    )
    assert first.title == "Paris"
    assert find_passages(Search(run), "zyzzyva") == []
    with pytest.raises(BadInput, match="type a word"):
        find_passages(Search(run), "?!")


@given(text=st.text("ab. \n!", max_size=300), characters=st.integers(1, 80))
@settings(deadline=None)
def test_a_passage_is_a_part_of_its_document_word_for_word(text, characters):
    passage = _best_part("0.0.0", "u", "t", text, {"ab": 1.0, "ba": 2.0}, characters)
    assert text[passage.start : passage.start + len(passage.text)] == passage.text
    assert len(passage.text) <= characters


def test_the_tool_numbers_passages_with_title_and_address(run):
    [tool] = make_tools(["search"], Surroundings(run=run))
    result = tool.call({"query": "melting point"})
    assert result.text.shown.startswith("[1] ") and "(https://a.example/2)" in result.text.shown
    assert tool.call({"query": "zyzzyva"}).text.shown == "nothing found"
    small = make_tools(["search"], Surroundings(run=run, context=256))[0].call({"query": "melting point"})
    assert "[2]" not in small.text.shown and len(small.text) < 256 + 60 <= 2 * Limits.of_context(256).result


def test_search_first_puts_what_was_found_before_the_question(run):
    answerer = Answerer([], Surroundings(run=run), search_first=True)
    episode, passages = answerer.begin([Message("system", "s"), Message("user", "What is helium?")])
    assert [message.role for message in episode.messages] == ["system", "tool", "user"]
    assert passages[0].title == "Helium" and passages[0].text in episode.messages[1].content
    assert episode.offered == [] and "looks through" in answerer.notices[0]
    episode, passages = answerer.begin([Message("user", "?")])
    assert passages == [] and episode.messages[0].content == "nothing found"


def test_without_documents_it_says_what_to_do(tmp_path, run):
    with pytest.raises(BadInput, match="--call-first needs tools"):
        Answerer([], Surroundings(run=run), call_first=True)
    (run.path / "data" / "manifest.json").unlink()
    with pytest.raises(MissingInput):
        make_tools(["search"], Surroundings(run=run))
