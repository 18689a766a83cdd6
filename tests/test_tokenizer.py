"""Byte-level BPE: training, encoding, conversations, files."""

import json
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import tiktoken
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.types import Message
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.chat import CHATML, LLAMA3
from crawltalk.tokenizer.tokenizer import GPT4_PATTERN, SPECIALS, to_bytes, to_text
from crawltalk.tokenizer.train import count_chunks, learn_merges

SHARED = Path(__file__).parents[2] / "shared" / "data"
TEXT = Path(__file__).read_text(encoding="utf-8") * 2 + "Ünïcödé, 中文, emoji 🙂, the the the thing; 12345 is 3 digits."
tricky = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from([*SPECIALS, " ", "  ", "\n", "'s", "123", "a1", "é", "🙂", "\t\n ", "the", "\r\n"]), max_size=12
    ).map("".join),
)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.trained(learn_merges(count_chunks([TEXT], GPT4_PATTERN), 400))


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
        known = set(words)
        best = [(-n, pair) for pair, n in counts.items() if n > 1 and words[pair[0]] + words[pair[1]] not in known]
        if not best:
            break
        pair = min(best)[1]
        words.append(words[pair[0]] + words[pair[1]])
        learned.append(pair)
        for sequence, _ in sequences:
            place = 0
            while place < len(sequence) - 1:
                if (sequence[place], sequence[place + 1]) == pair:
                    sequence[place : place + 2] = [255 + len(learned)]
                place += 1
    return learned


@given(st.dictionaries(st.text("abc", min_size=1, max_size=14).map(str.encode), st.integers(1, 6), max_size=12))
@settings(deadline=None)
def test_merges_are_those_of_a_naive_trainer(chunks):
    counts = Counter(chunks)
    assert learn_merges(counts, 40) == naive_merges(counts, 40)


def test_merges_of_real_text_are_those_of_a_naive_trainer():
    chunks = count_chunks([TEXT], GPT4_PATTERN)
    assert learn_merges(chunks, 150) == naive_merges(chunks, 150)


@given(tricky)
@settings(max_examples=300)
def test_decoding_undoes_encoding_and_text_never_becomes_a_control_token(text):
    ids = tokenizer().encode(text)
    assert tokenizer().decode(ids) == text
    assert not set(ids) & set(tokenizer().specials.values())


@given(tricky)
@settings(max_examples=300, deadline=None)
def test_another_library_reads_our_file_with_the_same_ids(text):
    assert hf_tokenizer().encode(escape_specials(text)).ids == tokenizer().encode(escape_specials(text))


def escape_specials(text: str) -> str:
    """The peer takes control tokens' names in text for the tokens; ours does not, so they are left out of the comparison."""
    return regex.sub(r"<\|", "<¦", text)


@cache
def hf_tokenizer() -> tokenizers.Tokenizer:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        tokenizer().save(Path(folder))
        return tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def test_batches_equal_single_encodings():
    texts = ["", "the thing", "🙂 <|im_end|>", TEXT[:500]]
    assert [ids.tolist() for ids in tokenizer().encode_batch(texts, 2)] == [tokenizer().encode(text) for text in texts]


def test_a_saved_tokenizer_loads_as_itself(tmp_path):
    tokenizer().save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (again.words, again.merges, again.specials, again.pattern) == (
        tokenizer().words,
        tokenizer().merges,
        tokenizer().specials,
        tokenizer().pattern,
    )
    assert again.eot == tokenizer().eot
    assert again.encode(TEXT) == tokenizer().encode(TEXT)
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8").count("\n") == len(tokenizer().merges)


TURNS = [Message("system", "Be brief."), Message("user", "What is 2 + 2?"), Message("assistant", "Four,\n\nI think.")]


@pytest.mark.parametrize("reply", [False, True])
@pytest.mark.parametrize("turns", [TURNS, TURNS[1:]], ids=["system", "no system"])
@pytest.mark.parametrize("kind", ["ours", "chatml", "llama3"])
def test_conversations_render_as_transformers_renders_them(kind, turns, reply, tmp_path):
    base = tokenizer()
    words = base.words
    if kind == "chatml":
        import dataclasses

        chat = dataclasses.replace(CHATML, default_system="You help.\nAlways.")
        specials = {"<|endoftext|>": len(words), "<|im_start|>": len(words) + 1, "<|im_end|>": len(words) + 2}
        base = Tokenizer(words, base.merges, GPT4_PATTERN, specials, chat=chat)
    if kind == "llama3":
        names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
        base = Tokenizer(words, base.merges, GPT4_PATTERN, {name: len(words) + i for i, name in enumerate(names)})
        assert base.chat == LLAMA3
    base.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    rows = [{"role": turn.role, "content": turn.content} for turn in turns]
    ids = theirs.apply_chat_template(rows, add_generation_prompt=reply, tokenize=True, return_dict=True)["input_ids"]
    ours, spoken = base.render(turns, reply=reply)
    assert ours == ids
    said = base.decode([token for token, is_spoken in zip(ours, spoken, strict=True) if is_spoken])
    assert base.chat is not None
    assert said == "Four,\n\nI think." + base.chat.end
    assert Tokenizer.load(tmp_path).render(turns, reply=reply)[0] == ours


@given(tricky)
def test_a_message_cannot_open_or_end_a_turn(text):
    ids, _ = tokenizer().render([Message("user", text)], reply=True)
    marks = [token for token in ids if token in tokenizer().specials.values()]
    names = {index: name for name, index in tokenizer().specials.items()}
    assert [names[token] for token in marks] == [
        *("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        *("<|im_start|>", "<|im_sep|>"),
    ]


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
    assert len(learn_merges(count_chunks(["ab ab"], GPT4_PATTERN), 50)) < 5


def test_gpt2s_real_vocabulary_encodes_as_tiktoken_does():
    folder = SHARED / "tok_gpt2"
    if not (folder / "encoder.json").exists() or not (folder / "vocab.bpe").exists():
        pytest.skip("shared/data/tok_gpt2 is not here")
    vocab = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    from crawltalk.tokenizer.tokenizer import GPT2_PATTERN

    order = sorted(vocab, key=vocab.__getitem__)
    ours = Tokenizer.from_parts(order, merges, GPT2_PATTERN, {"<|endoftext|>": vocab["<|endoftext|>"]})
    ranks = {to_bytes(text): index for text, index in vocab.items() if text != "<|endoftext|>"}
    theirs = tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
    assert ours.encode(TEXT) == theirs.encode_ordinary(TEXT)
    assert ours.encode("Hello world") == [15496, 995]
