"""Vocabularies of other libraries: each field of a tokenizer.json gives the ids of the library `tokenizers`, or is
refused by its name.
"""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.tokenizer import Tokenizer, patterns, train
from support.foreign import LEVEL, added, split, tokenizer_json, write
from support.tokenizers import TEXT, tricky

DEEPSEEK = [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(patterns.GPT4), LEVEL]
DIGITS = {"type": "Digits", "individual_digits": True}
GPT2_LEVEL = LEVEL | {"use_regex": True}
WORDS = ["He", "Hel", "Hell", "Hello", "12", "123", "ĠĠ", "Ġy", "ab", "abc", "bc", "qu", "zzz"]
MERGES = [
    ("H", "e"),
    ("He", "l"),
    ("Hel", "l"),
    ("Hell", "o"),
    ("1", "2"),
    ("12", "3"),
    ("Ġ", "Ġ"),
    ("Ġ", "y"),
]
MERGES += [("a", "b"), ("b", "c"), ("ab", "c"), ("q", "u")]
FIRST = 256 + len(WORDS) + 1
"""The id of the first of `more` added tokens."""


def case(**changes: Any) -> dict[str, Any]:
    return tokenizer_json(**{"words": WORDS, "merges": MERGES} | changes)


def plain(*names: str, **flags: bool) -> list[dict[str, Any]]:
    return [added(name, FIRST + index, **({"special": False} | flags)) for index, name in enumerate(names)]


DONE = {
    "Qwen's split": case(steps=[split(patterns.GPT4_DIGITS), LEVEL]),
    "Llama 3's split": case(steps=[split(patterns.GPT4), LEVEL], model={"ignore_merges": True}),
    "GPT-2's split": case(),
    "DeepSeek's splits": case(steps=DEEPSEEK),
    "split and digits": case(steps=[split(patterns.GPT4), DIGITS, LEVEL]),
    "digits": case(steps=[DIGITS, GPT2_LEVEL]),
    "groups of digits": case(steps=[DIGITS | {"individual_digits": False}, GPT2_LEVEL]),
    "punctuation": case(steps=[{"type": "Punctuation", "behavior": "Isolated"}, GPT2_LEVEL]),
    "punctuation in runs": case(steps=[{"type": "Punctuation", "behavior": "Contiguous"}, LEVEL]),
    "white space is left out": case(steps=[{"type": "WhitespaceSplit"}, LEVEL]),
    "a text": case(steps=[split("") | {"pattern": {"String": " "}}, LEVEL]),
    **{
        f"{behavior} {'not ' * invert}white space": case(steps=[split(r"\s", behavior, invert=invert), LEVEL])
        for behavior in ("Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext")
        for invert in (False, True)
    },
    "a blank in front": case(steps=[LEVEL | {"use_regex": True, "add_prefix_space": True}]),
    "a blank in front of every piece": case(steps=[DIGITS, LEVEL | {"add_prefix_space": True}]),
    "a sequence in a sequence": case(steps=[{"type": "Sequence", "pretokenizers": [DIGITS, GPT2_LEVEL]}]),
    "a word that no merge makes": case(model={"ignore_merges": False}),
    "whole words first": case(model={"ignore_merges": True}),
    "an unknown token": case(model={"unk_token": "Hell"}),
    **{kind: case(normalizer={"type": kind}) for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")},
    "no normalizers": case(normalizer={"type": "Sequence", "normalizers": []}),
    "stripped": case(normalizer={"type": "Strip", "strip_left": True, "strip_right": False}),
    "replaced": case(
        normalizer={
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "ab"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\\1y"},
                {"type": "Replace", "pattern": {"Regex": r"\d+"}, "content": "1"},
            ],
        }
    ),
    "thoughts": case(more=plain("<think>", "</think>", "<tool_call>")),
    "added words": case(more=plain("abc ", "  ", "He", "Hello")),
    "added words alone": case(more=plain("He", "12", single_word=True)),
    "added words take blanks": case(more=plain("He", "12", lstrip=True, rstrip=True)),
    "added words of normal form": case(normalizer={"type": "Lowercase"}, more=plain("HE", normalized=True)),
    "control tokens stay text": case(more=[added("<|im_end|>", FIRST)]),
    "a beginning": case(
        post_processor={
            "type": "Sequence",
            "processors": [
                LEVEL,
                {
                    "type": "TemplateProcessing",
                    "single": [
                        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                        {"Sequence": {"id": "A", "type_id": 0}},
                    ],
                    "pair": [
                        {"Sequence": {"id": "A", "type_id": 0}},
                        {"Sequence": {"id": "B", "type_id": 1}},
                    ],
                    "special_tokens": {
                        "<|endoftext|>": {
                            "id": "<|endoftext|>",
                            "ids": [FIRST - 1],
                            "tokens": ["<|endoftext|>"],
                        }
                    },
                },
            ],
        }
    ),
}
REFUSED = {
    "WordPiece": case(model={"type": "WordPiece"}),
    "byte_fallback": case(model={"byte_fallback": True}),
    "dropout": case(model={"dropout": 0.1}),
    "continuing_subword_prefix": case(model={"continuing_subword_prefix": "##"}),
    "end_of_word_suffix": case(model={"end_of_word_suffix": "</w>"}),
    "Metaspace": case(steps=[{"type": "Metaspace", "replacement": "▁"}]),
    "BertPreTokenizer": case(steps=[{"type": "BertPreTokenizer"}, LEVEL]),
    "ByteLevel": case(steps=[LEVEL, DIGITS]),
    "Precompiled": case(normalizer={"type": "Precompiled", "precompiled_charsmap": ""}),
    "StripAccents": case(normalizer={"type": "StripAccents"}),
    "RobertaProcessing": case(post_processor={"type": "RobertaProcessing"}),
    "behind a text": case(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<|endoftext|>"}}],
            "special_tokens": {"<|endoftext|>": {"ids": [FIRST - 1]}},
        }
    ),
    "does not know '&&'": case(steps=[split(r"[a-z&&[^b]]+"), LEVEL]),
    "cannot read": case(steps=[split("(a"), LEVEL]),
    "behavior 'Other'": case(steps=[split("a", "Other"), LEVEL]),
    "no vocab": {"model": {"type": "BPE", "merges": []}},
    "is None": {"added_tokens": []},
    "damaged": case(steps=[{"type": "Split"}, LEVEL]),
}
TEXTS = [
    *(
        "Hello 1234,  you",
        "<think>abc</think> He12 Hello",
        "  ab abc zzz zzzz quzzz\n\n",
        "日本語abc12, Ⅷ²½ x",
    ),
    *(
        "The ΑΣ İSTANBUL e\u0301ﬁ",
        "a <|im_end|> b<|endoftext|>",
        "",
        " ",
        "abcbcabab" * 40,
        "HE he\u200b12He",
    ),
    TEXT[:3000],
]


@cache
def pair(name: str) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    data = DONE[name]
    with TemporaryDirectory() as folder:
        ours = Tokenizer.load(write(Path(folder), tokenizer=data))
    theirs = tokenizers.Tokenizer.from_str(json.dumps(data))
    theirs.encode_special_tokens = True
    return ours, theirs


@pytest.mark.parametrize("name", DONE)
def test_a_vocabulary_has_the_ids_of_tokenizers(name):
    ours, theirs = pair(name)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, text
        assert [*ours.begin, *ours.encode(text)] == theirs.encode(text).ids
    theirs.encode_special_tokens = False
    for text in TEXTS:
        assert ours.encode_markup(text) == theirs.encode(text, add_special_tokens=False).ids, text
    theirs.encode_special_tokens = True


pieces = st.lists(
    st.sampled_from(
        ["He", "llo", "ab", "c", "bc", "12", "3", " ", "\n", "zzz", "<think>", "é", "语", "!", "ſ", "'S"]
    )
)


@pytest.mark.parametrize("name", DONE)
@given(text=st.one_of(tricky, pieces.map("".join)))
@settings(max_examples=60, deadline=None)
def test_any_text_has_the_ids_of_tokenizers(name, text):
    ours, theirs = pair(name)
    ids = theirs.encode(text, add_special_tokens=False).ids
    assert ours.encode(text) == ours.encode(text.encode()) == ours.encode_batch([text])[0].tolist() == ids


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_done_is_refused_by_its_name(name, tmp_path):
    with pytest.raises(BadInput, match=name.replace("(", r"\(")) as refused:
        Tokenizer.load(write(tmp_path, tokenizer=REFUSED[name]))
    assert "\n" not in str(refused.value)


merges = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "ab", "bc", "abc", "ca"]), st.sampled_from("abc")),
    max_size=8,
    unique=True,
)


@given(merges, st.text("abc", max_size=60), st.booleans())
@settings(max_examples=300, deadline=None)
def test_pairs_are_merged_as_they_stand_in_the_list_even_where_no_training_makes_such_a_list(
    pairs, text, whole
):
    words = dict.fromkeys(word for left, right in pairs for word in (left, left + right) if len(word) > 1)
    data = tokenizer_json(words=[*words], merges=pairs, model={"ignore_merges": whole})
    theirs = tokenizers.Tokenizer.from_str(json.dumps(data))
    with TemporaryDirectory() as folder:
        ours = Tokenizer.load(write(Path(folder), tokenizer=data))
    assert ours.encode(text) == theirs.encode(text).ids


def test_a_vocabulary_of_ours_is_read_as_ours_and_one_that_another_library_changed_as_that_librarys(tmp_path):
    made = train([TEXT], 500)
    made.save(tmp_path)
    assert Tokenizer.load(tmp_path).rules is None
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    data["added_tokens"].append(added("journey", made.vocab_size, special=False))
    write(tmp_path, tokenizer=data)
    again = Tokenizer.load(tmp_path)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(data))
    assert again.encode("a journey") == theirs.encode("a journey").ids
    assert made.vocab_size in again.encode("a journey")
    again.save(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "tokenizer.json").read_text()) == data


def test_tokens_that_only_tokenizer_config_json_adds_are_found(tmp_path):
    entry = {key: value for key, value in added("<think>", 300, special=False).items() if key != "id"}
    config = {"added_tokens_decoder": {"300": entry}}
    assert Tokenizer.load(write(tmp_path, tokenizer=tokenizer_json(), tokenizer_config=config)).encode(
        "a<think>"
    ) == [Tokenizer.load(tmp_path).vocab[b"a"], 300]


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({"config": {"eos_token_id": 7}}, {7}),
        ({"config": {"eos_token_id": [7, 8]}}, {7, 8}),
        ({"config": {"eos_token_id": 7}, "generation_config": {"eos_token_id": [8, 9]}}, {8, 9}),
        ({"config": {"eos_token_id": 7}, "generation_config": {"temperature": 0.6}}, {7}),
        ({"tokenizer_config": {"eos_token": "<|endoftext|>"}}, {256}),
        (
            {"tokenizer_config": {"eos_token": {"content": "<|endoftext|>"}}, "config": {"eos_token_id": 7}},
            {256, 7},
        ),
        ({"special_tokens_map": {"eos_token": "<|endoftext|>"}}, {256}),
        ({}, set()),
    ],
)
def test_what_ends_a_reply_is_read_where_models_say_it(files, ends, tmp_path):
    made = Tokenizer.load(write(tmp_path, tokenizer=tokenizer_json(), **files))
    assert made.end_ids == ends


@pytest.mark.parametrize("adds", [True, False, None])
def test_tokenizer_config_json_says_whether_a_text_begins_with_bos(adds, tmp_path):
    config = {"bos_token": "<|endoftext|>", "add_bos_token": adds}
    made = Tokenizer.load(write(tmp_path, tokenizer=tokenizer_json(), tokenizer_config=config))
    assert made.begin == ((256,) if adds else ())
