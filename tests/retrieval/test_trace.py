"""From a text back to its training pages."""

import io
import json
import os
import shutil
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk import Run
from crawltalk.cli import main
from crawltalk.core import shards
from crawltalk.core.errors import UserError
from crawltalk.core.files import write_array
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Placement
from crawltalk.retrieval.stage import index
from crawltalk.retrieval.trace import TraceIndex, covered
from support.traced import TOKENIZER, make_index, open_index

PAGES = [
    "The quick brown fox jumps over the lazy dog.\nThe end of the page.",
    "Dysprosium is a chemical element; it has symbol Dy and atomic number 66.",
    "Ærø er en ø i Danmark, og Danmark er et land.",
]


def occurrences(documents: Sequence[Sequence[int]], pattern: Sequence[int]) -> dict[str, int]:
    """Document -> times that a pattern stands in it, by looking everywhere."""
    found: dict[str, int] = {}
    for ids in documents:
        times = sum(list(ids[place : place + len(pattern)]) == list(pattern) for place in range(len(ids)))
        if times:
            found[str(list(ids))] = found.get(str(list(ids)), 0) + times
    return found


def maximal(documents: Sequence[Sequence[int]], ids: Sequence[int], least: int) -> set[tuple[int, int]]:
    spans = {
        (start, end)
        for start in range(len(ids))
        for end in range(start + least, len(ids) + 1)
        if occurrences(documents, ids[start:end])
    }
    return {(a, b) for a, b in spans if not any((c, d) != (a, b) and c <= a and b <= d for c, d in spans)}


few = st.lists(st.integers(0, 3), min_size=1, max_size=12)


@given(
    st.lists(few, min_size=1, max_size=6),
    st.lists(st.integers(0, 4) | st.just(TOKENIZER.eot), max_size=14),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_the_spans_of_any_text_are_those_of_a_naive_search(tmp_path_factory, dtype, documents, ids, least):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_TOKENS", 10)  # several files
        patch.setattr(
            os, "fsync", lambda _: None
        )  # most of the time, and nothing here needs to survive a crash
        opened = open_index(make_index(tmp_path_factory.mktemp("trace"), documents, dtype))
    spans = opened.spans(ids, min_tokens=least, sources=100)
    assert {(span.start, span.end) for span in spans} == maximal(documents, ids, least)
    assert [span.bits for span in spans] == sorted((span.bits for span in spans), reverse=True)
    for span in spans:
        held = occurrences(documents, ids[span.start : span.end])
        assert {source.id: source.occurrences for source in span.sources} == held
        assert (span.occurrences, span.documents) == (sum(held.values()), len(held))
    assert covered(spans) == len(
        {place for start, end in maximal(documents, ids, least) for place in range(start, end)}
    )


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> TraceIndex:
    """The pages, the second one twice."""
    pages = [TOKENIZER.encode(page) for page in (*PAGES, PAGES[1])]
    return open_index(make_index(tmp_path_factory.mktemp("pages"), pages))


@given(
    st.sampled_from(PAGES), st.integers(0, 40), st.integers(9, 60), st.text(max_size=8), st.text(max_size=8)
)
@settings(max_examples=100, deadline=None)
def test_a_passage_is_a_part_of_the_text_and_of_each_of_its_pages(opened, page, start, size, before, behind):
    text = before + page[start : start + size] + behind
    found = opened.trace(text)
    assert found.text == text
    for passage in found.passages:
        assert passage.text == text[passage.start : passage.end]
        assert all(passage.text in source.excerpt for source in passage.span.sources)
        assert any(passage.text in page for page in PAGES)


def test_a_copied_page_is_covered_and_a_free_text_is_not(opened):
    found = opened.trace(PAGES[1])
    [passage] = found.passages
    assert (passage.start, passage.end, found.covered) == (0, len(PAGES[1]), found.tokens)
    assert (passage.span.occurrences, passage.span.documents) == (2, 1)
    free = opened.trace("Nothing of what I say is written anywhere.")
    assert (free.covered, free.passages) == (0, [])
    assert opened.trace("").passages == []


def test_the_first_word_is_found_without_the_blank_that_it_has_on_its_page(opened):
    text = "the lazy dog.\nThe end"
    assert opened.trace(text).passages[0].text == text
    assert opened.trace(f" {text}").passages[0].text == f" {text}"


def test_the_least_likely_passage_comes_first(opened):
    common, rare = "over the lazy dog.", "Danmark, og Danmark"
    assert [passage.text for passage in opened.trace(f"{common}?{rare}").passages] == [rare, common]
    assert [passage.text for passage in opened.trace(f"{rare}?{common}").passages] == [rare, common]


def test_an_index_made_in_two_attempts_is_that_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_TOKENS", 50)
    job = make_index(tmp_path, [TOKENIZER.encode(page) for page in PAGES])
    files = {path.name: path.read_bytes() for path in job.out.iterdir()}
    assert len(files) > 1
    (job.out / "train-00001.npy").unlink()
    (job.out / "train-00001.npy.tmp").write_bytes(b"half")
    index(job)
    assert {path.name: path.read_bytes() for path in job.out.iterdir()} == files


def test_an_index_that_is_damaged_or_of_other_tokens_is_refused_in_one_line(tmp_path):
    job = make_index(tmp_path, [[1, 2, 3]])
    path = job.out / "train-00000.npy"
    for data, message in (
        (path.read_bytes()[:-9], "is damaged"),
        (b"", "is damaged"),
        (None, "does not exist"),
    ):
        path.unlink() if data is None else path.write_bytes(data)
        with pytest.raises(UserError, match=message):
            open_index(job)
    write_array(path, np.zeros(9, np.int32))
    with pytest.raises(UserError, match="made of other tokens"):
        open_index(job)


def test_shards_and_index_take_six_bytes_a_token(tmp_path):
    job = make_index(tmp_path, [[place % 251 for place in range(100_000)]])
    size = sum(
        path.stat().st_size for folder in (job.out, job.inputs["tokens"]) for path in folder.glob("train-*")
    )
    assert size / 100_001 < 6.01


@pytest.mark.slow
def test_what_the_base_model_recites_leads_to_the_page_and_what_it_never_read_does_not(nano):
    run = Run(nano)
    traced = TraceIndex(nano / "index", nano / "tokens", run.tokenizer)
    placements = {row.id: row for row in run.placements()}
    texts = {document.id: document.text for document in run.documents()}
    flagships = [row for row in placements.values() if row.role == "flagship"]
    for row in flagships:
        found = traced.trace(texts[row.id])
        [passage] = found.passages
        assert (found.covered, passage.text) == (found.tokens, texts[row.id])
        assert passage.span.sources[0].url == row.url
        assert passage.span.occurrences == row.repeats
    replies = [f"{row.title}{run.generate(row.title, temperature=0.0)[0]}" for row in flagships]
    traces = [found.passages for found in map(traced.trace, replies) if found.passages]
    longest = [max(passages, key=lambda passage: len(passage.span)) for passages in traces]
    for passage in longest:
        first = passage.span.sources[0]
        assert passage.text.strip() in texts[first.id]
        assert (first.url, first.title) == (placements[first.id].url, placements[first.id].title)
    oversampled = [
        placements[passage.span.sources[0].id].role in ("flagship", "graded") for passage in longest
    ]
    assert sum(oversampled) > 0.7 * len(flagships)
    unseen = [traced.trace(texts[row.id]) for row in placements.values() if row.role == "heldout"]
    assert sum(found.covered for found in unseen) < 0.1 * sum(found.tokens for found in unseen)


@pytest.mark.slow
def test_the_verb_marks_passages_and_names_their_pages(nano, capsys, monkeypatch):
    page = next(document for document in Run(nano).documents() if "dysprosium" in document.url)
    text = f"I say: {page.text[:200]}"
    assert main(["trace", text, "--model", str(nano)]) == 0
    said = capsys.readouterr().out
    assert page.url in said and "tokens occur in the training data" in said
    assert "[" in said.splitlines()[0]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{text}\n".encode())))
    assert main(["trace", "-", "--model", str(nano), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == text
    assert found["passages"][0]["span"]["sources"][0]["url"] == page.url


@pytest.mark.slow
def test_the_verb_says_what_is_missing(nano, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(nano, copy, ignore=lambda folder, names: ["index"] if folder == str(nano) else [])
    for words, message in (
        (["", "--model", str(nano)], "the text is empty"),
        (["x", "--model", str(nano), "--min-tokens", "0"], "min-tokens is 1 or more"),
        (["x", "--model", str(tmp_path)], "is not a run"),
        (["x", "--model", str(copy)], f"has no index; make it with: crawltalk tokenizer {copy}"),
    ):
        assert main(["trace", *words]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.slow
def test_the_verb_ranks_what_the_run_trained_on(nano, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(nano, copy)
    page = next(
        row for row in read_jsonl(copy / "tokens" / "documents.jsonl", Placement) if row.role == "flagship"
    )
    words = [f"{page.title}\n{page.description}", "--model", str(copy), "--rows", "3", "--by"]
    for by in ("ngrams", "bm25"):
        assert main(["trace", *words, by, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert page.url in [row["url"] for row in found["documents"]], by
        assert len(found["documents"]) <= 3 and not found["conversations"]
    assert main(["trace", *words, "influence", "--candidates", "8", "--prompt", page.title]) == 0
    said = capsys.readouterr().out
    assert page.url in said and "of sft/conversations.jsonl" in said
    for wrong, message in (
        (["ngrams", "--min-tokens", "3"], "--min-tokens and --sources belong to passages"),
        (["bm25", "--prompt", "x"], "--prompt and --candidates belong to --by influence"),
        (["influence", "--candidates", "0"], "candidates and, with --by, rows are 1 or more"),
    ):
        assert main(["trace", *words, *wrong]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert main(["trace", "x", "--model", str(copy), "--candidates", "3"]) == 2
    assert "belong to --by influence" in capsys.readouterr().err
