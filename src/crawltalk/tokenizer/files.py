"""Tokenizers in files: Hugging Face's tokenizer.json, tiktoken's lists of ranks, and merges.txt for people to read.
Use it through `Tokenizer.load` and `Tokenizer.save`.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.files import write_atomically
from crawltalk.tokenizer import patterns
from crawltalk.tokenizer.alphabet import BYTE_OF, to_bytes, to_text
from crawltalk.tokenizer.rules import AddedToken, Rules

CONFIG = "tokenizer_config.json"
_RANKS = "crawltalk_ranks"
"""Entry of tokenizer_config.json: whether we wrote the vocabulary, so that any two neighbours that together are a
token are merged, in the order of ranks. Others are merged pair by pair (`tokenizer.rules`).
"""


class Parts(NamedTuple):
    """What a `Tokenizer` is made of, in the order of its constructor."""

    vocab: Mapping[bytes, int]
    merges: Sequence[tuple[bytes, bytes]] | None
    """None: the ids are the order."""
    pattern: str
    special_tokens: Mapping[str, int]
    eot: int | None = None
    normal_form: Literal["NFC"] | None = None
    rules: Rules | None = None
    """How another library's vocabulary encodes."""
    end_ids: frozenset[int] | None = None
    """What ends a text or a reply, as the files beside it say; None: `eot`."""


class Known(NamedTuple):
    """What a list of ranks does not contain."""

    pattern: str
    special_tokens: Mapping[str, int]


def _numbered(first: int, names: Iterable[str]) -> dict[str, int]:
    return {name: first + index for index, name in enumerate(names)}


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


def read(path: Path) -> Parts:
    """A tokenizer.json, a list of ranks, or a folder with the former (`Tokenizer.load`)."""
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.exists():
        raise MissingInput(f"{path.parent} has no {path.name}; copy it from where the model comes from")
    return _from_json(path) if path.suffix == ".json" else _from_ranks(path)


def vocabulary_name(path: str | Path) -> str:
    """A name for a vocabulary: that of the file, or of its folder if the file has a standard name."""
    path = Path(path)
    return path.resolve().parent.name if path.name in ("tokenizer.json", "tokenizer.model") else path.stem


def _from_ranks(path: Path) -> Parts:
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
        raise BadInput(f"{path} has no token for the byte {absent[0]}; it is not a byte-level vocabulary")
    if len(words) not in KNOWN:
        raise BadInput(
            f"{path} lists {len(words):,} tokens, as no vocabulary known here does; give its tokenizer.json"
        )
    return Parts(words, None, *KNOWN[len(words)])


def _from_json(path: Path) -> Parts:
    data = read_object(path)
    model = data.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or model.get("byte_fallback"):
        kind = model.get("type", "BPE") if isinstance(model, dict) else None
        fallback = " with byte_fallback" if kind == "BPE" else ""
        raise BadInput(f"{path} is {kind!r}{fallback}; crawltalk reads byte-level BPE")
    if not {"vocab", "merges"} <= model.keys():
        raise BadInput(f"{path} has no vocab or no merges; copy it again")
    beside = path.with_name(CONFIG)
    config = read_object(beside) if beside.exists() else {}
    try:
        added = _added(data, config)
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        names = {token.content for token in added}
        entries = {text: int(index) for text, index in model["vocab"].items()}
        words = {to_bytes(text): entries[text] for text in entries if text not in names or _is_word(text)}
        merges = [(to_bytes(left), to_bytes(right)) for left, right in pairs]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is not a byte-level BPE: it holds {error}") from None
    special_tokens = {token.content: token.id for token in added if token.special}
    ordinary = {word: index for word, index in words.items() if index not in special_tokens.values()}
    _check(path, words, merges, {token.content: token.id for token in added})
    eos = special_tokens.get(_name(config.get("eos_token")) or "")
    pattern = _pattern(data.get("pre_tokenizer"))
    normal_form = (data.get("normalizer") or {}).get("type")
    ours = config.get(_RANKS) and pattern and normal_form in (None, "NFC") and not data.get("post_processor")
    if ours and len(special_tokens) == len(added):
        return Parts(ordinary, merges, pattern, special_tokens, eos, normal_form)
    try:
        rules = Rules(data, words, merges, added, path)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is damaged: {error!r}") from None
    rules.begin = _begin(rules.begin, config, {token.content: token.id for token in added})
    ordinary |= {token.content.encode(): token.id for token in added if not token.special}
    ends = _end_ids(path.parent, {token.content: token.id for token in added})
    eot = next(iter(ends), None)
    return Parts(ordinary, merges, pattern, special_tokens, eot, normal_form, rules, frozenset(ends))


def _pattern(pre: Any) -> str:
    """The one pattern that a pre_tokenizer cuts by; "" if it cuts otherwise."""
    parts = pre.get("pretokenizers", [pre]) if isinstance(pre, dict) else []
    match parts:
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return str(pattern)
        case [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False} as level,
        ] if level.get("use_regex", True):
            return patterns.SMOLLM
        case [{"type": "ByteLevel", "add_prefix_space": False} as level] if level.get("use_regex", True):
            return patterns.GPT2
    return ""


def _added(data: dict[str, Any], config: dict[str, Any]) -> list[AddedToken]:
    """The added tokens: those of tokenizer.json, as tokenizer_config.json changes them."""
    entries = {token["content"]: token for token in data.get("added_tokens") or ()}
    for index, token in (config.get("added_tokens_decoder") or {}).items():
        entries[token["content"]] = {**token, "id": int(index)}
    vocab = data["model"]["vocab"]  # a name that stands there, too, has the id that it has there
    return [
        AddedToken(
            **{name: token[name] for name in AddedToken._fields if name in token}
            | {"id": vocab.get(name, token["id"])}
        )
        for name, token in entries.items()
    ]


def _is_word(text: str) -> bool:
    return all(letter in BYTE_OF for letter in text)


def _name(token: Any) -> str | None:
    """The name of a token that is written as such or as an object."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else None


def _begin(begin: tuple[int, ...], config: dict[str, Any], added: Mapping[str, int]) -> tuple[int, ...]:
    """What comes in front of a text: what `add_bos_token` says, if anything, else the post_processor's."""
    adds = config.get("add_bos_token")
    if adds is None:
        return begin
    bos = added.get(_name(config.get("bos_token")) or "")
    return (bos,) if adds and bos is not None else ()


def _end_ids(folder: Path, added: Mapping[str, int]) -> list[int]:
    """The ids that end a text or a reply, in the files beside a tokenizer.json; the tokenizer's own first."""
    found: dict[int, None] = {}
    for name in (CONFIG, "special_tokens_map.json"):
        path = folder / name
        eos = _name(read_object(path).get("eos_token")) if path.exists() else None
        if eos in added:
            found[added[eos]] = None
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        listed = read_object(path).get("eos_token_id") if path.exists() else None
        if listed is None:
            continue
        ids = listed if isinstance(listed, list) else [listed]
        if not all(isinstance(index, int) and not isinstance(index, bool) and index >= 0 for index in ids):
            raise BadInput(f"{path} says eos_token_id = {listed!r:.80}; it must be an id or a list of ids")
        return [*(found | dict.fromkeys(ids))]
    return [*found]


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
    last = max((index for index in names if index not in added.values()), default=0)
    if gap := next((index for index in range(last) if index not in ids), None):
        raise BadInput(f"{path}: no token has the id {gap}, yet there are higher ones")
    for number, (left, right) in enumerate(merges, 1):
        for part in (left, right, left + right):
            if part not in words:
                raise BadInput(
                    f"{path}: merge {number}, {left!r} and {right!r}: {part!r} is not in the vocabulary"
                )


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises BadInput for anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{path} holds no JSON object")
    return data


_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def tokenizer_json(
    vocab: Mapping[str, int],
    merges: Iterable[Sequence[str]],
    cuts: Sequence[str],
    added: Sequence[Mapping[str, Any]],
    *,
    normalizer: Mapping[str, Any] | None = None,
    ignore_merges: bool = True,
) -> dict[str, Any]:
    """The content of a tokenizer.json. `vocab` and `merges` in the printable alphabet; `cuts`: split patterns, one
    after the other; `added`: added tokens.
    """
    splits = [
        {"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False} for cut in cuts
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, _LEVEL]},
        "post_processor": None,
        "decoder": _LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": [list(pair) for pair in merges],
        },
    }


def write_foreign(folder: Path, data: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Write a tokenizer.json and a tokenizer_config.json, which must be complete."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
        **config,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CONFIG, json.dumps(config, indent=2).encode())
    write_atomically(folder / "tokenizer.json", json.dumps(data, ensure_ascii=False).encode())


def write(folder: Path, parts: Parts, more_config: Mapping[str, Any]) -> None:
    """Write the files of a tokenizer (`Tokenizer.save`). That of another library is written as it was read."""
    names = {index: name for name, index in parts.special_tokens.items()}
    eos = {"eos_token": names.get(-1 if parts.eot is None else parts.eot)}
    if parts.rules is not None:
        begin = {
            "add_bos_token": bool(parts.rules.begin),
            "bos_token": names.get(parts.rules.begin[0]) if parts.rules.begin else None,
        }
        write_foreign(folder, parts.rules.data, {**eos, **begin, **more_config})
        return
    merges = parts.merges or ()
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data = tokenizer_json(
        {to_text(word): index for word, index in parts.vocab.items()} | dict(parts.special_tokens),
        [[to_text(left), to_text(right)] for left, right in merges],
        [parts.pattern],
        [{"id": index, "content": name, **flags} for name, index in parts.special_tokens.items()],
        normalizer={"type": parts.normal_form} if parts.normal_form else None,
    )
    write_foreign(folder, data, {**eos, _RANKS: True, **more_config})
    human = "".join(f"{to_text(left)} {to_text(right)}\n" for left, right in merges)
    write_atomically(folder / "merges.txt", human.encode())
    words = sorted(parts.vocab, key=parts.vocab.__getitem__)
    if [parts.vocab[word] for word in words] == list(range(len(words))):
        ranks = b"".join(b"%s %d\n" % (base64.b64encode(word), rank) for rank, word in enumerate(words))
        write_atomically(folder / "tokenizer.tiktoken", ranks)
