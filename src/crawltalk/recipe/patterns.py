"""Regular expressions that a person writes into a recipe."""

import re

from crawltalk.core.errors import BadInput


def compile_pattern(key: str, pattern: str) -> re.Pattern[str]:
    """Compile the value of a recipe's key. Raises BadInput, with the key, if it is not a regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadInput(f"{key} = {pattern!r} is not a regular expression: {error}") from None
