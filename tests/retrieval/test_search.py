"""Full-text search over a run's documents."""

import time

import pytest

from crawltalk.core.errors import BadInput
from crawltalk.retrieval.search import IndexProgress, Search, SearchResults
from crawltalk.serve.ui.browse import read_page
from support.searchable import run_with


def search(index: Search, query: str, offset: int = 0) -> SearchResults:
    """What a search finds when the index is complete."""
    while isinstance(result := index.search(query, offset), IndexProgress):
        assert result.done <= result.total
        time.sleep(0.002)
    return result


def test_words_are_found_and_none_of_them_is_an_operator(tmp_path):
    texts = [
        "Gold\nGold is a soft metal.",
        "Lead\nLead is soft, too, NEAR metal.",
        "Café\nA place OR a bean.",
    ]
    index = Search(run_with(tmp_path, "1", texts))
    titles = {
        "soft metal": {"Gold", "Lead"},
        '"soft metal"': {"Gold"},
        "cafe": {"Café"},
        "place OR bean": {"Café"},
        "soft NEAR metal": {"Lead"},
        "silver": set(),
        "soft\0metal": {"Gold", "Lead"},
        'title:gold ("* -': set(),
    }
    for words, expected in titles.items():
        assert {result.title for result in search(index, words).results} == expected, words
    [result] = search(index, '"soft metal"').results
    assert result.snippet == "Gold is a \x02soft metal\x03."
    assert read_page(tmp_path / "data", "documents", result.position)["id"] == "<0>"
    for words in ("", '""', "* - ("):
        with pytest.raises(BadInput, match="type a word"):
            index.search(words)


def test_the_index_is_built_again_when_the_data_changed(tmp_path):
    search(Search(run_with(tmp_path, "1", ["Gold\nold"])), "gold")
    run = run_with(tmp_path, "2", ["Lead\nnew"] * 30)
    assert search(Search(run), "gold").count == 0
    assert search(Search(run), "new").count == 30
    assert len(search(Search(run), "new", 20).results) == 10
    assert not list(tmp_path.glob("*.tmp"))
