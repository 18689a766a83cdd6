"""The tokenizer stage: what it learns from, what it writes and measures."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk import recipe
from crawltalk.core.documents import write_documents
from crawltalk.core.errors import BadInput
from crawltalk.core.types import Document
from crawltalk.pretraining.tokenizer import spread
from crawltalk.pretraining.tokenizer import tokenizer as train_stage
from crawltalk.run.stage import Job, Progress
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.tokenizer import SPECIAL_TOKENS
from support.tokenizers import TEXT as SHORT

TEXT = SHORT * 2


def job(
    folder: Path, texts: list[str], config: recipe.Tokenizer, stream: io.StringIO | None = None
) -> Job[recipe.Tokenizer]:
    """The stage's order over these texts, one page each."""
    pages = [
        Document(
            text=text,
            id=f"<urn:uuid:{number}>",
            dump="test",
            url=f"https://site.example/{'even' if number % 2 == 0 else 'odd'}/{number}",
            date="2025-01-01T00:00:00Z",
            file_path="test.warc.gz",
            language="en",
            language_score=1.0,
            token_count=1,
        )
        for number, text in enumerate(texts)
    ]
    for name in ("data", "out"):
        (folder / name).mkdir(exist_ok=True)
    write_documents(folder / "data" / "documents-00000.parquet", pages)
    return Job(
        config, {"data": folder / "data"}, folder / "out", 0, recipe.Machine(), Progress(stream, "tokenizer")
    )


PAGES = [f"{start} {TEXT[start : start + 500]}" for start in range(0, 8000, 200)]


def test_the_stage_learns_a_vocabulary_of_the_asked_size(tmp_path):
    metrics = train_stage(job(tmp_path, PAGES, recipe.Tokenizer(vocab_size=400)))
    result = Tokenizer.load(tmp_path / "out")
    assert metrics["vocab_size"] == result.vocab_size == 400
    assert metrics["merges"] == len(result.merges) == 400 - 256 - len(SPECIAL_TOKENS)
    assert [result.special_tokens[name] for name in SPECIAL_TOKENS] == list(
        range(400 - len(SPECIAL_TOKENS), 400)
    )
    held_out = PAGES[::20]
    ids = sum(len(result.encode(text)) for text in held_out)
    assert metrics["bytes_per_token"] == round(sum(len(text.encode()) for text in held_out) / ids, 3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    train_stage(job(tmp_path, PAGES, recipe.Tokenizer(vocab_size=400)))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_too_little_text_makes_a_smaller_vocabulary_and_says_so(tmp_path):
    stream = io.StringIO()
    metrics = train_stage(job(tmp_path, ["ab ab"], recipe.Tokenizer(vocab_size=4096), stream))
    assert 264 <= metrics["vocab_size"] < 270
    assert "the vocabulary is smaller" in stream.getvalue()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (recipe.Tokenizer(vocab_size=200), "need 264"),
        (recipe.Tokenizer(include="/nowhere/"), "no document's URL matches tokenizer.include"),
        (recipe.Tokenizer(pattern="gpt5"), "no split pattern is called 'gpt5'"),
        (recipe.Tokenizer(pattern="(a"), "split pattern '\\(a' is not a regular expression"),
        (recipe.Tokenizer(include="("), "tokenizer.include = .* not a regular expression"),
        (recipe.Tokenizer(train_bytes=10), "no document fits tokenizer.train_bytes"),
    ],
)
def test_the_stage_refuses_what_it_cannot_do_by_the_fields_name(config, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        train_stage(job(tmp_path, PAGES, config))


@given(st.lists(st.integers(0, 80), max_size=30), st.integers(1, 300))
def test_a_share_of_the_documents_is_spread_evenly_and_never_above_the_limit(sizes, limit):
    chosen = spread(sizes, limit)
    taken = sum(sizes[number] for number in chosen)
    assert taken <= limit
    assert taken > min(limit, sum(sizes)) - 81 or sum(sizes) == taken
    assert all(sizes[number] for number in chosen)


def test_only_documents_whose_url_matches_are_learned_from(tmp_path):
    texts = ["zebra " * 50 if number % 2 == 0 else "quokka " * 50 for number in range(60)]
    train_stage(job(tmp_path, texts, recipe.Tokenizer(vocab_size=280, include="/odd/")))
    words = Tokenizer.load(tmp_path / "out").vocab
    assert b" quokka" in words
    assert b"zebra" not in words
