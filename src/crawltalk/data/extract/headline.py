"""What a page calls itself: its first heading, or its title without the name of the site.

Extractors keep the text of an article, and often not what stands above it.
"""

import html as entities
import re

LONGEST = 200
"""Characters of a headline; what is longer is none."""
_NEAR = 3
"""Lines of a text among which its own headline may be."""
_HEAD_BYTES = 200_000
"""Where a title is looked for."""
_NAME = re.compile(r"\s+[-|\u2013\u2014\u00b7\u00ab\u00bb\u2022]+\s+|\s+::\s+")
"""Between the title of a page and the name of its site."""
_TAG = re.compile(rb"<[^>]*>")
_MARK = re.compile(r"(?:\s*[\u00b6\u00a7\U0001f517]|\s+#)+$")
"""What documentation puts behind a heading, as a link to it."""


def with_headline(text: str, html: bytes) -> str:
    """The text under the headline of its page (in UTF-8). A line near its beginning that is the headline moves up."""
    name = headline(html)
    if not name:
        return text
    lines = text.split("\n")
    near = [line for line in lines[:_NEAR] if _plain(line) != _plain(name)]
    return "\n".join((name, *near, *lines[_NEAR:]))


def headline(html: bytes) -> str:
    """The first heading of a page if it is part of the page's title; else that title. The last part of the title does
    not count, as it is where sites put their name. Empty if there is neither.
    """
    title = _content(html[:_HEAD_BYTES], b"title")
    heading = _content(html, b"h1")
    separators = list(_NAME.finditer(title))
    if separators:
        title = title[: separators[-1].start()]
    known = f" {_plain(heading)} " in f" {_plain(title)} "
    return heading if heading and (known or not title) else title


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
    text = _MARK.sub("", "".join(filter(str.isprintable, " ".join(text.split()))))
    return text if len(text) <= LONGEST and _plain(text) else ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
