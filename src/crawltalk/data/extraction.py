"""Main text of a web page: title, description, paragraphs; without navigation, banners, side bars, link lists and footers.

Two ideas, with native code for the long way: the page's own mark-up says what is not content (sectioning tags of HTML 5,
ARIA roles, the usual class names), and what is left is judged block by block by its length and its share of link text,
together with its neighbours (Kohlschütter et al. 2010, "Boilerplate detection using shallow text features", section 4).
"""

import html as entities
import re
from functools import lru_cache

import msgspec
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import ElementNode, HTMLTree

from crawltalk.data.warc import decode, too_deep

_NEVER = (
    "script, style, noscript, template, nav, aside, button, select, textarea, iframe, object, svg, canvas, dialog, menu,"
    " audio, video, map, [hidden], [aria-hidden=true], [role=navigation], [role=banner], [role=contentinfo], [role=search],"
    " [role=complementary], [role=dialog], [role=alertdialog], [role=menu], [role=menubar], [role=toolbar], [role=tablist],"
    " [role=button], [style*='display:none'], [style*='display: none'], [style*='visibility:hidden']"
)
_NAMES = frozenset(
    """
    cookie cookies consent gdpr nav navbar navi navigation menu submenu sidebar breadcrumb breadcrumbs footer banner share
    shares sharing sharedaddy social related recommended recommendations newsletter subscribe subscription promo advert
    advertisement advertising sponsored sponsor comment comments commentlist disqus pagination pager popup modal overlay
    toolbar skip login signup byline tags copyright outbrain taboola teaser teasers print rating
    """.split()  # noqa: SIM905 - a list of words is read as words
)
"""Words in class and id names that announce something else than content."""
_NAMED = ", ".join(f"[{key}*={name} i]" for name in sorted({name.rstrip("s") for name in _NAMES}) for key in ("class", "id"))
_NAME_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_CONTENT = "main, article, [role=main], [itemprop=articleBody]"

_LINK = re.compile(r"<(/?)a(?: [^>]*)?>")
_TAG = re.compile(r"</?[a-z][a-z0-9]*(?: [^>]*)?>")
_BREAK = re.compile(r"</?(?:h[1-6]|p|ul|ol|li|pre|br|div)\b[^>]*>|\n+")
_HEADING = re.compile(r"<h([1-6])")
# From a coarse sweep (50 to 120 characters, shares 0.3 to 0.9) over 990 real pages with known main text: a flat top.
_LONG = 60
_LINK_SHARE = 0.34
_MIXED_SHARE = 0.5
_START, _END = "\ue000", "\ue001"  # private use: mark where the content element begins and ends


class Block(msgspec.Struct):
    """A run of text between two block-level tags."""

    text: str
    link_share: float
    heading: int
    """1 to 6, or 0."""
    inside: bool
    """Within the content element, if the page names one."""


def extract(html: bytes, url: str | None = None) -> str | None:
    """The main text of a page, blocks on lines of their own, the title first; None if there is none.

    `url` is accepted for the common signature of extractors and not needed. Nesting that would hang a parser gives None.
    """
    page = decode(html)
    return None if too_deep(page) else extract_text(page)


def extract_text(html: str) -> str | None:
    """The same for a page that is decoded already and not too deep."""
    text, prose = _extract(html, trusting=True)
    if len(text) < 0.2 * prose and prose > 500:  # the mark-up misled: most paragraphs are gone
        text, _ = _extract(html, trusting=False)
    return text or None


def _extract(html: str, trusting: bool) -> tuple[str, int]:
    """The main text, and how many characters the page has in paragraphs. `trusting`: believe the names of its parts."""
    tree = HTMLTree.parse(html)
    body = tree.body
    if body is None:
        return "", 0
    for node in body.query_selector_all(_NEVER)[:]:
        node.decompose()
    prose = _prose(body)
    if trusting:
        _remove_announced(body, prose)
        _mark_content(tree, body)
    marked = extract_plain_text(tree, preserve_formatting="minimal_html", links=True, list_bullets=True, alt_texts=False)
    return "\n".join(_select(_blocks(marked))), prose


def _remove_announced(body: ElementNode, prose: int) -> None:
    """Take out what class names, ids and page headers announce as something else than content."""
    for node in body.query_selector_all(_NAMED)[:]:
        if node.parent is None or not _announces(node.getattr("class") or "", node.id or ""):
            continue
        # A theme may call the wrapper of everything "has-sidebar": what holds the title or much of the prose stays.
        if node.tag in ("body", "main", "article", "h1") or node.query_selector("h1") or _prose(node) > 0.3 * prose:
            continue
        node.decompose()
    for node in body.query_selector_all("header, footer")[:]:
        if not node.query_selector("h1") and not _heads_article(node):
            node.decompose()


def _prose(node: ElementNode) -> int:
    """Characters in paragraphs."""
    return sum(len(paragraph.text or "") for paragraph in node.query_selector_all("p")[:])


@lru_cache(maxsize=4096)
def _announces(classes: str, identifier: str) -> bool:
    return not _NAMES.isdisjoint(word.lower() for word in _NAME_WORDS.findall(f"{classes} {identifier}"))


def _heads_article(node: ElementNode) -> bool:
    parent = node.parent if node.tag == "header" else None
    while parent is not None:
        if parent.tag in ("article", "main"):
            return True
        parent = parent.parent
    return False


def _mark_content(tree: HTMLTree, body: ElementNode) -> None:
    """Put marks around the element that the page itself calls its content: the longest of main, article and their like."""
    best, size = None, 0.3 * len(body.text or "")
    for node in body.query_selector_all(_CONTENT)[:]:
        length = len(node.text or "")
        if length > size:
            best, size = node, length
    start, end = tree.create_text_node(_START), tree.create_text_node(_END)
    if best is not None and best.first_child is not None and start is not None and end is not None:
        best.insert_before(start, best.first_child)
        best.append_child(end)


def _blocks(marked: str) -> list[Block]:
    blocks: list[Block] = []
    inside = _START not in marked
    in_link = False  # a link may hold several blocks, as a card does
    heading = place = 0
    for match in [*_BREAK.finditer(marked), None]:
        part = marked[place : match.start() if match else len(marked)]
        inside = inside or _START in part
        text = _plain(part)
        links = here = 0
        for tag in _LINK.finditer(part):
            links += len(_plain(part[here : tag.start()])) if in_link else 0
            in_link, here = not tag[1], tag.end()
        links += len(_plain(part[here:])) if in_link else 0
        if text:
            blocks.append(Block(text, links / len(text), heading, inside))
        inside = inside and _END not in part
        if match:
            place = match.end()
            if match[0][0] == "<":
                opened = _HEADING.match(match[0])
                heading = int(opened[1]) if opened else 0
    return blocks


def _plain(part: str) -> str:
    text = _TAG.sub("", part)
    if "&" in text:
        text = entities.unescape(text)
    return " ".join(text.replace(_START, " ").replace(_END, " ").split())


def _select(blocks: list[Block]) -> list[str]:
    """The title, then the blocks that are content by themselves or by their neighbours."""
    title = next((number for number, block in enumerate(blocks) if block.heading == 1), None)
    kept: list[str] = []
    named = not all(block.inside for block in blocks)
    if title is not None:
        kept.append(blocks[title].text)
        blocks = [b for n, b in enumerate(blocks) if n > title or (b.inside and n < title)]
    good = [_is_content(block) for block in blocks]
    for number, block in enumerate(blocks):
        if not block.inside or block.text in kept[-1:]:
            continue
        reach = 2 if named else 1
        near = good[max(0, number - reach) : number + reach + 1]
        if good[number] or (block.link_share < _MIXED_SHARE and any(near)):
            kept.append(block.text)
    return kept


def _is_content(block: Block) -> bool:
    return block.link_share < _LINK_SHARE and len(block.text) >= _LONG
