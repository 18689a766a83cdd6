"""The tokenizer of a run or of any model with byte-level BPE: encode, decode, render conversations, load and save.

`encode` treats its text as text: a control token's name in it is spelled in ordinary tokens. Only `render` writes control
tokens, where a conversation's structure asks for them.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import regex
import tiktoken

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.stage import write_atomically
from crawltalk.core.types import Message
from crawltalk.tokenizer.chat import ChatFormat, default_system, detect

GPT4_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The split pattern of cl100k_base (tiktoken), in the form that every regex engine reads alike."""
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGITS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
"""GPT-2's with every digit on its own, as in SmolLM2."""
END_OF_TEXT = "<|endoftext|>"
SPECIALS = (
    *(END_OF_TEXT, "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
    *("<|tool_start|>", "<|tool_end|>", "<|output_start|>", "<|output_end|>"),
)
"""Our control tokens: the last ids of the vocabulary."""
ABSENT = np.uint32(2**32 - 1)
"""Stands for a byte that a vocabulary has no token for (SmolLM2 lacks 21 that hardly occur); such bytes are left out."""
LONG_SPACE = re.compile(r"\s{10000}")
"""tiktoken's regex engine backtracks through white space and overflows its stack at some 100,000 characters."""


def _byte_alphabet() -> list[str]:
    """A printable character for each byte, as in GPT-2's vocabulary files (Radford et al. 2019, encoder)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(shifted)) for byte in range(256)]


ALPHABET = _byte_alphabet()
BYTE_OF = {character: byte for byte, character in enumerate(ALPHABET)}


def to_text(word: bytes) -> str:
    """Bytes in the printable alphabet."""
    return "".join(ALPHABET[byte] for byte in word)


def to_bytes(text: str) -> bytes:
    """The bytes behind printable characters; KeyError for a character that is none of them."""
    return bytes(BYTE_OF[character] for character in text)


class Tokenizer:
    """A byte-level BPE vocabulary with its control tokens and its chat format."""

    def __init__(
        self,
        words: Mapping[bytes, int],
        merges: Sequence[tuple[bytes, bytes]],
        pattern: str,
        specials: Mapping[str, int],
        *,
        eot: int | None = None,
        chat: ChatFormat | None = None,
    ) -> None:
        """`words`: bytes -> id of every ordinary token; `merges` in order; `eot`: the id that separates documents."""
        self.words, self.merges, self.pattern, self.specials = dict(words), list(merges), pattern, dict(specials)
        self.chat = chat if chat is not None else detect(self.specials)
        self.vocab_size = 1 + max(*self.words.values(), *self.specials.values())
        names = [name for name in (END_OF_TEXT, "<|end_of_text|>", "</s>") if name in self.specials]
        self.eot = eot if eot is not None else self.specials[names[0]] if names else 0
        end = {self.specials[self.chat.end]} if self.chat is not None else set()
        self.stop_ids = frozenset({self.eot, *end})
        self._bytes = {index: word for word, index in self.words.items()}
        self._bytes |= {index: name.encode() for name, index in self.specials.items()}
        ranks = {bytes([value]): value for value in range(256)}
        for left, right in self.merges:
            ranks.setdefault(left + right, len(ranks))
        for word in self.words:  # tokens that no merge makes stand for whole chunks
            ranks.setdefault(word, len(ranks))
        self._ids = np.array([self.words.get(word, ABSENT) for word in ranks], dtype=np.uint32)  # rank -> id
        self._has_all_bytes = bool((self._ids != ABSENT).all())
        self._ranks = ranks
        self._encoding = tiktoken.Encoding("crawltalk", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    @classmethod
    def trained(cls, merges: Sequence[tuple[int, int]]) -> "Tokenizer":
        """From learned merges of ids: 256 bytes, the merges, then our control tokens."""
        words = [bytes([value]) for value in range(256)]
        for left, right in merges:
            words.append(words[left] + words[right])
        specials = {name: len(words) + index for index, name in enumerate(SPECIALS)}
        pairs = [(words[left], words[right]) for left, right in merges]
        return cls({word: index for index, word in enumerate(words)}, pairs, GPT4_PATTERN, specials)

    @classmethod
    def from_parts(
        cls,
        vocab: Sequence[str],
        merges: Sequence[tuple[str, str]],
        pattern: str,
        specials: Mapping[str, int],
        *,
        eot: int | None = None,
        chat: ChatFormat | None = None,
    ) -> "Tokenizer":
        """From a vocabulary in the printable alphabet, in the order of ids; control tokens may be part of it."""
        words = {to_bytes(text): index for index, text in enumerate(vocab) if text not in specials}
        pairs = [(to_bytes(left), to_bytes(right)) for left, right in merges]
        return cls(words, pairs, pattern, specials, eot=eot, chat=chat)

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary tokens; never a control token, whatever the text holds."""
        hard = LONG_SPACE.search(text)
        return self._to_ids(self._encode_chunks(text) if hard else self._encoding.encode_ordinary(text)).tolist()

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[np.ndarray]:
        """`encode` of each text, as uint32 arrays."""
        usual = [text for text in texts if not LONG_SPACE.search(text)]
        batch = iter(self._encoding.encode_ordinary_batch(usual, num_threads=threads) if usual else ())
        return [self._to_ids(self._encode_chunks(text) if LONG_SPACE.search(text) else next(batch)) for text in texts]

    def _to_ids(self, ranks: list[int]) -> np.ndarray:
        ids = self._ids[np.array(ranks, dtype=np.int64)]
        return ids if self._has_all_bytes else ids[ids != ABSENT]

    def _encode_chunks(self, text: str) -> list[int]:
        """Ranks of a text that tiktoken cannot cut: cut here, merged there."""
        chunks = regex.findall(self.pattern, text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        return [rank for ranks in self._merger.encode_ordinary_batch(chunks, num_threads=1) for rank in ranks]

    @cached_property
    def _merger(self) -> tiktoken.Encoding:
        return tiktoken.Encoding("chunks", pat_str=r"(?s:.+)", mergeable_ranks=self._ranks, special_tokens={})

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens; control tokens by name. KeyError for an id outside the vocabulary."""
        return b"".join(self._bytes[index] for index in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def render(self, messages: Sequence[Message], *, reply: bool = False) -> tuple[list[int], list[bool]]:
        """A conversation as ids, and which of them the assistant says (its content and its end of turn).

        `reply` opens a turn of the assistant at the end. Raises BadInput if the model has no chat format.
        """
        chat = self.chat
        if chat is None:
            raise BadInput("this is a base model: it has no chat format; use: crawltalk generate")
        ids: list[int] = [self.specials[chat.begin]] if chat.begin is not None else []
        spoken = [False] * len(ids)
        if chat.default_system is not None and (not messages or messages[0].role != "system"):
            messages = [Message("system", chat.default_system), *messages]
        for message in messages:
            head = self._open_turn(chat, message.role)
            said = [*self.encode(message.content), self.specials[chat.end]]
            after = self.encode(chat.after)
            ids += [*head, *said, *after]
            is_spoken = message.role == "assistant"
            spoken += [*(False for _ in head), *(is_spoken for _ in said), *(False for _ in after)]
        if reply:
            head = self._open_turn(chat, "assistant")
            ids += head
            spoken += [False] * len(head)
        return ids, spoken

    def _open_turn(self, chat: ChatFormat, role: str) -> list[int]:
        if chat.role_end is None:
            return [self.specials[chat.start], *self.encode(role + chat.gap)]
        return [self.specials[chat.start], *self.encode(role), self.specials[chat.role_end], *self.encode(chat.gap)]

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `transformers` loads, and merges.txt, for human eyes."""
        folder.mkdir(parents=True, exist_ok=True)
        split = {"type": "Split", "pattern": {"Regex": self.pattern}, "behavior": "Isolated", "invert": False}
        level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        vocab = {to_text(word): index for word, index in self.words.items()} | self.specials
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        data: dict[str, Any] = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": index, "content": name, **flags} for name, index in self.specials.items()],
            "normalizer": None,
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
                "merges": [[to_text(left), to_text(right)] for left, right in self.merges],
            },
        }
        name = next((name for name, index in self.specials.items() if index == self.eot), None)
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "eos_token": name,
            "model_max_length": 1_000_000_000,
        }
        if self.chat is not None:
            config |= {"chat_template": self.chat.template(), "crawltalk_chat": dataclasses.asdict(self.chat)}
        human = "".join(f"{to_text(left)} {to_text(right)}\n" for left, right in self.merges)
        write_atomically(folder / "merges.txt", human.encode())
        write_atomically(folder / "tokenizer_config.json", json.dumps(config, indent=2).encode())
        write_atomically(folder / "tokenizer.json", json.dumps(data, ensure_ascii=False).encode())

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read a tokenizer.json of byte-level BPE. Raises MissingInput, or BadInput for another kind or a damaged one."""
        path = folder / "tokenizer.json"
        if not path.exists():
            raise MissingInput(f"{folder} has no tokenizer.json; make one with: crawltalk tokenizer small")
        data = _read_object(path)
        model = data.get("model", {})
        if model.get("type", "BPE") != "BPE" or model.get("byte_fallback") or not {"vocab", "merges"} <= model.keys():
            raise BadInput(f"{path} is {model.get('type')!r}; crawltalk reads byte-level BPE")
        added = {token["content"]: token["id"] for token in data.get("added_tokens", ())}
        specials = {token["content"]: token["id"] for token in data.get("added_tokens", ()) if token["special"]}
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        try:
            words = {to_bytes(text): index for text, index in model["vocab"].items() if text not in added}
            merges = [(to_bytes(left), to_bytes(right)) for left, right in pairs]
        except KeyError as error:
            raise BadInput(f"{path} is no byte-level BPE: it holds the character {error}") from None
        words |= {name.encode(): index for name, index in added.items() if name not in specials}
        settings = folder / "tokenizer_config.json"
        config = _read_object(settings) if settings.exists() else {}
        eos = config.get("eos_token")
        eos = eos.get("content") if isinstance(eos, dict) else eos
        if "crawltalk_chat" in config:
            chat = ChatFormat(**config["crawltalk_chat"])
        elif (chat := detect(specials)) is not None:
            template = folder / "chat_template.jinja"
            written = template.read_text(encoding="utf-8") if template.exists() else str(config.get("chat_template", ""))
            chat = dataclasses.replace(chat, default_system=default_system(chat, written))
        return cls(words, merges, _pattern(data.get("pre_tokenizer"), path), specials, eot=specials.get(eos), chat=chat)


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
        return DIGITS_PATTERN
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return GPT2_PATTERN
    raise BadInput(f"{path} splits text in a way that crawltalk does not know: {kinds}")
