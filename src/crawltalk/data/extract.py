"""Main text of a web page: title, description, paragraphs; without navigation, banners, side bars, link lists and footers.

Two ideas, both native code for the long way: the page's own mark-up says what is not content (HTML 5 sectioning tags, ARIA
roles, the usual class names), and what is left is judged block by block by length and share of link text, together with
its neighbours (Kohlschütter et al. 2010, "Boilerplate detection using shallow text features", section 4).
"""

import html as entities
import re

import msgspec
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import DOMNode, HTMLTree

from crawltalk.data.warc import decode, too_deep

_NEVER = (
    "script, style, noscript, template, nav, aside, form, button, select, textarea, iframe, object, svg, canvas, dialog, menu,"
    " audio, video, map, [hidden], [aria-hidden=true], [role=navigation], [role=banner], [role=contentinfo], [role=search],"
    " [role=complementary], [role=dialog], [role=alertdialog], [role=menu], [role=menubar], [role=toolbar], [role=tablist],"
    " [role=button], [role=form], [style*='display:none'], [style*='display: none'], [style*='visibility:hidden']"
)
_NAMES = [
    "cookie",
    "consent",
    "gdpr",
    "nav",
    "navbar",
    "navigation",
    "menu",
    "sidebar",
    "breadcrumb",
    "footer",
    "banner",
    "share",
    "sharing",
    "social",
    "related",
    "recommended",
    "newsletter",
    "subscribe",
    "promo",
    "advert",
    "advertisement",
    "sponsored",
    "sponsor",
    "comment",
    "comments",
    "pagination",
    "pager",
    "popup",
    "modal",
    "overlay",
    "widget",
    "toolbar",
    "skip",
    "login",
    "signup",
    "metadata",
    "byline",
    "tags",
    "disclaimer",
    "copyright",
    "legal",
]
"""Words in class and id names that announce something else than content."""
_NAMED = ", ".join(f"[class*={name} i], [id*={name} i]" for name in _NAMES)
_NAME_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")

_LINK = re.compile(r"<a [^>]*>(.*?)</a>", re.S)
_TAG = re.compile(r"</?[a-z][a-z0-9]*(?: [^>]*)?>")
_BREAK = re.compile(r"</?(?:h[1-6]|p|ul|ol|li|pre|blockquote|table|tr|br|div|dl|dt|dd)\b[^>]*>|\n\n+")
_HEADING = re.compile(r"<h([1-6])>")
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

    `url` is accepted for extractors' common signature and not needed. Nesting that would hang a parser gives None.
    """
    page = decode(html)
    return None if too_deep(page) else extract_text(page)


def extract_text(html: str) -> str | None:
    """The same for a page that is decoded already and not too deep."""
    tree = HTMLTree.parse(html)
    if tree.body is None:
        return None
    _remove_announced(tree)
    _mark_content(tree)
    marked = extract_plain_text(tree, preserve_formatting="minimal_html", links=True, list_bullets=True, alt_texts=False)
    kept = _select(_blocks(marked))
    return "\n".join(kept) or None


def _remove_announced(tree: HTMLTree) -> None:
    body = tree.body
    for node in body.query_selector_all(_NEVER):
        node.decompose()
    size = len(body.text)
    for node in body.query_selector_all(_NAMED):
        words = {word.lower() for word in _NAME_WORDS.findall(f"{node.getattr('class') or ''} {node.id or ''}")}
        if words.isdisjoint(_NAMES_SET) or node.tag in ("body", "main", "article", "h1"):
            continue
        # A theme may name the wrapper of everything "has-sidebar": what holds the title or most of the text stays.
        if len(node.text) < 0.4 * size and not node.query_selector("h1"):
            node.decompose()
    for node in body.query_selector_all("header, footer"):
        if node.query_selector("h1") is None and not _within_article(node):
            node.decompose()


_NAMES_SET = frozenset(_NAMES)


def _within_article(node: DOMNode) -> bool:
    parent = node.parent
    while parent is not None:
        if parent.tag in ("article", "main"):
            return node.tag == "header"
        parent = parent.parent
    return False


def _mark_content(tree: HTMLTree) -> None:
    """Put marks around the element that the page itself calls its content: the longest of main, article and their like."""
    candidates = tree.body.query_selector_all("main, article, [role=main], [itemprop=articleBody]")
    best, size = None, 0.3 * len(tree.body.text)
    for node in candidates:
        length = len(node.text)
        if length > size:
            best, size = node, length
    if best is not None:
        best.insert_before(tree.create_text_node(_START), best.first_child)
        best.append_child(tree.create_text_node(_END))


def _blocks(marked: str) -> list[Block]:
    blocks: list[Block] = []
    inside = _START not in marked
    heading = 0
    place = 0
    for match in [*_BREAK.finditer(marked), None]:
        part = marked[place : match.start() if match else len(marked)]
        if _START in part:
            inside = True
        text = _plain(part)
        if text:
            links = sum(len(_plain(link)) for link in _LINK.findall(part))
            blocks.append(Block(text, links / len(text), heading, inside))
        if _END in part:
            inside = False
        if match:
            opened = _HEADING.match(match[0])
            heading = int(opened[1]) if opened else 0
            place = match.end()
    return blocks


def _plain(part: str) -> str:
    text = entities.unescape(_TAG.sub("", part)).replace(_START, " ").replace(_END, " ")
    return " ".join(text.split())


def _select(blocks: list[Block]) -> list[str]:
    """Kohlschütter's rules on link share and length of a block and its neighbours; the title comes first."""
    title = next((number for number, block in enumerate(blocks) if block.heading == 1), None)
    kept: list[str] = []
    if title is not None:
        kept.append(blocks[title].text)
        blocks = [block for number, block in enumerate(blocks) if number > title or (block.inside and number < title)]
    good = [_is_content(block) for block in blocks]
    for number, block in enumerate(blocks):
        near = good[max(0, number - 1) : number + 2]
        if not block.inside or block.text in kept[-1:]:
            continue
        if good[number] or (block.link_share < 0.5 and len(block.text) < 200 and any(near)):
            kept.append(block.text)
    return kept


def _is_content(block: Block) -> bool:
    return block.link_share < 0.34 and len(block.text) >= 80
