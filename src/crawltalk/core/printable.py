"""Bytes of strangers in our own words: short, on one line, and harmless to a terminal."""

import re
import unicodedata

_HARMLESS = re.compile(r"[ -~\t\n]*\Z")
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""General categories of characters that steer a terminal, turn the direction of writing, or show nothing."""


def harmless(text: str) -> str:
    """The text with everything replaced that steers a terminal or shows nothing; lines and tabs stay."""
    if _HARMLESS.match(text):
        return text
    return "".join(
        letter if letter in "\t\n\u200c\u200d" or unicodedata.category(letter) not in _HIDDEN else "\ufffd"
        for letter in text.replace("\r\n", "\n").replace("\u00ad", "")
    )


def printable(text: str | bytes, limit: int = 80) -> str:
    """The beginning of a text as one line of visible characters, at most `limit` of them.

    For whatever pages, servers and files say, before it stands in a reason, a warning or a record.
    """
    text = text[: 8 * limit]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = " ".join(harmless(text.replace("\r", "\n").replace("\u200c", "").replace("\u200d", "")).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
