"""Regular expressions that a person writes into a recipe."""

import re

from crawltalk.core.errors import BadInput


def compile_pattern(key: str, pattern: str) -> re.Pattern[str]:
    """The compiled value of a recipe's key. Raises BadInput that names the key if it is no regular
    expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadInput(f"{key} = {pattern!r} is no regular expression: {error}") from None
