"""JSON that obeys a schema."""

import json
import re
from functools import lru_cache
from typing import Any

from crawltalk.core.errors import MissingInput
from crawltalk.core.types import Problem
from crawltalk.rewards.answers import spoken
from crawltalk.rewards.verdict import Verdict, correct, undetermined, wrong

_FENCE = re.compile(r"\s*```(?:json)?\n(.*)\n```\s*", re.DOTALL)


def schema(problem: Problem, reply: str) -> Verdict:
    """Whether the reply is one JSON value that obeys the problem's answer, which is a JSON schema (2020-12, or the
    draft that its `$schema` names). A Markdown fence around the whole is no part of it.
    """
    try:
        validator = _validator(problem.answer)
    except ValueError as error:
        return undetermined(str(error))
    text = spoken(reply)
    if fenced := _FENCE.fullmatch(text):
        text = fenced[1]
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return wrong(reason=f"no JSON: {error}")
    for error in validator.iter_errors(value):
        return wrong(reason=f"{error.json_path}: {error.message}"[:200])
    return correct()


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@lru_cache(maxsize=256)
def _validator(text: str) -> Any:
    """Raises ValueError if the text is no schema."""
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for
    except ImportError:
        raise MissingInput("the verifier schema needs jsonschema; pip install 'crawltalk[rewards]'") from None
    rules = json.loads(text)
    if not isinstance(rules, dict):
        raise ValueError("the problem's answer is no JSON schema, which is an object")
    kind = validator_for(rules)
    try:
        kind.check_schema(rules)
    except SchemaError as error:
        raise ValueError(f"the problem's answer is no JSON schema: {error.message}") from None
    return kind(rules)
