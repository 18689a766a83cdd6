"""Cutting, counting, merging and bulk encoding: the regular expressions, Python's Counter, a naive trainer
and tiktoken judge.
"""

from collections import Counter
from functools import cache, partial

import numpy as np
import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.tokenizer import Tokenizer, count, table, train
from crawltalk.tokenizer.bpe import learn_merges
from crawltalk.tokenizer.count import count_chunks
from crawltalk.tokenizer.patterns import GPT2, splitter
from crawltalk.tokenizer.split import split
from crawltalk.tokenizer.table import ChunkTable
from support.tokenizers import NAMES, PIECES, TEXT, tricky

PIECES += [
    "a",
    "Zebra",
    "é",
    "e\u0301",
    "ſ",
    "中文",
    "🙂",
    "7",
    "1234567",
    "٣",
    "Ⅷ",
    "!",
    "...",
    "_",
    "\0",
    "\U0010ffff",
    "\ufeff",
    "\U000e0101",
    "\u0301",
    "ABC",
    "xY",
    "ǅ",
    "ʰ",
    "/",
    "\U00032875",
]
PIECES += [
    "/",
    "word",
    "Word",
    "-",
    " (",
    '"',
    ", ",
    ". ",
    "\n\n",
    "\n    ",
    "\n \n",
    " \n",
    "'t",
    "12",
    "345",
]
long = st.lists(st.sampled_from(PIECES), min_size=70, max_size=200).map("".join)
UNKNOWN = r"\p{L}+|\p{N}+| ?[^\p{L}\p{N}]"


def cut(pattern: str, text: str) -> list[str]:
    """The chunks of a text, by `tokenizers`, whose Unicode is that of tiktoken."""
    judge = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return [chunk for chunk, _ in judge.pre_tokenize_str(text)]


@pytest.mark.parametrize("name", NAMES)
@given(text=tricky)
@settings(max_examples=300, deadline=None)
def test_chunks_are_those_of_the_regular_expression(name, text):
    known = splitter(name)
    assert known is not None
    assert [chunk.decode() for chunk in split(text.encode(), known)] == cut(known.pattern, text)


@pytest.mark.parametrize("name", NAMES)
@given(texts=st.lists(long, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_chunks_of_longer_texts_are_those_of_the_regular_expression(name, texts):
    known, made = splitter(name), ChunkTable()
    assert known is not None
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    numbers, ends = made.number(data, np.cumsum([len(text.encode()) for text in texts]), known)
    packed = made.chunks()
    chunks = [chunk.tobytes().decode() for chunk in np.split(packed.data, packed.ends[:-1])]
    cuts = [cut(known.pattern, text) for text in texts]
    assert [chunks[number - 1] for number in numbers] == [chunk for row in cuts for chunk in row]
    assert np.diff(ends, prepend=0).tolist() == list(map(len, cuts))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=40))
def test_bytes_that_are_no_text_are_cut_as_marks_and_none_is_lost(name, data):
    known = splitter(name)
    assert known is not None
    as_marks = regex.sub("[\ud800-\udfff]", "\x01", data.decode("utf-8", "surrogateescape"))
    assert [len(chunk) for chunk in cut(known.pattern, as_marks)] == [
        len(chunk.decode("utf-8", "surrogateescape")) for chunk in split(data, known)
    ]
    assert b"".join(split(data, known)) == data


@pytest.mark.parametrize("pattern", [*NAMES, UNKNOWN])
@given(texts=st.lists(tricky, max_size=8), threads=st.integers(1, 3), block=st.sampled_from([1, 30, 1 << 22]))
@settings(deadline=None)
def test_chunks_are_counted_as_python_counts_them(pattern, texts, threads, block):
    chunks = partial(cut, known.pattern) if (known := splitter(pattern)) else partial(regex.findall, pattern)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(count, "BLOCK", block)
        result = count_chunks(texts, pattern, threads=threads)
    assert result.counter() == Counter(chunk.encode() for text in texts for chunk in chunks(text))
    assert result.error == 0


def test_a_text_longer_than_a_block_is_cut_where_chunks_begin(monkeypatch):
    monkeypatch.setattr(count, "BLOCK", 1000)
    whole = TEXT + "\n\n  x\n y\nz" * 50
    assert len(list(count._blocks([whole]))) > 5
    for name in NAMES:
        assert (
            count_chunks([whole], name, threads=2).counter() == count_chunks([whole.encode()], name).counter()
        )


def test_where_memory_is_short_no_count_is_wrong_by_more_than_is_said(monkeypatch):
    monkeypatch.setattr(count, "BLOCK", 1 << 14)
    drawn = np.random.default_rng(0).zipf(1.3, 200_000) % 100_000
    letters = str.maketrans("0123456789", "abcdefghij")
    texts = [" ".join(f"{number}" for number in row).translate(letters) for row in drawn.reshape(100, -1)]
    exact, result = count_chunks(texts).counter(), count_chunks(texts, threads=2, max_chunks=400)
    assert result.error > 0
    assert len(result.counts) < 2000 < len(exact)
    for chunk, amount in result.counter().items():
        assert exact[chunk] - result.error <= amount <= exact[chunk]
    lost = {chunk: amount for chunk, amount in exact.items() if chunk not in result.counter()}
    assert max(lost.values()) <= result.error


def test_more_long_words_than_can_be_addressed_are_refused(monkeypatch):
    monkeypatch.setattr(table, "_MOST_TEXT", 1 << 18)
    texts = [
        " ".join(
            f"{'abcdefghij'[n % 10]}{'klmnopqrst'[n // 10 % 10]}" * 40 + "z" * (n % 997) for n in range(2000)
        )
    ]
    with pytest.raises(BadInput, match="give a lower max_chunks"):
        count_chunks(texts)


def test_rare_pairs_are_not_merged_if_so_asked():
    chunks = count_chunks(["low lower lowest"] * 3 + ["rare rarest"] * 2)
    assert len(learn_merges(chunks, 100, 3)) < len(learn_merges(chunks, 100, 2))
    words = Tokenizer.trained(learn_merges(chunks, 100, 3)).vocab
    assert b"low" in words
    assert b"ra" not in words


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_merges_are_those_of_rustbpe(pattern):
    rustbpe = pytest.importorskip("rustbpe")
    known = splitter(pattern)
    assert known is not None
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator(iter([TEXT] * 2), 256 + 500, pattern=known.pattern)
    merged = sorted(theirs.get_mergeable_ranks(), key=lambda row: row[1])
    ours = Tokenizer.trained(learn_merges(count_chunks([TEXT] * 2, pattern), 500))
    assert [bytes(word) for word, _ in merged] == list(ours.vocab)


def test_training_takes_a_size_and_a_pattern_and_refuses_what_is_too_small():
    made = train([TEXT], 400, "gpt2")
    assert (made.vocab_size, made.pattern) == (400, GPT2)
    assert made.decode(made.encode(TEXT)) == TEXT
    own = train([TEXT], 300, r"\S+|\s+")
    assert own.decode(own.encode(TEXT)) == TEXT
    with pytest.raises(BadInput, match="need 264"):
        train([TEXT], 200)


@cache
def trained(pattern: str) -> Tokenizer:
    return train([TEXT], 700, pattern)


@pytest.mark.parametrize("pattern", [*NAMES, UNKNOWN])
@given(texts=st.lists(tricky, max_size=5), threads=st.integers(1, 2))
@settings(deadline=None)
def test_bulk_encoding_is_that_of_tiktoken(pattern, texts, threads):
    made = trained(pattern)
    judge = tiktoken.Encoding("judge", pat_str=made.pattern, mergeable_ranks=made.vocab, special_tokens={})
    assert [ids.tolist() for ids in made.encode_batch(texts, threads)] == [
        judge.encode_ordinary(text) for text in texts
    ]


@given(st.text("ab", min_size=90, max_size=400))
@settings(deadline=None)
def test_long_chunks_are_merged_as_short_ones_are(chunk):
    made = train(["abba aab baab abab bbb aaaa " * 3], 290)
    judge = tiktoken.Encoding("judge", pat_str=made.pattern, mergeable_ranks=made.vocab, special_tokens={})
    assert made.encode_batch([chunk])[0].tolist() == judge.encode_ordinary(chunk)


@pytest.mark.parametrize("size", [15, 16, 17, 255, 256, 257, 4095, 4096, 4097])
def test_chunks_that_just_fill_a_tree_of_ranks_are_merged_as_tiktoken_merges_them(size):
    letters = np.random.default_rng(size).choice(list("abe th"), size)
    made, chunk = trained("gpt4"), "".join(letters).replace(" ", "n")
    judge = tiktoken.Encoding("judge", pat_str=made.pattern, mergeable_ranks=made.vocab, special_tokens={})
    assert made.encode_batch([chunk])[0].tolist() == judge.encode_ordinary(chunk)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_text_come_back(data):
    assert trained("gpt4").decode_bytes(trained("gpt4").encode(data)) == data
    assert trained(UNKNOWN).decode_bytes(trained(UNKNOWN).encode(data)) == data


def test_a_lone_surrogate_comes_back_as_its_bytes():
    text = "a \ud800 b"
    assert trained("gpt4").decode_bytes(trained("gpt4").encode(text)) == text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        " " * 1_000_000,
        "'" * 1_000_000,
        "".join(map(chr, np.random.default_rng(0).integers(97, 123, 200_000))),
    ],
    ids=["a", "blank", "quote", "letters"],
)
def test_a_long_run_is_encoded(text):
    made = trained("gpt4")
    assert made.decode(made.encode(text)) == text
