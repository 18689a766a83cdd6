"""Vocabularies in files: real ones give the ids of their own libraries, damaged ones are refused by line."""

import base64
import json
from pathlib import Path

import pytest
import tiktoken
import tokenizers
from hypothesis import HealthCheck, given, settings

from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.tokenizer import Tokenizer, files, train
from crawltalk.tokenizer.tokenizer import SPECIAL_TOKENS
from support.tokenizers import SHARED, TEXT, tricky

LLAMA3 = SHARED / "tok_llama3" / "tokenizer.model"
needs_llama3 = pytest.mark.skipif(not LLAMA3.exists(), reason="shared/data/tok_llama3 is not here")


@pytest.fixture(scope="module")
def llama3() -> tuple[Tokenizer, tiktoken.Encoding]:
    ranks = {
        base64.b64decode(word): int(rank)
        for word, rank in (line.split() for line in LLAMA3.read_bytes().splitlines())
    }
    made = Tokenizer.load(LLAMA3)
    return made, tiktoken.Encoding("judge", pat_str=made.pattern, mergeable_ranks=ranks, special_tokens={})


@needs_llama3
def test_a_list_of_ranks_is_read_with_the_control_tokens_that_it_does_not_name(llama3):
    made, judge = llama3
    assert made.vocab_size == 128_256
    assert made.special_tokens["<|eot_id|>"] == 128_009
    assert made.encode(TEXT) == made.encode_batch([TEXT])[0].tolist() == judge.encode_ordinary(TEXT)
    chat = ChatRenderer(made)
    assert chat.encode_chat([Message("user", "Hi <|eot_id|>")]).count(128_009) == 1
    assert chat.stop_ids == {made.special_tokens["<|end_of_text|>"], made.special_tokens["<|eot_id|>"]}


@needs_llama3
@given(text=tricky)
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_real_vocabulary_gives_the_ids_of_tiktoken(llama3, text):
    made, judge = llama3
    assert made.encode(text) == made.encode_batch([text])[0].tolist() == judge.encode_ordinary(text)


@needs_llama3
def test_merges_are_found_again_from_ranks(llama3, tmp_path):
    llama3[0].save(tmp_path)
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert peer.encode(TEXT.replace("<|", "<")).ids == llama3[0].encode(TEXT.replace("<|", "<"))
    assert Tokenizer.load(tmp_path).merges == llama3[0].merges
    assert (tmp_path / "tokenizer.tiktoken").read_bytes().split() == LLAMA3.read_bytes().split()


def test_our_own_list_of_ranks_gives_the_same_ids_in_tiktoken(tmp_path):
    made = train([TEXT], 500)
    made.save(tmp_path)
    lines = (tmp_path / "tokenizer.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(word): int(rank) for word, rank in map(bytes.split, lines)}
    peer = tiktoken.Encoding("peer", pat_str=made.pattern, mergeable_ranks=ranks, special_tokens={})
    assert peer.encode_ordinary(TEXT) == made.encode(TEXT)


def test_control_tokens_may_leave_gaps_as_gpt4s_do(tmp_path):
    made = train([TEXT], 500)
    last = made.vocab_size + 20
    Tokenizer(
        made.vocab, made.merges, made.pattern, {"<|endoftext|>": len(made.vocab) + 1, "<|last|>": last}
    ).save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.vocab_size == last + 1
    assert again.encode(TEXT) == made.encode(TEXT)


def lines() -> list[bytes]:
    words = [bytes([value]) for value in range(256)] + [b"ab", b"abc"]
    return [b"%s %d" % (base64.b64encode(word), rank) for rank, word in enumerate(words)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.__setitem__(3, b"not base64!"), r"line 4: .* is not a token in base64"),
        (lambda rows: rows.pop(7), r"line 8: rank 8 stands where rank 7 should"),
        (
            lambda rows: rows.__setitem__(257, rows[256].replace(b"256", b"257")),
            r"line 258: the token b'ab' stands in line 257",
        ),
        (
            lambda rows: rows.__setitem__(256, b"%s 256" % base64.b64encode(b"xyz")),
            r"line 257: no two tokens above it make b'xyz'",
        ),
        (lambda rows: rows.__setitem__(slice(255, None), []), r"no token for the byte 255"),
        (lambda rows: None, r"258 tokens, as no vocabulary known here"),
    ],
    ids=["base64", "gap", "duplicate", "no merge", "no byte", "unknown"],
)
def test_a_damaged_list_of_ranks_is_refused_by_line(change, message, tmp_path):
    rows = lines()
    change(rows)
    (tmp_path / "x.tiktoken").write_bytes(b"\n".join(rows))
    with pytest.raises(BadInput, match=message):
        Tokenizer.load(tmp_path / "x.tiktoken")


def damaged(tmp_path: Path, change) -> Path:
    train([TEXT], 300).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data["model"]["merges"].__setitem__(2, ["z", "z"]),
            r"merge 3, b'z' and b'z': b'zz' is not in the vocabulary",
        ),
        (lambda data: data["model"]["vocab"].__setitem__("a", 98), "have the same id 98"),
        (lambda data: data["model"]["vocab"].__setitem__("a", 999), "no token has the id"),
        (
            lambda data: data.__setitem__("normalizer", {"type": "BertNormalizer"}),
            "normalizes text before it is cut",
        ),
        (lambda data: data["model"]["vocab"].__setitem__("\n", 300), "not a byte-level BPE"),
    ],
    ids=["merge", "twice", "gap", "normalizer", "alphabet"],
)
def test_a_damaged_tokenizer_json_is_refused_by_what_is_wrong(change, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        Tokenizer.load(damaged(tmp_path, change))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingInput, match=r"no cl100k\.tiktoken"):
        Tokenizer.load(tmp_path / "cl100k.tiktoken")


def test_text_is_composed_first_where_the_vocabulary_asks_for_it(tmp_path):
    loaded = Tokenizer.load(damaged(tmp_path, lambda data: data.__setitem__("normalizer", {"type": "NFC"})))
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert (
        loaded.encode("e\u0301")
        == loaded.encode_batch(["e\u0301"])[0].tolist()
        == peer.encode("e\u0301").ids
        == loaded.encode("é")
    )
    loaded.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").normal_form == "NFC"


def test_known_control_tokens_leave_no_room_for_two_meanings():
    for count, known in files.KNOWN.items():
        assert len(set(known.special_tokens.values())) == len(known.special_tokens)
        assert min(known.special_tokens.values()) >= count
    assert len(files.KNOWN[128_000].special_tokens) == 256
    assert len(SPECIAL_TOKENS) == 8
