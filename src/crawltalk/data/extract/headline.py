"""What a page calls itself: its first heading, or its title without the name of the site.

Extractors keep the text of an article, and often not what stands above it.
"""

import html as entities
import re

LONGEST = 200
"""Characters of a headline; what is longer is none."""
_HEAD_BYTES = 200_000
"""Where a title is looked for."""
_NAME = re.compile(r"\s+[-|\u2013\u2014\u00b7\u00ab\u00bb\u2022]+\s+|\s+::\s+")
"""Between the title of a page and the name of its site."""
_TAG = re.compile(rb"<[^>]*>")
_MARK = "\u00b6#\u00a7\U0001f517 "
"""What documentation puts behind a heading, as a link to it."""


def with_headline(text: str, html: bytes) -> str:
    """The text under the headline of its page (in UTF-8), unless one of its first lines says so already."""
    name = headline(html)
    first = "\n".join(text.split("\n", 3)[:3])
    return f"{name}\n{text}" if name and _plain(name) not in _plain(first) else text


def headline(html: bytes) -> str:
    """The first heading of a page if the page's title has it, too; else its title without the last part, where
    sites put their name. Empty if there is neither.
    """
    title = _content(html[:_HEAD_BYTES], b"title")
    heading = _content(html, b"h1")
    if heading and (not title or _plain(heading) in _plain(title)):
        return heading
    parts = _NAME.split(title)
    if len(parts) > 1:
        title = title[: title.rindex(parts[-1])].rstrip(" -|\u2013\u2014\u00b7\u00ab\u00bb\u2022:")
    return title


def _content(html: bytes, name: bytes) -> str:
    """The text of the first element of this name, on one line; empty if there is none or it is too long."""
    low = html.lower()
    start = low.find(b"<" + name)
    while start >= 0 and low[start + len(name) + 1 : start + len(name) + 2] not in (
        b">",
        b" ",
        b"\n",
        b"\t",
        b"\r",
    ):
        start = low.find(b"<" + name, start + 1)
    if start < 0:
        return ""
    opened, end = low.find(b">", start), low.find(b"</" + name, start)
    if not 0 <= opened < end:
        return ""
    text = entities.unescape(_TAG.sub(b"", html[opened + 1 : end]).decode("utf-8", "replace"))
    text = " ".join(text.replace("\0", "").split()).rstrip(_MARK)
    return text if len(text) <= LONGEST else ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
