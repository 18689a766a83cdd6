"""Gold sets and their scores."""

import gzip
import json
from pathlib import Path

import pytest

from crawltalk.data.extract.gold import Gold, article_f1, gold_sets, passage_f1, passages, word_f1
from crawltalk.data.extract.main_text import extract

MARKED = Path(__file__).parents[3] / "shared/data/html_trafilatura.tar.gz"


def test_passages_count_what_is_found_and_what_should_not_be():
    page = Gold("a", b"", keep=["one", "two"], drop=["three", "four"])
    assert passage_f1([page], ["one two"]) == 1
    assert passage_f1([page], ["one three"]) == 2 / (2 + 1 + 1)
    assert passage_f1([page], [""]) == 0


def test_words_and_runs_of_words_are_scored_as_their_sets_define():
    page = Gold("a", b"", "The quick brown fox jumps")
    assert (
        word_f1([page], ["the QUICK brown fox jumps"])
        == article_f1([page], ["The quick brown fox jumps"])
        == 1
    )
    assert word_f1([page, page], ["the quick", ""]) == (2 * 1 * 0.4 / 1.4) / 2
    assert article_f1([page, page], ["The quick brown fox", ""]) == 2 * 1 * 0.25 / 1.25


def test_the_sets_below_a_folder_are_found_by_their_files(tmp_path: Path):
    html, text = (
        b"<p>A paragraph of some length, which is all that there is to be read on this page.</p>",
        "A paragraph",
    )
    for folder in ("marked", "articles/html", "types/test/html", "types/test/ground-truth"):
        (tmp_path / folder).mkdir(parents=True)
    names = [f"{number}.html" for number in range(40)]
    entries = {name: {"file": name, "with": [text], "without": ["Home"]} for name in names}
    (tmp_path / "marked/evaldata.json").write_text(json.dumps(entries))
    for name in names:
        (tmp_path / "marked" / name).write_bytes(html)
    (tmp_path / "articles/ground-truth.json").write_text(json.dumps({"x": {"articleBody": extract(html)}}))
    (tmp_path / "articles/html/x.html.gz").write_bytes(gzip.compress(html))
    (tmp_path / "types/test/ground-truth/1.json").write_text(
        json.dumps({"ground_truth": {"main_content": extract(html)}})
    )
    (tmp_path / "types/test/html/1.html.gz").write_bytes(gzip.compress(html))
    result = gold_sets(tmp_path)
    assert [known.name for known in result] == ["passages", "articles", "page types"]
    assert 0 < len(result[0].pages) < 40 and all(page.held_out for page in result[0].pages)
    assert [known.score(extract) for known in result] == [1, 1, 1]


def test_extraction_is_good_on_pages_that_it_was_not_trained_on(tmp_path: Path):
    if not MARKED.exists():
        pytest.skip(f"no marked pages at {MARKED}")
    import tarfile

    with tarfile.open(MARKED) as archive:
        archive.extractall(tmp_path, filter="data")
    known = next(iter(gold_sets(tmp_path)))
    assert len(passages(next(tmp_path.rglob("evaldata.json")).parent)) == 990 and len(known.pages) == 258
    assert known.score(extract) > 0.92
