"""Bytes of strangers in our own words: short, on one line, and harmless to a terminal."""

import re
import unicodedata

_HARMLESS = re.compile(r"[ -~]*\Z")
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""General categories of characters that steer a terminal, turn the direction of writing, or show nothing."""


def printable(text: str | bytes, limit: int = 80) -> str:
    """The beginning of a text as one line of visible characters, at most `limit` of them.

    For whatever pages, servers and files say, before it stands in a reason, a warning or a record.
    """
    text = text[: 8 * limit]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if not _HARMLESS.match(text):
        text = "".join(
            letter if unicodedata.category(letter) not in _HIDDEN else " " if letter in "\t\r\n" else "\ufffd"
            for letter in text
        )
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
