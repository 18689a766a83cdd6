"""The tokenizer of a run or of any model with byte-level BPE: encode, decode, load and save.

`encode` treats its text as text: a control token's name in it is encoded as ordinary tokens. Code that builds a
sequence adds control tokens by id: the separator of documents, the turns of a conversation (`chat.render`).
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import regex
import tiktoken

from crawltalk.core.errors import UserError
from crawltalk.tokenizer import files, patterns
from crawltalk.tokenizer.rules import GUARD, Rules

if TYPE_CHECKING:
    from crawltalk.tokenizer.bulk import BulkDecoder, BulkEncoder

END_OF_TEXT = "<|endoftext|>"
CALL_START, CALL_END = "<tool_call>", "</tool_call>"
RESPONSE_START, RESPONSE_END = "<tool_response>", "</tool_response>"
SPECIAL_TOKENS = (
    *(END_OF_TEXT, "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
    *(CALL_START, CALL_END, RESPONSE_START, RESPONSE_END),
)
"""Our control tokens: the last ids of the vocabulary. Those of turns have the names of Phi-4's vocabulary, those of
tools the names of Qwen3's.
"""
ABSENT = np.uint32(2**32 - 1)
"""Id of a byte that has no token in a vocabulary (SmolLM2 lacks 21 rare ones); such bytes are left out."""
SHORT_TEXT = 10_000
"""Texts with fewer characters are encoded by tiktoken, whose regex library overflows its stack on some longer ones."""


_MANY = 1000
"""Ids of an array that are worth a compiled loop."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """A byte-level BPE vocabulary with its control tokens."""

    def __init__(
        self,
        vocab: Mapping[bytes, int],
        merges: Sequence[tuple[bytes, bytes]] | None,
        pattern: str,
        special_tokens: Mapping[str, int],
        eot: int | None = None,
        normal_form: Literal["NFC"] | None = None,
        rules: Rules | None = None,
        end_ids: frozenset[int] | None = None,
    ) -> None:
        """`vocab`: bytes -> id of every ordinary token; `merges`: in order, None if the ids are in this order;
        `eot`: the id that separates documents; `normal_form`: applied to a text before it is cut; `rules`: how
        another library's vocabulary encodes, instead of all that; `end_ids`: what ends a text (None: `eot`).
        """
        self.rules = rules
        self.begin = rules.begin if rules is not None else ()
        """Ids in front of a text, where the vocabulary's own files say so (`encode` leaves them out)."""
        self.vocab, self.special_tokens = dict(vocab), dict(special_tokens)
        self.pattern, self.normal_form = pattern, normal_form
        self.vocab_size = 1 + max(*self.vocab.values(), *self.special_tokens.values())
        names = [name for name in (END_OF_TEXT, "<|end_of_text|>", "</s>") if name in self.special_tokens]
        self.eot = eot if eot is not None else self.special_tokens[names[0]] if names else 0
        self.end_ids = frozenset({self.eot}) if end_ids is None else end_ids
        """What ends a text or a reply."""
        self._bytes = {index: word for word, index in self.vocab.items()}
        self._bytes |= {index: name.encode() for name, index in self.special_tokens.items()}
        ranks = {bytes([value]): value for value in range(256)}
        for left, right in merges or ():
            ranks.setdefault(left + right, len(ranks))
        rest: Iterable[bytes] = self.vocab if merges is not None else sorted(vocab, key=vocab.__getitem__)
        if rules is not None:
            rest = ()
        # where there are merges, these are tokens that none makes: they stand for whole chunks
        for word in rest:
            ranks.setdefault(word, len(ranks))
        self._ids = np.array([self.vocab.get(word, ABSENT) for word in ranks], dtype=np.uint32)  # rank -> id
        self._has_all_bytes = bool((self._ids != ABSENT).all())
        if merges is not None:
            self.merges = list(merges)
        self.ranks = ranks
        """Bytes -> rank, in the order of merging."""

    @cached_property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """The pairs that are merged, in order: for each word the last two parts that it is made of."""
        pairs = (self._steps(word, self.ranks[word])[-1] for word in self.ranks)
        return [(parts[0], parts[1]) for parts in pairs if len(parts) == 2]

    def steps(self, text: str) -> list[list[bytes]]:
        """How the first chunk of a text is built: its bytes, then its parts after each merge."""
        if self.rules is not None:
            chunks = self.rules.chunks(text)
        else:
            chunk = regex.match(self.pattern, text)
            chunks = [chunk[0]] if chunk else []
        return self._steps(chunks[0].encode(), len(self.ranks)) if chunks else []

    def _steps(self, word: bytes, limit: int) -> list[list[bytes]]:
        """The parts of a word after each merge of a rank below `limit`."""
        parts = [bytes([value]) for value in word]
        steps = [parts]
        while len(parts) > 1:
            pairs = [self.ranks.get(left + right, limit) for left, right in pairwise(parts)]
            first = min(range(len(pairs)), key=pairs.__getitem__)
            if pairs[first] >= limit:
                break
            parts = [*parts[:first], parts[first] + parts[first + 1], *parts[first + 2 :]]
            steps.append(parts)
        return steps

    @classmethod
    def trained(cls, merges: Sequence[tuple[int, int]], pattern: str = patterns.GPT4) -> "Tokenizer":
        """From learned merges of ids: 256 bytes, the merges, then our control tokens."""
        words = [bytes([value]) for value in range(256)]
        for left, right in merges:
            words.append(words[left] + words[right])
        special_tokens = {name: len(words) + index for index, name in enumerate(SPECIAL_TOKENS)}
        pairs = [(words[left], words[right]) for left, right in merges]
        return cls({word: index for index, word in enumerate(words)}, pairs, pattern, special_tokens)

    def encode(self, text: str | bytes) -> list[int]:
        """Ids of ordinary tokens; never a control token, whatever the text contains.

        Bytes need not be UTF-8: `decode_bytes` gives the same bytes back, and the three bytes that encode a lone
        surrogate. In a vocabulary of another library, added tokens that are no control tokens are found in
        the text, as that library does.
        """
        if self.rules is not None:
            return self.rules.encode(text)
        is_short = isinstance(text, str) and len(text) < SHORT_TEXT and not _SURROGATE.search(text)
        if not is_short or not patterns.splitter(
            self.pattern
        ):  # where `regex` cuts, its Unicode should cut short texts, too
            return self.encode_batch([text])[0].tolist()
        ids = self._ids[self._encoding.encode_ordinary(self._normal(text))]
        return (ids if self._has_all_bytes else ids[ids != ABSENT]).tolist()

    def encode_batch(self, texts: Sequence[str | bytes], threads: int = 1) -> list[np.ndarray]:
        """`encode` of each text, as uint32 arrays: faster than tiktoken from about a thousand words on."""
        if self.rules is not None:
            return [np.array(self.rules.encode(text), np.uint32) for text in texts]
        rows = self._bulk.encode(map(self._to_bytes, texts), threads)
        return rows if self._has_all_bytes else [ids[ids != ABSENT] for ids in rows]

    def encode_markup(self, text: str) -> list[int]:
        """`encode` of a text in which the names of control tokens stand for them. With GUARD (`tokenizer.rules`)
        in it, a name is a text.
        """
        if self.rules is not None:
            return self.rules.encode(text, control=True)
        names = "|".join(re.escape(name) for name in sorted(self.special_tokens, key=len, reverse=True))
        ids: list[int] = []
        for piece in re.split(f"({names})", text) if names else [text]:
            index = self.special_tokens.get(piece)
            ids += self.encode(piece.replace(GUARD, "")) if index is None else [index]
        return ids

    def check_batches(self, texts: Iterable[str]) -> None:
        """Raise UserError if `encode_batch` gives other ids than tiktoken for a text's beginning or a control
        token's name.
        """
        strings = [
            text[: SHORT_TEXT - 1] for text in (*texts, *self.special_tokens, " ".join(self.special_tokens))
        ]
        for text, ids in zip(strings, self.encode_batch(strings), strict=True):
            if ids.tolist() != self.encode(text):
                raise UserError(
                    f"encode_batch gives other ids than tiktoken for {text[:200]!r}; please report this"
                )

    def _to_bytes(self, text: str | bytes) -> bytes:
        return text if isinstance(text, bytes) else self._normal(text).encode("utf-8", "surrogatepass")

    def _normal(self, text: str) -> str:
        return unicodedata.normalize(self.normal_form, text) if self.normal_form else text

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        return tiktoken.Encoding(
            "crawltalk", pat_str=self.pattern, mergeable_ranks=self.ranks, special_tokens={}
        )

    @cached_property
    def _bulk(self) -> "BulkEncoder":
        from crawltalk.tokenizer.bulk import BulkEncoder

        return BulkEncoder(self.ranks, self._ids, self.pattern)

    @cached_property
    def _bulk_decoder(self) -> "BulkDecoder":
        from crawltalk.tokenizer.bulk import BulkDecoder

        return BulkDecoder(self._bytes)

    def word(self, index: int) -> bytes:
        """The bytes of a token, a control token's name, or nothing for an id outside the vocabulary (some
        models have such).
        """
        return self._bytes.get(index, b"")

    def decode_bytes(self, ids: Iterable[int] | np.ndarray) -> bytes:
        """The bytes of the tokens; control tokens by name. KeyError for an id outside the vocabulary."""
        if isinstance(ids, np.ndarray) and len(ids) > _MANY:
            return self._bulk_decoder.decode(ids)
        return b"".join(map(self._bytes.__getitem__, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, folder: str | Path, config: Mapping[str, Any] | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `transformers` loads, merges.txt for people to
        read, and, where ids are ranks, tokenizer.tiktoken. `config`: more entries of tokenizer_config.json.
        """
        parts = files.Parts(
            self.vocab,
            self.merges,
            self.pattern,
            self.special_tokens,
            self.eot,
            self.normal_form,
            self.rules,
        )
        files.write(Path(folder), parts, config or {})

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer.json, a list of ranks (.tiktoken, Llama's tokenizer.model), or a folder with the
        former.

        Raises MissingInput if it does not exist; BadInput, with the line or the merge, if it is damaged or of
        another kind.
        """
        return cls(*files.read(Path(path)))
