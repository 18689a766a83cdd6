"""The four forms in which OpenAI's API takes texts: one text, texts, the ids of one, or lists of ids."""

from collections.abc import Sequence

from crawltalk.engine import Engine
from crawltalk.serve.api.errors import bad_request

MAX_INPUTS = 2048
"""Texts in one request at most (OpenAI's limit for embeddings)."""


def split_inputs(value: str | list[str | int | list[int]], param: str) -> Sequence[str | list[int]]:
    """Any of the four forms as a list of texts or of lists of ids. `param`: the field, for errors. Raises
    ApiError for a mixture, and for too many.
    """
    if isinstance(value, str):
        return [value]
    texts = [item for item in value if isinstance(item, str)]
    ids = [item for item in value if isinstance(item, int)]
    lists = [item for item in value if isinstance(item, list)]
    if len(value) not in (len(texts), len(ids), len(lists)):
        raise bad_request(f"{param} is a mixture of texts, tokens and lists", param)
    inputs = texts or lists or [ids]
    if len(inputs) > MAX_INPUTS:
        raise bad_request(f"{param} has {len(inputs):,} texts, and {MAX_INPUTS:,} are the most", param)
    return inputs


def to_ids(engine: Engine, value: str | list[int], param: str, *, new_document: bool = False) -> list[int]:
    """The tokens of one input: ids as they are, and a text as `transformers` reads it with the model's folder. The
    token that separates documents comes before a text if it begins a `new_document`, and stands for an empty one.

    Raises ApiError for tokens that the model does not have.
    """
    tokenizer = engine.tokenizer
    if isinstance(value, str):
        begin = engine.renderer.begin if new_document else tokenizer.begin
        return [*begin, *tokenizer.encode_markup(value)] or [tokenizer.eot]
    if not value or max(value) >= tokenizer.vocab_size:
        raise bad_request(
            f"a list of tokens has one at least, and none above {tokenizer.vocab_size - 1}", param
        )
    return value
