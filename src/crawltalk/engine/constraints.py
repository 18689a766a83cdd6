"""Replies that obey a JSON schema: before each token, the tokens that cannot follow are ruled out (by the
library llguidance).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crawltalk.core.errors import BadInput
from crawltalk.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher


_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON with Python's white space only: otherwise a weak model may write blanks for ever."""


class Vocabulary:
    """A tokenizer as llguidance reads it; made once for a model, since it takes a while."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: Iterable[int]) -> None:
        from llguidance import LLTokenizer, TokenizerWrapper

        self.bos_token_id = None
        self.eos_token_id = tokenizer.eot
        self.special_token_ids = sorted(tokenizer.special_tokens.values())
        self.tokens = [tokenizer.word(index) for index in range(tokenizer.vocab_size)]
        self._encode = tokenizer.encode
        self.library = LLTokenizer(TokenizerWrapper(self), eos_token=sorted(stop_ids) or [tokenizer.eot])

    def __call__(self, text: bytes) -> list[int]:
        return self._encode(text)


class Constraint:
    """A grammar that one reply obeys, and the state of the reply in it."""

    def __init__(self, matcher: "LLMatcher") -> None:
        self._matcher = matcher

    @classmethod
    def of_schema(cls, vocabulary: Vocabulary, schema: str) -> "Constraint":
        """For a reply that obeys a JSON schema. Raises BadInput if none can."""
        from llguidance import LLMatcher

        try:
            matcher = LLMatcher(
                vocabulary.library, LLMatcher.grammar_from_json_schema(schema, overrides=_STYLE), log_level=0
            )
            error = matcher.get_error()
        except ValueError as problem:
            raise BadInput(f"this JSON schema cannot be obeyed: {problem}") from None
        if error:
            raise BadInput(f"this JSON schema cannot be obeyed: {error.splitlines()[0]}")
        return cls(matcher)

    def copy(self) -> "Constraint":
        """An independent copy at the same point of the reply."""
        return Constraint(self._matcher.deep_copy())

    def mask(self, logits_V: Tensor) -> None:
        """Set the logits of tokens that cannot follow to -inf, in place."""
        bits = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        allowed = (bits[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten()[: len(logits_V)].bool()
        logits_V[: len(allowed)].masked_fill_(~allowed.to(logits_V.device), -torch.inf)
        logits_V[len(allowed) :] = -torch.inf

    def accept(self, token: int) -> bool:
        """Advance by a token. Returns whether the reply is complete: nothing can follow."""
        self._matcher.consume_token(token)
        return self._matcher.is_stopped()
