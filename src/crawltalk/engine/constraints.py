"""Replies that obey a JSON schema: before each token, the tokens that cannot follow are ruled out (by the
library llguidance).

A schema is narrowed and widened where that helps. Narrowed: an object that lists its properties has no others,
unless its schema says `additionalProperties` (so do XGrammar, vLLM's default, and Outlines; OpenAI's strict mode
demands it), and an integer without limits is one that every JSON parser reads exactly (RFC 8259, section 6): what
obeys the narrower schema obeys the given one, and a weak model would invent properties and digits for ever.
Widened: keywords, formats and patterns that llguidance does not know are left out and named (`Constraint.relaxed`).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from crawltalk.core.errors import BadInput
from crawltalk.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher


_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
    "coerce_one_of": True,
}
"""JSON with Python's white space only: otherwise a weak model may write blanks for ever. Unknown keywords and formats
give warnings, and `oneOf` is read as `anyOf`.
"""
_SCHEMAS = ("items", "additionalItems", "additionalProperties", "contains", "propertyNames")
_LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_COMBINING = {"allOf", "anyOf", "oneOf", "if", "$ref"}
_ENDING_WINDOW = 256
"""Tokens before a reply's limit at which the first look for a way to its end is taken."""
_ENDING_SPARE = 32
"""Tokens by which that way may grow from one look to the next: a token may begin a property that has required ones."""
_EXACT = 2**53 - 1
_LIMITED = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const"}
_OPEN = {"additionalProperties", "unevaluatedProperties", "patternProperties", "minProperties"}
"""Beside these, `properties` are not all that an object may have."""


class BadSchema(BadInput):
    """A JSON schema that no reply can obey."""


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

    @cached_property
    def endings(self) -> tuple[Tensor, Tensor]:
        """Tokens in the order in which they lead to the end of a JSON text, outside and inside of its strings: the
        end, what closes an object, a list, a string or a number, and then the longest token first.
        """
        by_length = sorted(range(len(self.tokens)), key=lambda index: -len(self.tokens[index]))

        def order(first: list[bytes]) -> Tensor:
            closing = [self.tokens.index(mark) for mark in first if mark in self.tokens]
            return torch.tensor([self.library.eos_token, *closing, *by_length])

        return order([b"}", b"]", b'"', b","]), order([b'"'])

    def __call__(self, text: bytes) -> list[int]:
        return self._encode(text)


class Constraint:
    """A grammar that one reply obeys, and the state of the reply in it."""

    def __init__(
        self, matcher: "LLMatcher", relaxed: tuple[str, ...] = (), vocabulary: Vocabulary | None = None
    ) -> None:
        """`vocabulary`: needed for replies that have to end in time."""
        self._matcher, self._vocabulary = matcher, vocabulary
        self.relaxed = relaxed
        """What of the schema the reply need not obey."""
        self._ending: list[int] = []
        """Tokens that lead to the end, once there is time for no others."""
        self._look_at = _ENDING_WINDOW
        """Tokens before the limit at which to look for them again."""

    @classmethod
    def of_schema(cls, vocabulary: Vocabulary, schema: str) -> "Constraint":
        """For a reply that obeys a JSON schema. Raises BadSchema if none can."""
        given = json.loads(schema)
        problem = ""
        for candidate, relaxed in _candidates(given):
            matcher, error = _compile(vocabulary, candidate)
            if matcher is not None:
                return cls(matcher, (*relaxed, *sorted(matcher.get_grammar_warnings())), vocabulary)
            problem = problem if candidate is not given else error
        raise BadSchema(f"this JSON schema cannot be obeyed: {problem}")

    def copy(self) -> "Constraint":
        """An independent copy at the same point of the reply."""
        return Constraint(self._matcher.deep_copy(), self.relaxed, self._vocabulary)

    def mask(self, logits_V: Tensor, left: int | None = None) -> None:
        """Set the logits of tokens that cannot follow to -inf, in place. `left`: tokens that may still come, if the
        reply has to end in them; when it gets close, only those can follow that lead to the end.
        """
        if left is not None:
            self._look_for_the_end(left)
        if self._ending:
            logit = logits_V[self._ending[0]].clone()
            logits_V[:] = -torch.inf
            logits_V[self._ending[0]] = logit
            return
        allowed = _allowed(self._matcher)[: len(logits_V)]
        logits_V[: len(allowed)].masked_fill_(~allowed.to(logits_V.device), -torch.inf)
        logits_V[len(allowed) :] = -torch.inf

    def accept(self, token: int) -> bool:
        """Advance by a token. Returns whether the reply is complete: nothing can follow."""
        self._matcher.consume_token(token)
        self._ending = self._ending[1:]
        return self._matcher.is_stopped()

    def _look_for_the_end(self, left: int) -> None:
        """Begin to end if there is little time. The more there is, the later is the next look."""
        if self._ending or left > self._look_at or self._vocabulary is None:
            return
        ending = _way_to_the_end(self._matcher.deep_copy(), self._vocabulary, left)
        spare = left - len(ending) - _ENDING_SPARE
        if spare <= 0:
            self._ending, self._look_at = ending, 0
        else:
            self._look_at = left - (spare + 1) // 2


def _allowed(matcher: "LLMatcher") -> Tensor:
    """[vocabulary] bool: the tokens that can follow."""
    bits = torch.frombuffer(bytearray(matcher.compute_bitmask()), dtype=torch.uint8)
    return (bits[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten().bool()


def _way_to_the_end(matcher: "LLMatcher", vocabulary: Vocabulary, most: int) -> list[int]:
    """Few tokens that end the reply; empty if it takes more than `most`."""
    tokens: list[int] = []
    outside, inside = vocabulary.endings
    brackets = outside[1:3]
    while not matcher.is_stopped():
        if len(tokens) == most:
            return []
        allowed = _allowed(matcher)
        order = inside if bool(allowed[brackets].all()) else outside  # only a string may go on with either
        token = int(order[allowed[order].int().argmax()])
        matcher.consume_token(token)
        tokens.append(token)
    return tokens


def _compile(vocabulary: Vocabulary, schema: Any) -> tuple["LLMatcher | None", str]:
    """A matcher, or the reason why there is none."""
    from llguidance import LLMatcher

    try:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_STYLE)
        matcher = LLMatcher(vocabulary.library, grammar, log_level=0)
    except ValueError as problem:
        return None, str(problem)
    error = matcher.get_error()
    return (None, " ".join(error.split())[:300]) if error else (matcher, "")


def _candidates(schema: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Schemas to try in this order, each with what it leaves out of the given one."""
    yield narrowed(schema), ()
    yield schema, ()
    if (plain := _without_patterns(schema)) != schema:  # it may have look-around or references to groups
        yield narrowed(plain), ("pattern",)
        yield plain, ("pattern",)


def narrowed(schema: Any) -> Any:
    """The schema, in which objects have no properties but those that it lists, unless it says that they have, and
    integers have limits.

    Objects that are put together out of several stay as they are: the parts would exclude each other.
    """
    composed = any(map(_is_composed, _walk(schema)))
    return _map(schema, _limit if composed else lambda one: _close(_limit(one)))


def _limit(schema: dict[str, Any]) -> dict[str, Any]:
    given = schema.get("type")
    types = given if isinstance(given, list) else [given]
    if "integer" not in types or "number" in types:
        return schema
    return schema if schema.keys() & _LIMITED else schema | {"minimum": -_EXACT, "maximum": _EXACT}


def _is_composed(schema: dict[str, Any]) -> bool:
    parts = schema.get("allOf")
    several = isinstance(parts, list) and len(parts) > 1
    return several or ("properties" in schema and bool(schema.keys() & _COMBINING))


def _close(schema: dict[str, Any]) -> dict[str, Any]:
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or schema.keys() & _OPEN:
        return schema
    if not (isinstance(required, list) and all(isinstance(name, str) for name in required)):
        return schema
    return schema | {"additionalProperties": False} if {*required} <= properties.keys() else schema


def _without_patterns(schema: Any) -> Any:
    return _map(
        schema, lambda one: {key: one[key] for key in one if key not in ("pattern", "patternProperties")}
    )


def _map(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The schema with each schema in it changed."""
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key, value in schema.items():
        if key in _SCHEMAS and isinstance(value, dict):
            result[key] = _map(value, change)
        elif key in _LISTS_OF_SCHEMAS and isinstance(value, list):
            result[key] = [_map(item, change) for item in value]
        elif key in _NAMED_SCHEMAS and isinstance(value, dict):
            result[key] = {name: _map(item, change) for name, item in value.items()}
    return change(result)


def _walk(schema: Any) -> list[dict[str, Any]]:
    """All schemas in a schema."""
    found: list[dict[str, Any]] = []
    _map(schema, lambda one: found.append(one) or one)
    return found
