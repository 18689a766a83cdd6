"""Tokenizers in files: Hugging Face's tokenizer.json, tiktoken's lists of ranks, and merges.txt for human
eyes.
"""

import base64
import binascii
import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.files import write_atomically
from crawltalk.tokenizer import patterns
from crawltalk.tokenizer.chat import ChatFormat, default_system, detect
from crawltalk.tokenizer.tokenizer import Tokenizer, to_bytes, to_text


class Known(NamedTuple):
    """What a list of ranks does not say of its vocabulary."""

    pattern: str
    specials: Mapping[str, int]


def _numbered(first: int, names: Iterable[str]) -> dict[str, int]:
    return {name: first + place for place, name in enumerate(names)}


_LLAMA3 = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
]
_LLAMA3 += [
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
]
_LLAMA3 += [
    "<|eot_id|>",
    "<|python_tag|>",
    *(f"<|reserved_special_token_{number}|>" for number in range(3, 248)),
]
KNOWN = {
    50_256: Known(patterns.GPT2, {"<|endoftext|>": 50_256}),
    100_256: Known(
        patterns.GPT4,
        {
            "<|endoftext|>": 100_257,
            "<|fim_prefix|>": 100_258,
            "<|fim_middle|>": 100_259,
            "<|fim_suffix|>": 100_260,
            "<|endofprompt|>": 100_276,
        },
    ),
    128_000: Known(patterns.GPT4, _numbered(128_000, _LLAMA3)),
    199_998: Known(patterns.O200K, {"<|endoftext|>": 199_999, "<|endofprompt|>": 200_018}),
}
"""By the number of ordinary tokens: GPT-2's, GPT-4's (cl100k_base), Llama 3.1's, GPT-4o's (o200k_base);
tiktoken's registry, Meta's model card.
"""


def load(path: Path) -> Tokenizer:
    """A tokenizer.json, a list of ranks (.tiktoken, Llama's tokenizer.model), or a folder with the former.

    Raises MissingInput if nothing is there; BadInput, with the line or the merge, if it is damaged or of
    another kind.
    """
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.exists():
        raise MissingInput(f"{path.parent} has no {path.name}; make one with: crawltalk tokenizer small")
    return _from_json(path) if path.suffix == ".json" else _from_ranks(path)


def vocabulary_name(path: Path) -> str:
    """What to call a vocabulary by: that of the file, or of the folder where all files have the same names."""
    return path.resolve().parent.name if path.name in ("tokenizer.json", "tokenizer.model") else path.stem


def _from_ranks(path: Path) -> Tokenizer:
    words: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        where = f"{path}, line {number}"
        try:
            coded, rank = line.split()
            word, index = base64.b64decode(coded, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise BadInput(f"{where}: {line[:40]!r} is not a token in base64 and its rank") from None
        if word in words:
            raise BadInput(f"{where}: the token {word!r} stands in line {words[word] + 1} already")
        if index != len(words):
            raise BadInput(
                f"{where}: rank {index} stands where rank {len(words)} should: the list has a gap or is out of order"
            )
        if len(word) > 1 and not any(
            word[:cut] in words and word[cut:] in words for cut in range(1, len(word))
        ):
            raise BadInput(f"{where}: no two tokens above it make {word!r}")
        words[word] = index
    if absent := [value for value in range(256) if bytes([value]) not in words]:
        raise BadInput(f"{path} has no token for the byte {absent[0]}; it is no byte-level vocabulary")
    if len(words) not in KNOWN:
        raise BadInput(
            f"{path} lists {len(words):,} tokens, as no vocabulary known here does; give its tokenizer.json"
        )
    return Tokenizer(words, None, *KNOWN[len(words)])


def _from_json(path: Path) -> Tokenizer:
    data = _read_object(path)
    model = data.get("model") or {}
    if (
        model.get("type", "BPE") != "BPE"
        or model.get("byte_fallback")
        or not {"vocab", "merges"} <= model.keys()
    ):
        raise BadInput(f"{path} is {model.get('type')!r}; crawltalk reads byte-level BPE")
    added = {token["content"]: token["id"] for token in data.get("added_tokens", ())}
    specials = {token["content"]: token["id"] for token in data.get("added_tokens", ()) if token["special"]}
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    try:
        words = {to_bytes(text): index for text, index in model["vocab"].items() if text not in added}
        merges = [(to_bytes(left), to_bytes(right)) for left, right in pairs]
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path} is no byte-level BPE: it holds {error}") from None
    _check(path, words, merges, added)
    words |= {name.encode(): index for name, index in added.items() if name not in specials}
    kind = (data.get("normalizer") or {}).get("type")
    if kind not in (None, "NFC"):
        raise BadInput(f"{path} rewrites text before it cuts it ({kind}); crawltalk knows NFC alone")
    config = (
        _read_object(path.with_name("tokenizer_config.json"))
        if path.with_name("tokenizer_config.json").exists()
        else {}
    )
    eos = config.get("eos_token")
    eos = eos.get("content") if isinstance(eos, dict) else eos
    chat = _chat(path, config, specials)
    pattern = _pattern(data.get("pre_tokenizer"), path)
    return Tokenizer(words, merges, pattern, specials, eot=specials.get(eos), chat=chat, normal_form=kind)


def _check(
    path: Path, words: Mapping[bytes, int], merges: list[tuple[bytes, bytes]], added: Mapping[str, int]
) -> None:
    """Raises BadInput for an id that stands for two tokens, or for none among words, and for a merge of what
    are no tokens.
    """
    names = {index: word for word, index in words.items()}
    if len(names) < len(words):
        twice = next(word for word, index in words.items() if names[index] != word)
        raise BadInput(
            f"{path}: the tokens {twice!r} and {names[words[twice]]!r} have the same id {words[twice]}"
        )
    ids = {*names, *added.values()}
    # control tokens may leave gaps
    if gap := next((index for index in range(max(names)) if index not in ids), None):
        raise BadInput(f"{path}: no token has the id {gap}, yet there are higher ones")
    for number, (left, right) in enumerate(merges, 1):
        for part in (left, right, left + right):
            if part not in words:
                raise BadInput(
                    f"{path}: merge {number}, {left!r} and {right!r}: {part!r} is not in the vocabulary"
                )


def _chat(path: Path, config: Mapping[str, Any], specials: Mapping[str, int]) -> ChatFormat | None:
    if "crawltalk_chat" in config:
        return ChatFormat(**config["crawltalk_chat"])
    chat = detect(specials)
    if chat is None:
        return None
    template = path.with_name("chat_template.jinja")
    written = (
        template.read_text(encoding="utf-8") if template.exists() else str(config.get("chat_template", ""))
    )
    return dataclasses.replace(chat, default_system=default_system(chat, written))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{path} holds no JSON object")
    return data


def _pattern(pre: dict[str, Any] | None, path: Path) -> str:
    """The split pattern behind a pre_tokenizer."""
    parts = pre["pretokenizers"] if pre and pre["type"] == "Sequence" else [pre] if pre else []
    kinds = [part["type"] for part in parts]
    for part in parts:
        if part["type"] == "Split" and "Regex" in part["pattern"]:
            return part["pattern"]["Regex"]
    if "Digits" in kinds and "ByteLevel" in kinds:
        return patterns.SMOLLM
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return patterns.GPT2
    raise BadInput(f"{path} splits text in a way that crawltalk does not know: {kinds}")


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, which `transformers` loads, merges.txt, for human eyes,
    and, where ids are ranks, tokenizer.tiktoken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    split = {
        "type": "Split",
        "pattern": {"Regex": tokenizer.pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocab = {to_text(word): index for word, index in tokenizer.words.items()} | dict(tokenizer.specials)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": name, **flags} for name, index in tokenizer.specials.items()
        ],
        "normalizer": {"type": tokenizer.normal_form} if tokenizer.normal_form else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel", **level}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **level},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": [[to_text(left), to_text(right)] for left, right in tokenizer.merges],
        },
    }
    name = next((name for name, index in tokenizer.specials.items() if index == tokenizer.eot), None)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "eos_token": name,
        "model_max_length": 1_000_000_000,
    }
    if tokenizer.chat is not None:
        config |= {
            "chat_template": tokenizer.chat.template(),
            "crawltalk_chat": dataclasses.asdict(tokenizer.chat),
        }
    human = "".join(f"{to_text(left)} {to_text(right)}\n" for left, right in tokenizer.merges)
    words = sorted(tokenizer.words, key=tokenizer.words.__getitem__)
    if [tokenizer.words[word] for word in words] == list(range(len(words))):
        ranks = b"".join(b"%s %d\n" % (base64.b64encode(word), rank) for rank, word in enumerate(words))
        write_atomically(folder / "tokenizer.tiktoken", ranks)
    write_atomically(folder / "merges.txt", human.encode())
    write_atomically(folder / "tokenizer_config.json", json.dumps(config, indent=2).encode())
    write_atomically(folder / "tokenizer.json", json.dumps(data, ensure_ascii=False).encode())
