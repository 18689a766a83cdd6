"""Cards: the title of a page, and what the page is about in one line."""

import re
from collections import Counter
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from crawltalk.core.types import Document

TITLE = 100
DESCRIPTION = 160
SENTENCE = 240
"""Longest title, description on a line of its own, and describing sentence, in characters."""
HEAD = {"line": TITLE + DESCRIPTION + 4, "sentence": 2000}
"""Characters of a text that its card depends on, by `tokens.description`."""
_CJK_ENDS = ("\u3002", "\uff01", "\uff1f")
SENTENCE_ENDS = (".", "!", "?", *_CJK_ENDS)
_LINES = 8
"""Lines among whose first sentences a description is looked for."""
_WORDS, _CJK_LETTERS = 5, 12
"""Fewest words of a sentence that says something; letters, where no spaces are between words."""
_BREAK = re.compile(
    r"(?<=[.!?])[\"')\]\u201d\u2019]*\s+(?=[\"'(\[\u201c\u2018]?[A-Z0-9\u00c0-\u00de])|(?<=[\u3002\uff01\uff1f])"
)
_ABBREVIATION = re.compile(
    r"(?:\b[A-Za-z]|\b(?:e\.g|i\.e|etc|vs|cf|Mr|Mrs|Ms|Dr|St|No|Fig|Inc|Jr|Sr|Vol|pp))\.$"
)
_NUMBER = re.compile(r"^(?:Chapter |Appendix |Part )?(?:[A-Z]|[IVX]+|\d+)\.(?:\d+\.?)*\s+(?=\S)")
"""The number of a chapter or section before its title."""
_BYLINE = re.compile(r"(?:last |first )?(?:updated|posted|published|modified|written)\b", re.IGNORECASE)
_MARK = re.compile(r"(?:\s*[\u00b6\u00a7]|\s+#)+$")
"""What documentation puts behind a heading, as a link to it."""


def card(text: str) -> tuple[str, str]:
    """(title, description): a page's first two lines, each "" if it does not look like one."""
    lines = text.split("\n", 2)
    title = lines[0] if len(lines) > 1 and len(lines[0]) <= TITLE and not lines[0].endswith(".") else ""
    second = lines[1] if title and len(lines) > 2 else ""
    return title, second if len(second) <= DESCRIPTION and not second.endswith((".", "!", "?")) else ""


def page_cards(documents: Sequence[Document]) -> list[tuple[str, str]]:
    """(title, description) of each page: its headline, or else the last part of its URL; and the first of its
    sentences that no other page begins with. Either is "" if there is none that is the page's own.
    """
    heads = [_head(document) for document in documents]
    common = Counter(title.lower() for title, _ in heads)
    titles = [
        title if common[title.lower()] == 1 else title_of_url(document.url)
        for document, (title, _) in zip(documents, heads, strict=True)
    ]
    uses = Counter(title.lower() for title in titles)
    sentences = Counter(sentence for _, found in heads for sentence in set(found))
    cards = []
    for title, (_, found) in zip(titles, heads, strict=True):
        own = (sentence for sentence in found if sentences[sentence] == 1 and sentence != title)
        cards.append((title if uses[title.lower()] == 1 else "", next(own, "")))
    return cards


def _head(document: Document) -> tuple[str, list[str]]:
    """A page's title, and its first sentences that could describe it."""
    lines = [line for line in document.text.split("\n", _LINES)[:_LINES] if line.strip()]
    title = ""
    if lines and len(lines[0]) <= TITLE and not lines[0].endswith(SENTENCE_ENDS):
        title = _NUMBER.sub("", _MARK.sub("", lines[0].strip()))
    sentences = [split_sentences(line)[0] for line in lines]
    title = title or title_of_url(document.url)
    return title, [sentence for sentence in sentences if _describes(sentence, title)]


def _describes(sentence: str, title: str) -> bool:
    """Whether a sentence is whole and says something. A small letter begins one only if it is the title's."""
    if not sentence.endswith(SENTENCE_ENDS) or len(sentence) > SENTENCE or _BYLINE.match(sentence):
        return False
    words = sentence.split()
    if len(words) < _WORDS and not (sentence.endswith(_CJK_ENDS) and len(sentence) > _CJK_LETTERS):
        return False
    name = re.match(r"\w+", sentence)
    return not sentence[0].islower() or (name is not None and name[0].lower() in title.lower())


def split_sentences(line: str) -> list[str]:
    """The sentences of a line; an abbreviation or an initial ends none."""
    sentences: list[str] = []
    start = 0
    for match in _BREAK.finditer(line):
        sentence = line[start : match.end()].strip()
        if not _ABBREVIATION.search(sentence):
            sentences.append(sentence)
            start = match.end()
    return [sentence for sentence in (*sentences, line[start:].strip()) if sentence]


def title_of_url(url: str) -> str:
    """The last part of a URL that says something, in words: `/library/how-to_copy.html` -> `how to copy`."""
    try:
        parts = urlsplit(url)
    except ValueError:  # such as http://[half-an-ipv6
        return ""
    names = [re.sub(r"\.\w{1,5}$", "", unquote(name)) for name in parts.path.split("/")]
    names = [name for name in names if name and name not in ("index", "default")]
    title = re.sub(r"[-_+\s]+", " ", names[-1]).strip() if names else parts.netloc.removeprefix("www.")
    return title if len(title) <= TITLE else ""
