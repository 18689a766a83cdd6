"""Vocabularies and models as other libraries write them."""

import json
from pathlib import Path
from typing import Any

from crawltalk.tokenizer.alphabet import ALPHABET

LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern: str, behavior: str = "Isolated", *, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def added(content: str, index: int, **flags: bool) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": content, "special": True} | plain | flags


def tokenizer_json(
    *,
    steps: list[dict[str, Any]] | None = None,
    words: list[str] | None = None,
    merges: list[tuple[str, str]] | None = None,
    specials: tuple[str, ...] = ("<|endoftext|>",),
    more: list[dict[str, Any]] | None = None,
    model: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """256 bytes, `words`, `specials`; `more` are added tokens that have their ids."""
    vocab = {letter: index for index, letter in enumerate([*ALPHABET, *(words or [])])}
    tokens = [added(name, len(vocab) + index) for index, name in enumerate(specials)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*tokens, *(more or [])],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps or [LEVEL | {"use_regex": True}]},
        "post_processor": None,
        "decoder": LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [list(pair) for pair in merges or []],
            **(model or {}),
        },
        **fields,
    }


def write(folder: Path, **files: Any) -> Path:
    """JSON files by their names: `tokenizer={...}` is tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder
