"""Full-text search over a run's documents."""

import time
from pathlib import Path

import msgspec
import pytest

from crawltalk.core.documents import write_documents
from crawltalk.core.errors import BadInput
from crawltalk.core.types import Document
from crawltalk.recipe.layers import load_recipe
from crawltalk.retrieval.search import IndexProgress, Search, SearchResults
from crawltalk.run.folder import RunFolder
from crawltalk.run.manifest import Manifest
from crawltalk.serve.ui.browse import read_page


def document(number: int, text: str) -> Document:
    fields = {
        "dump": "d",
        "date": "",
        "file_path": "f",
        "language": "en",
        "language_score": 1.0,
        "token_count": 1,
    }
    return Document(text=text, id=f"<{number}>", url=f"https://a.example/{number}", **fields)


def run_with(folder: Path, fingerprint: str, texts: list[str]) -> RunFolder:
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    write_documents(
        data / "documents-00000.parquet", [document(number, text) for number, text in enumerate(texts)]
    )
    manifest = Manifest(
        **{
            "stage": "data",
            "version": 1,
            "fingerprint": fingerprint,
            "config": {},
            "inputs": {},
            "files": [],
            "metrics": {},
        },
        **{
            "started": "",
            "seconds": 0,
            "cpu_seconds": 0,
            "peak_memory_bytes": 0,
            "attempts": 1,
            "versions": {},
            "host": "",
        },
    )
    (data / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    run = RunFolder(folder)
    run.write_recipe(load_recipe("nano"))
    return run


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
