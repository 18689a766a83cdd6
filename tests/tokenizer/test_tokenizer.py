"""Byte-level BPE: training, encoding, files."""

import base64
import json
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.tokenizer import Tokenizer, patterns
from crawltalk.tokenizer.alphabet import to_bytes, to_text
from crawltalk.tokenizer.bpe import learn_merges
from crawltalk.tokenizer.count import Chunks, count_chunks
from crawltalk.tokenizer.tokenizer import SPECIAL_TOKENS
from crawltalk.verbs.tokens import tokens as show_tokens

SHARED = Path(__file__).parents[3] / "shared" / "data"
TEXT = (
    Path(__file__).read_text(encoding="utf-8") * 2
    + "Ünïcödé, 中文, emoji 🙂, the the the thing; 12345 is 3 digits."
)
tricky = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [*SPECIAL_TOKENS, " ", "  ", "\n", "'s", "123", "a1", "é", "🙂", "\t\n ", "the", "\r\n"]
        ),
        max_size=12,
    ).map("".join),
)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.trained(learn_merges(count_chunks([TEXT]), 400))


def naive_merges(chunks: Counter[bytes], merges: int) -> list[tuple[int, int]]:
    """Count everything anew at each step: slow, obvious, right."""
    sequences = [(list(chunk), count) for chunk, count in sorted(chunks.items())]
    words = [bytes([value]) for value in range(256)]
    learned: list[tuple[int, int]] = []
    while len(learned) < merges:
        counts: Counter[tuple[int, int]] = Counter()
        for sequence, count in sequences:
            for pair in pairwise(sequence):
                counts[pair] += count
        best = [(-n, pair) for pair, n in counts.items() if n > 1]
        if not best:
            break
        pair = min(best)[1]
        assert words[pair[0]] + words[pair[1]] not in words
        words.append(words[pair[0]] + words[pair[1]])
        learned.append(pair)
        for sequence, _ in sequences:
            index = 0
            while index < len(sequence) - 1:
                if (sequence[index], sequence[index + 1]) == pair:
                    sequence[index : index + 2] = [255 + len(learned)]
                index += 1
    return learned


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=14).map(str.encode), st.integers(1, 6), max_size=12)
)
@settings(deadline=None)
def test_merges_are_those_of_a_naive_trainer(chunks):
    counts = Counter(chunks)
    assert learn_merges(Chunks.of(counts), 40) == naive_merges(counts, 40)


def test_merges_of_real_text_are_those_of_a_naive_trainer():
    chunks = count_chunks([TEXT])
    assert learn_merges(chunks, 150) == naive_merges(chunks.counter(), 150)


@given(tricky)
@settings(max_examples=300)
def test_decoding_undoes_encoding_and_text_never_becomes_a_control_token(text):
    ids = tokenizer().encode(text)
    assert tokenizer().decode(ids) == text
    assert not set(ids) & set(tokenizer().special_tokens.values())


@given(tricky)
@settings(max_examples=300, deadline=None)
def test_another_library_reads_our_file_with_the_same_ids(text):
    assert hf_tokenizer().encode(escape_specials(text)).ids == tokenizer().encode(escape_specials(text))


def escape_specials(text: str) -> str:
    """The peer takes control tokens' names in text for the tokens; ours does not, so they are left out of the
    comparison.
    """
    return regex.sub(r"<(?=\||/?tool_)", "‹", text)


@cache
def hf_tokenizer() -> tokenizers.Tokenizer:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        tokenizer().save(folder)
        return tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def test_batches_equal_single_encodings():
    texts = ["", "the thing", "🙂 <|im_end|>", TEXT[:500]]
    assert [ids.tolist() for ids in tokenizer().encode_batch(texts, 2)] == [
        tokenizer().encode(text) for text in texts
    ]


def test_a_saved_tokenizer_loads_as_itself(tmp_path):
    tokenizer().save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (again.vocab, again.merges, again.special_tokens, again.pattern) == (
        tokenizer().vocab,
        tokenizer().merges,
        tokenizer().special_tokens,
        tokenizer().pattern,
    )
    assert again.eot == tokenizer().eot
    assert Tokenizer.load(str(tmp_path)).vocab == again.vocab
    assert again.encode(TEXT) == tokenizer().encode(TEXT)
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8").count("\n") == len(tokenizer().merges)


@given(st.binary(max_size=40))
def test_the_printable_alphabet_is_a_bijection(data):
    assert to_bytes(to_text(data)) == data


def test_folders_without_a_byte_level_bpe_are_refused(tmp_path):
    with pytest.raises(MissingInput, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram"}}))
    with pytest.raises(BadInput, match="byte-level BPE"):
        Tokenizer.load(tmp_path)


def test_too_little_text_gives_fewer_merges():
    assert len(learn_merges(count_chunks(["ab ab"]), 50)) < 5


def test_gpt2s_real_vocabulary_encodes_as_tiktoken_does():
    folder = SHARED / "tok_gpt2"
    if not (folder / "encoder.json").exists() or not (folder / "vocab.bpe").exists():
        pytest.skip("shared/data/tok_gpt2 is not here")
    vocab = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    order = sorted(vocab, key=vocab.__getitem__)
    special = {"<|endoftext|>": vocab["<|endoftext|>"]}
    words = {to_bytes(text): index for index, text in enumerate(order) if text not in special}
    pairs = [(to_bytes(left), to_bytes(right)) for left, right in merges]
    ours = Tokenizer(words, pairs, patterns.GPT2, special, None)
    ranks = {to_bytes(text): index for text, index in vocab.items() if text != "<|endoftext|>"}
    theirs = tiktoken.Encoding("gpt2", pat_str=patterns.GPT2, mergeable_ranks=ranks, special_tokens={})
    assert ours.encode(TEXT) == theirs.encode_ordinary(TEXT)
    assert ours.encode("Hello world") == [15496, 995]


def test_llama_3s_real_vocabulary_encodes_as_tiktoken_and_tokenizers_do(tmp_path):
    path = SHARED / "tok_llama3" / "tokenizer.model"
    if not path.exists():
        pytest.skip("shared/data/tok_llama3 is not here")
    ranks = {
        base64.b64decode(word): int(rank)
        for word, rank in (line.split() for line in path.read_bytes().splitlines())
    }
    merges = []
    for word in ranks:  # a list of ranks has no merges: every way to put a token together is one
        ways = [(word[:cut], word[cut:]) for cut in range(1, len(word))]
        merges += sorted(
            (way for way in ways if way[0] in ranks and way[1] in ranks),
            key=lambda way: [ranks[part] for part in way],
        )
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    specials = {name: len(ranks) + index for index, name in enumerate(names)}
    Tokenizer(ranks, merges, patterns.GPT4, specials).save(tmp_path)
    ours = Tokenizer.load(tmp_path)
    tik = tiktoken.Encoding("llama3", pat_str=patterns.GPT4, mergeable_ranks=ranks, special_tokens={})
    hf = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in (
        TEXT,
        "<|eot_id|> Straße, naïve 東京 🙂🙂   \n\n\t don't WE'LL 1234567",
        " antidisestablishmentarianism",
    ):
        assert ours.encode(text) == tik.encode_ordinary(text)
        assert ours.decode(ours.encode(text)) == text
        assert hf.encode(escape_specials(text)).ids == ours.encode(escape_specials(text))


@pytest.mark.parametrize(
    "text",
    [" " * 400_000, " " * 400_000 + "x", "a" + "\n \t" * 100_000, "the" * 100_000],
    ids=["blanks", "blanks and a letter", "lines of blanks", "letters"],
)
def test_very_long_runs_encode_and_decode(text):
    ids = tokenizer().encode(text)
    assert tokenizer().decode(ids) == text
    assert [batch.tolist() for batch in tokenizer().encode_batch(["the", text, "thing"])][1] == ids


def test_bytes_without_a_token_are_left_out_and_the_rest_is_kept():
    words = {word: index for word, index in tokenizer().vocab.items() if word != b"\x04"}
    poor = Tokenizer(words, tokenizer().merges, patterns.GPT4, tokenizer().special_tokens)
    assert poor.decode(poor.encode("the \x04thing\x04")) == "the thing"
    assert poor.encode("the thing") == tokenizer().encode("the thing")


def test_the_verb_prints_ids_and_pieces_even_before_there_is_a_model(tmp_path, capsys):
    tokenizer().save(tmp_path / "tokenizer")
    show_tokens("the 🙂\n", model=str(tmp_path))
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert tokenizer().decode([int(index) for index, _ in lines]) == "the 🙂\n"
