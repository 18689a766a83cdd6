"""The article in a page's JSON-LD: https://schema.org/articleBody. Pages that a script builds, and some behind a
paywall, have their text nowhere else.

The state that frameworks leave in pages (`__NEXT_DATA__` and the like) is not read: no field of it is known to be
the text, and pages that render on the server have it all twice.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from html import unescape
from typing import Any

_SCRIPT = re.compile(rb"<script[^>]{0,500}?application/ld\+json[^>]{0,500}>", re.IGNORECASE)
_END = re.compile(rb"</script", re.IGNORECASE)
_WRAPPER = re.compile(
    r"^\s*(?:/\*)?\s*(?://)?\s*(?:<!\[CDATA\[|<!--)\s*(?:\*/)?|\s*(?:/\*|//)?\s*(?:\]\]>|-->)\s*(?:\*/)?\s*;?\s*$"
)
_FIELD = b"articleBody"
_DEEPEST = 50


def article_body(html: bytes, text_of: Callable[[bytes, int], str]) -> str | None:
    """The longest `articleBody` of a page in UTF-8, or None. `text_of` makes text of markup, up to so many
    characters.
    """
    if _FIELD not in html:
        return None
    found: list[str] = []
    for script in _scripts(html):
        if _FIELD in script:
            with suppress(ValueError, RecursionError):
                # strict=False: line breaks within strings, which many templates let pass
                value = json.loads(_WRAPPER.sub("", script.decode("utf-8", "replace")), strict=False)
                found += _bodies(value, _DEEPEST)
    body = max(found, key=len, default="")
    if "<" not in body and "&lt;" in body:
        body = unescape(body)
    if re.search(r"</?[a-zA-Z][^<>]*>", body):
        return text_of(body.encode("utf-8", "replace"), len(body)) or None
    lines = (" ".join(unescape(line).split()) for line in body.split("\n"))
    return "\n".join(filter(None, lines)) or None


def _scripts(html: bytes) -> Iterator[bytes]:
    """The contents of all scripts that are JSON-LD."""
    position = 0
    while (start := _SCRIPT.search(html, position)) and (end := _END.search(html, start.end())):
        yield html[start.end() : end.start()]
        position = end.end()


def _bodies(value: Any, deepest: int) -> Iterator[str]:
    """All `articleBody` strings anywhere in a JSON value."""
    if not deepest:
        return
    if isinstance(value, list):
        for item in value:
            yield from _bodies(item, deepest - 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name.rpartition(":")[2].rpartition("/")[2] == "articleBody" and isinstance(item, str | list):
                yield from (
                    part for part in ([item] if isinstance(item, str) else item) if isinstance(part, str)
                )
            else:
                yield from _bodies(item, deepest - 1)
