"""One pass over a page's bytes: runs of text between block-level tags, each with what is known from the elements
around it.

No tree is built. The classifier needs only a stack of open elements (Kohlschütter et al. 2010 work on the same
flat sequence). This costs a fraction of a tree, and it cannot hang: every step moves forward in the page.

Elements are closed as the HTML standard's tree construction closes them (html.spec.whatwg.org, 13.2.6), as far as
that decides what is shown, what is a link and what stands in what. It is left in three places, each time in favour
of text that a browser would lose: an element closed by a slash says nothing of what follows it, a link without its
end ends with its block, and text elements (`<title>`, `<textarea>`) without any end are empty.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit

# What an element is (own), and what a block stands in (inherited by all within).
VOID, BLOCK, RAW, NEVER, HEADING, ITEM, CLOSES_P = 1, 2, 4, 8, 16, 32, 64
LINK, LIST, TABLE, QUOTE, PRE, ARTICLE, MAIN, ASIDE, HEADER, FOOTER, FORM, ANNOUNCED, HIDDEN, FIGURE = (
    1 << bit for bit in range(7, 21)
)
INHERITED = (LINK, LIST, TABLE, QUOTE, PRE, ARTICLE, MAIN, ASIDE, HEADER, FOOTER, FORM, ANNOUNCED, FIGURE)
_INHERITED_MASK = sum(INHERITED) | HIDDEN
# What matters for closing it, too: text-level elements that the standard formats by (they may overlap with blocks);
# those that an end tag does not close from within; SVG and MathML, where HTML may stand in them, and what else ends
# them; those with labels only (buttons, choices), which any paragraph or list ends.
_FORMAT, _SCOPE, _FOREIGN, _INTEGRATION, _BREAKS_OUT, _LABEL, _LITERAL, _OPTIONAL, _TITLE, _LINE = (
    1 << bit for bit in range(21, 31)
)
"""`_LITERAL`: all within is text. `_OPTIONAL`: not shown, unless the page has nothing else (`scan`'s `reveal`).
`_TITLE`: a button in it may be the title itself. `_LINE`: a line of its own within `<pre>`.
"""
_CHOICE, _LISTED, _TERM, _CELL, _ROW, _ROWS, _ENDS_OWN_KIND = (1 << bit for bit in range(31, 38))
"""Items, whose start tags end those before them: of a menu, list, glossary and table. Links and buttons do so, too."""
_ITEMS = _CHOICE | _LISTED | _TERM | _CELL | _ROW | _ROWS
# What attributes say: the element is shown (`<dialog open>`), it leads somewhere.
_SHOWN, _TARGET = 1 << 38, 1 << 39
_STATE = _INHERITED_MASK | NEVER | HEADING | _FOREIGN | _LABEL | _TITLE
"""What elements within have of those around them."""
_PARAGRAPH = BLOCK | CLOSES_P

_ELEMENTS = {
    "area base basefont bgsound col frame input link meta param source track wbr head": VOID,
    "br embed img": VOID | _BREAKS_OUT,
    "hr": VOID | _PARAGRAPH,
    "script style textarea title iframe noembed": RAW | NEVER,
    "xmp plaintext": _PARAGRAPH | PRE | _LITERAL,
    "svg math": NEVER | _FOREIGN,
    "foreignobject desc annotation-xml mi mo mn ms mtext": _INTEGRATION,
    "select datalist": NEVER | _LABEL,
    "button": _OPTIONAL | _LABEL | _SCOPE | _ENDS_OWN_KIND,
    "noscript canvas audio video dialog menu": _OPTIONAL,
    "template": _OPTIONAL | _SCOPE,
    "h1 h2 h3 h4 h5 h6": _PARAGRAPH | HEADING | _TITLE,
    "p section center details fieldset address hgroup figcaption": _PARAGRAPH,
    "div": _PARAGRAPH | _LINE,
    "summary": _PARAGRAPH | _TITLE,
    "main": _PARAGRAPH | MAIN,
    "article": _PARAGRAPH | ARTICLE,
    "nav aside": _PARAGRAPH | ASIDE,
    "header": _PARAGRAPH | HEADER,
    "footer": _PARAGRAPH | FOOTER,
    "form": _PARAGRAPH | FORM,
    "figure": _PARAGRAPH | FIGURE,
    "blockquote": _PARAGRAPH | QUOTE,
    "pre listing": _PARAGRAPH | PRE,
    "ul dl dir": _PARAGRAPH | LIST,
    "ol": _PARAGRAPH | LIST | _LINE,
    "li": _PARAGRAPH | ITEM | _LISTED | _LINE,
    "dt": _PARAGRAPH | ITEM | _TERM | _TITLE,
    "dd": _PARAGRAPH | ITEM | _TERM,
    "table": _PARAGRAPH | TABLE,
    "tr": BLOCK | ITEM | _ROW,
    "td th caption": BLOCK | ITEM | _SCOPE | _CELL,
    "tbody thead tfoot": BLOCK | ITEM | _ROWS,
    "option optgroup": BLOCK | ITEM | _CHOICE,
    "body html": BLOCK,
    "a": LINK | _FORMAT | _ENDS_OWN_KIND,
    "b big code em i s small strike strong tt u": _FORMAT | _BREAKS_OUT,
    "font": _FORMAT,
    "span sub sup var": _BREAKS_OUT,
    "abbr bdi bdo cite data dfn del ins kbd label mark object q samp time": 0,
}
_ANNOUNCING = """
cookie cookies consent gdpr nav navbar navi navigation menu submenu sidebar breadcrumb breadcrumbs footer
banner share shares sharing sharedaddy social related recommended recommendations newsletter subscribe
subscription promo advert advertisement advertising sponsored sponsor comment comments commentlist disqus
pagination pager popup modal overlay toolbar skip login signup byline tags copyright outbrain taboola teaser
teasers print rating search complementary contentinfo tablist alertdialog dialog widget meta author date
caption footnotes references
"""
"""Words in class names, ids and roles that announce boilerplate."""

LT, GT, SLASH, EQUALS, QUOTE, APOSTROPHE, DASH, BANG, QUESTION, BRACKET, TAB, NEWLINE, RETURN, SPACE = (
    b"<>/=\"'-!?]\t\n\r "
)
_UPPER_A, _UPPER_Z, _LOWER_A, _LOWER_Z, _ZERO, _OPENING = b"AZaz0["
_COMMENT_END = np.frombuffer(b"-->", np.uint8)
_NAME_BYTES = 8
"""Bytes of an element's name that are kept; of longer names the length, too: `<template-view>` is no template."""
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MAX_DEPTH = 512
"""Deeper elements are read, but not distinguished, as in browsers."""
_MAX_WORDS = 1 << 20
"""Words of class names and ids that are kept of a page."""

BR = 7
"""The kind of a block that ends at a line break only; 1 to 6 are headings, 0 is any other element."""
COLUMNS = ("start", "end", "linked", "flags", "kind", "tags", "region", "content", "element", "within")
"""Of a block: its bytes in the text, how many of them are in links, `INHERITED` bits, heading level or BR,
inline tags, the announced element and the content element (0: none) that it stands in, a number for its own
element's name, and the element that it stands in, a row of the elements.
"""
START, END, LINKED, FLAGS, KIND, TAGS, REGION, CONTENT, ELEMENT, WITHIN = range(len(COLUMNS))
ELEMENT_COLUMNS = ("parent", "name", "path", "word")
"""Of an element that may hold text: the element that it stands in (the first is the page itself, and its own
parent), a number for its name (-1: unknown), a hash of the names from the page down to it, and the end of its
words (they begin where those of the element before it end).
"""
PARENT, NAME, PATH, WORDS_END = range(len(ELEMENT_COLUMNS))
_NAME, _KIND, _OWN, _FLAGS, _REGION, _CONTENT, _ELEMENT = range(7)
"""Columns of the stack of open elements: packed name, what it is, what it adds for all within and what it stands in
(both of `_STATE`), announced element, content element, row of the elements.
"""
_BLOCK_WIDTH, _ELEMENT_WIDTH, _STACK_WIDTH = len(COLUMNS), len(ELEMENT_COLUMNS), 7


def _pack(name: bytes) -> int:
    """A name as a number: its first letters, and the length of a long one. It is positive, as the first is ASCII."""
    packed = int.from_bytes(name[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"), "big")
    return packed ^ min(len(name), 127) if len(name) > _NAME_BYTES else packed


(
    _A,
    _P,
    _BR,
    _DIV,
    _SPAN,
    _FORM,
    _BUTTON,
    _DIALOG,
    _TEMPLATE,
    _SCRIPT,
    _STYLE_NAME,
    _BODY_NAME,
    _HTML,
    _PLAINTEXT,
) = (
    _pack(name)
    for name in b"a p br div span form button dialog template script style body html plaintext".split()
)


def word_hash(word: bytes) -> int:
    """FNV-1a of a word in lower case."""
    value = int(_FNV_OFFSET)
    for letter in word:
        value = ((value ^ letter) * int(_FNV_PRIME)) & 0xFFFFFFFFFFFFFFFF
    return value


@cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(element names, packed and sorted; what each is; hashes of announcing words, sorted)."""
    rows = sorted((_pack(name.encode()), kind) for names, kind in _ELEMENTS.items() for name in names.split())
    names = np.array([name for name, _ in rows], np.int64)
    kinds = np.array([kind for _, kind in rows], np.int64)
    announcing = (word_hash(word.encode()) for word in _ANNOUNCING.split())
    return names, kinds, np.array(sorted(announcing), np.uint64)


@cache
def element_number(name: str) -> int:
    """What an element is called in the last column of a block."""
    return int(np.searchsorted(_tables()[0], _pack(name.encode())))


inner = njit(cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # pyrefly: ignore
"""Compiles what only compiled code calls: without the two ways for others to call it, which take as long to compile
as most of these functions.
"""


class Scan(NamedTuple):
    """The text, blocks and elements of a page."""

    text: bytes
    """The visible text in UTF-8, entities untouched."""
    blocks: np.ndarray
    """A row of `COLUMNS` for each block."""
    elements: np.ndarray
    """A row of `ELEMENT_COLUMNS` for each element."""
    words: np.ndarray
    """Hashes (`word_hash`) of the words of the elements' classes and ids."""
    hidden: int
    """About how many bytes of text are left out that `reveal` would show."""


def scan(html: bytes, reveal: bool = False) -> Scan:
    """Read a page, in UTF-8.

    `reveal`: with the text that is hidden until a script shows it, if one ever does, and what stands there for
    readers without scripts.
    """
    text, blocks, elements, words, hidden = _scan(np.frombuffer(html, np.uint8), reveal, *_tables())
    return Scan(text.tobytes(), blocks, elements, words, int(hidden))


@inner
def find(table, value):
    """The index of a value in a sorted table, or -1."""
    low, high = 0, len(table)
    while low < high:
        middle = (low + high) >> 1
        if table[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low if low < len(table) and table[low] == value else -1


@inner
def _lower(byte):
    return byte | 32 if _UPPER_A <= byte <= _UPPER_Z else byte


@inner
def _is_letter(byte):
    return _LOWER_A <= _lower(byte) <= _LOWER_Z


@inner
def _equals(html, start, end, word):
    if end - start != len(word):
        return False
    for offset in range(len(word)):
        if _lower(html[start + offset]) != word[offset]:
            return False
    return True


@inner
def _contains(html, start, end, word):
    """`word` within these bytes, whatever the case; white space in the page does not count."""
    for first in range(start, end):
        position, matched = first, 0
        while position < end and matched < len(word):
            letter = _lower(html[position])
            if letter == word[matched]:
                matched += 1
            elif letter != SPACE:
                break
            position += 1
        if matched == len(word):
            return True
    return False


@inner
def _next(html, position, byte):
    """The position of the next such byte, or the end of the page."""
    while position < len(html) and html[position] != byte:
        position += 1
    return position


@inner
def _collect_words(html, start, end, announcing, words, count):
    """(whether one of the words of a class name, id or role announces something, the number of words then).

    Words are runs of letters, cut at capitals too; their hashes are added to `words`, as many as there is room
    for.
    """
    value, length, announces = _FNV_OFFSET, 0, False
    for position in range(start, end + 1):
        letter = html[position] if position < end else np.uint8(0)
        is_letter = _LOWER_A <= letter <= _LOWER_Z or _UPPER_A <= letter <= _UPPER_Z
        capital = (
            _UPPER_A <= letter <= _UPPER_Z and position > start and _LOWER_A <= html[position - 1] <= _LOWER_Z
        )
        if (not is_letter or capital) and length:
            announces = announces or find(announcing, value) >= 0
            if length > 1 and count < len(words):
                words[count] = value
                count += 1
            value, length = _FNV_OFFSET, 0
        if is_letter:
            value = (value ^ np.uint64(_lower(letter))) * _FNV_PRIME
            length += 1
    return announces, count


_CLASS, _ID, _ROLE, _STYLE, _ITEMPROP, _HIDDEN_NAME, _ARIA, _HREF, _OPEN, _SHADOW, _OLD_SHADOW = (
    np.frombuffer(word, np.uint8)
    for word in (
        *(b"class", b"id", b"role", b"style", b"itemprop", b"hidden", b"aria-hidden"),
        *(b"href", b"open", b"shadowrootmode", b"shadowroot"),
    )
)
_NONE, _INVISIBLE, _TRUE, _MAIN, _BODY, _NAVIGATION, _BANNER, _UNTIL_FOUND, _HEADING_ROLE = (
    np.frombuffer(word, np.uint8)
    for word in (
        b"display:none",
        b"visibility:hidden",
        b"true",
        b"main",
        b"articlebody",
        b"navigation",
        b"banner",
        b"until-found",
        b"heading",
    )
)


_INITIALS = sum(1 << (letter & 31) for letter in b"acihors")
"""Of the attributes that say something, as bits: looking at another one is not worth a call."""


@inner
def _attribute(html, name, name_end, start, end, announcing, words, count):
    """(the bits that follow from an attribute; the number of words after it)."""
    is_role = _equals(html, name, name_end, _ROLE)
    if is_role or _equals(html, name, name_end, _CLASS) or _equals(html, name, name_end, _ID):
        announces, count = _collect_words(html, start, end, announcing, words, count)
        if not is_role:
            return ANNOUNCED if announces else 0, count
        if _equals(html, start, end, _MAIN):
            return MAIN, count
        if _equals(html, start, end, _HEADING_ROLE):
            return _TITLE, count
        nav = _equals(html, start, end, _NAVIGATION) or _equals(html, start, end, _BANNER)
        return ASIDE if announces or nav else 0, count
    if _equals(html, name, name_end, _HREF):
        return _TARGET, count
    return _hidden_or_article(html, name, name_end, start, end), count


@inner
def _hidden_or_article(html, name, name_end, start, end):
    """What hides or shows an element, or makes it an article."""
    if _equals(html, name, name_end, _STYLE):
        hidden = _contains(html, start, end, _NONE) or _contains(html, start, end, _INVISIBLE)
        return HIDDEN if hidden else 0
    if _equals(html, name, name_end, _ITEMPROP):
        return ARTICLE if _equals(html, start, end, _BODY) else 0
    if _equals(html, name, name_end, _HIDDEN_NAME):
        return 0 if _equals(html, start, end, _UNTIL_FOUND) else HIDDEN
    if (
        _equals(html, name, name_end, _OPEN)
        or _equals(html, name, name_end, _SHADOW)
        or _equals(html, name, name_end, _OLD_SHADOW)
    ):
        return _SHOWN
    if _equals(html, name, name_end, _ARIA):
        return HIDDEN if _equals(html, start, end, _TRUE) else 0
    return 0


@inner
def _copy_text(html, position, text, written, blank, keep_lines):
    """Copy text up to the next tag, white space single: a line break if there is one in it, otherwise a blank.
    (position, bytes written, whether the last is blank).
    """
    while position < len(html) and html[position] != LT:
        byte = html[position]
        position += 1
        if byte <= SPACE:
            if keep_lines:
                if byte == RETURN and (position >= len(html) or html[position] != NEWLINE):
                    byte = np.uint8(NEWLINE)
                elif byte != NEWLINE and byte != TAB:
                    byte = np.uint8(SPACE)
            elif blank:
                if byte == NEWLINE and written and text[written - 1] == SPACE:
                    text[written - 1] = NEWLINE
                continue
            elif byte != NEWLINE:
                byte = np.uint8(SPACE)
            blank = True
        else:
            blank = False
        text[written] = byte
        written += 1
    return position, written, blank


@inner
def _after_declaration(html, position, foreign):
    """The position behind <!-- -->, <!doctype>, <?xml ?> or, in SVG and MathML, <![CDATA[ ]]>."""
    size = len(html)
    comment = position + 3 < size and html[position + 2] == DASH and html[position + 3] == DASH
    if not comment and not (foreign and position + 2 < size and html[position + 2] == _OPENING):
        return _next(html, position, GT) + 1
    mark = DASH if comment else BRACKET
    position += 4
    while position < size:
        if html[position] == GT:
            if html[position - 1] == mark and html[position - 2] == mark:  # and so ends <!--> and <!--->
                break
            if (
                comment
                and html[position - 1] == BANG
                and html[position - 2] == DASH
                and html[position - 3] == DASH
            ):
                break  # --!>, but not <!--!>, whose dashes open it
        position += 1
    return position + 1


@inner
def _tag_name(html, position):
    """(the packed name of the tag that begins here, the position behind it)."""
    name, length = 0, 0
    while (
        position < len(html) and html[position] > SPACE and html[position] != GT and html[position] != SLASH
    ):
        if length < _NAME_BYTES:
            name = (name << 8) | np.int64(_lower(html[position]))
        length += 1
        position += 1
    for _ in range(length, _NAME_BYTES):
        name <<= 8
    return name ^ min(length, 127) if length > _NAME_BYTES else name, position


@inner
def _read_attribute(html, position):
    """(start and end of an attribute's name, start and end of its value, the position behind it).

    The name is empty for a lone "=".
    """
    size = len(html)
    name = position
    while (
        position < size
        and html[position] > SPACE
        and html[position] != EQUALS
        and html[position] != GT
        and html[position] != SLASH
    ):
        position += 1
    name_end = position
    if name_end == name:
        return name, name_end, name, name, position + 1
    while position < size and html[position] <= SPACE:
        position += 1
    if position >= size or html[position] != EQUALS:
        return name, name_end, position, position, position
    position += 1
    while position < size and html[position] <= SPACE:
        position += 1
    if position < size and (html[position] == QUOTE or html[position] == APOSTROPHE):
        value_end = _next(html, position + 1, np.int64(html[position]))
        if value_end < size:
            return name, name_end, position + 1, value_end, value_end + 1
        # the page has no such quote any more: without it, the value ends as one without quotes
    value = position
    while position < size and html[position] > SPACE and html[position] != GT:
        position += 1
    return name, name_end, value, position, position


@inner
def _raw_end(html, position, name, empty):
    """The position of the end tag of an element that holds text without tags, or of the page's end.

    -1 if the element may be `empty`, and another one begins or the page ends before it.
    """
    size = len(html)
    # in a script: where <!-- stands, and <script> within it, which has an end of its own
    comment = inner = np.int64(-1)
    while True:
        position = _next(html, position, LT)
        if position + 2 >= size:
            return -1 if empty else size
        closing = html[position + 1] == SLASH
        if closing or _is_letter(html[position + 1]):
            other, _ = _tag_name(html, position + 1 + closing)
            if other == name and closing:
                if inner < 0 or _contains(html, inner, position, _COMMENT_END):
                    return position
                inner = np.int64(-1)
            elif other == name and empty:
                return -1
            elif other == name and comment >= 0 and inner < 0:
                ended = _contains(html, comment, position, _COMMENT_END)
                comment, inner = (-1, -1) if ended else (position, position)
        elif name == _SCRIPT and html[position + 1] == BANG and html[position + 2] == DASH:
            comment = position
        position += 1


@inner
def _heading_level(name):
    """1 to 6, from a packed h1 to h6."""
    return ((name >> 48) & 0xFF) - _ZERO


@inner
def _close_nearest(stack, depth, name, barrier):
    """The depth without the nearest open element of this name and all within it, unless an element of the kinds
    `barrier` stands between.
    """
    level = depth
    while level and stack[level, _NAME] != name:
        if stack[level, _KIND] & barrier:
            return depth
        level -= 1
    return level - 1 if level else depth


@inner
def _close_outermost(stack, depth, kinds, barrier):
    """The depth without the outermost open element of these kinds within the nearest one of `barrier`."""
    level, closed = depth, depth
    while level and not stack[level, _KIND] & barrier:
        if stack[level, _KIND] & kinds:
            closed = level - 1
        level -= 1
    return closed


@inner
def _remove(stack, depth, level):
    """The depth without the element at a level alone: those within it stay open, but are no longer in it."""
    for upper in range(level, depth):
        for column in range(_STACK_WIDTH):
            stack[upper, column] = stack[upper + 1, column]
        stack[upper, _FLAGS] = stack[upper - 1, _FLAGS] | stack[upper, _OWN]
    return depth - 1


@inner
def _close_text_level(stack, depth, name):
    """The depth without the nearest open element of this name, which may overlap with blocks: they stay open."""
    level, overlaps = depth, False
    while level and stack[level, _NAME] != name:
        if stack[level, _KIND] & _SCOPE:
            return depth
        overlaps = overlaps or (stack[level, _KIND] & BLOCK) > 0
        level -= 1
    if not level:
        return depth
    return _remove(stack, depth, level) if overlaps else level - 1


@inner
def _close_implied(stack, depth, kind, name):
    """The depth without the open elements that a start tag ends."""
    leaves = (_FOREIGN if kind & (BLOCK | _BREAKS_OUT) else 0) | (
        _LABEL if kind & CLOSES_P and name != _DIV and name != _SPAN else 0
    )
    while depth and stack[depth, _FLAGS] & leaves:
        depth -= 1
    if kind & CLOSES_P and depth:
        level = depth
        while level and not stack[level, _KIND] & (BLOCK | _SCOPE | _INTEGRATION):
            level -= 1
        if level and stack[level, _NAME] == _P:  # what overlaps with the paragraph goes on behind it
            depth = _remove(stack, depth, level)
    if kind & HEADING and stack[depth, _KIND] & HEADING:
        depth -= 1
    if kind & ITEM:  # <li> ends an open <li>, <tr> an open <tr> and its cells, but not across a list or table
        ends = kind & _ITEMS
        if kind & (_ROW | _ROWS):
            ends |= _CELL | _ROW
        barrier = TABLE if kind & (_CELL | _ROW | _ROWS) else LIST | TABLE
        depth = _close_outermost(stack, depth, ends, barrier)
    if name == _A:  # links do not nest
        depth = _close_text_level(stack, depth, name)
    if name == _BUTTON:
        depth = _close_nearest(stack, depth, name, TABLE | _SCOPE)
    return depth


@inner
def _close(stack, depth, kind, name):
    """The depth behind an end tag."""
    if kind & _FOREIGN:
        return _close_nearest(stack, depth, name, np.int64(0))
    if kind & _FORMAT or name == _FORM:
        return _close_text_level(stack, depth, name)
    if kind & HEADING:  # any end tag of a heading ends it
        level = depth
        while level and not stack[level, _KIND] & (HEADING | _SCOPE):
            level -= 1
        return level - 1 if stack[level, _KIND] & HEADING else depth
    barrier = _SCOPE | _INTEGRATION
    if kind & (TABLE | _CELL | _ROW | _ROWS):
        barrier = TABLE
    elif kind & _LISTED:
        barrier |= LIST
    elif not kind & (BLOCK | NEVER | _OPTIONAL | _INTEGRATION):  # other text-level elements do not overlap
        barrier |= BLOCK
    return _close_nearest(stack, depth, name, barrier)


@inner
def _with_room(rows, count):
    """The rows, with room for one more behind the first `count`."""
    if count < len(rows):
        return rows
    width = rows.shape[1]
    grown = np.empty((2 * count, width), np.int64)
    for row in range(count):  # a loop is compiled in a tenth of the time of grown[:count] = rows
        for column in range(width):
            grown[row, column] = rows[row, column]
    return grown


@inner
def _describe_block(block, stack, depth, names):
    """Write what a block stands in."""
    owner = depth
    while owner and not stack[owner, _KIND] & BLOCK:
        owner -= 1
    block[ELEMENT] = find(names, stack[owner, _NAME]) if owner else -1
    block[FLAGS], block[WITHIN] = stack[depth, _FLAGS] & _INHERITED_MASK, stack[depth, _ELEMENT]
    block[REGION], block[CONTENT] = stack[depth, _REGION], stack[depth, _CONTENT]


@inner
def _own_state(kind, extra, name, shown, reveal):
    """What an element adds for all within it (`_STATE`)."""
    own = (kind | extra) & _STATE
    if kind & LINK and not extra & _TARGET:  # it is only an anchor
        own &= ~LINK
    if reveal or name == _BODY_NAME or name == _HTML:  # a hidden page is shown by a script
        own &= ~HIDDEN
    if kind & _OPTIONAL and not (shown or reveal):
        own |= HIDDEN
    if kind & NEVER:
        own |= HIDDEN
    return own


@njit(cache=True)
def _scan(html, reveal, names, kinds, announcing):  # one state machine, kept in one loop for its speed
    size = len(html)
    text = np.empty(size + 1, np.uint8)
    blocks = np.empty((1024, _BLOCK_WIDTH), np.int64)
    elements = np.zeros((1024, _ELEMENT_WIDTH), np.int64)
    # a word is two letters and what parts it from the next, at least
    words = np.empty(min(size // 3, _MAX_WORDS) + 1, np.uint64)
    stack = np.zeros((_MAX_DEPTH, _STACK_WIDTH), np.int64)  # stack[0] is the page itself
    zero = np.int64(0)  # a literal would be a type of its own, for which functions are compiled once more
    element_count = np.int64(1)
    elements[0, NAME] = -1
    words_kept = words_seen = zero
    hidden = 0
    depth = zero
    written = count = linked = tags = start = zero
    heading = regions = contents = zero
    link = link_block = zero  # the depth of the open link, and the block that it began in
    label = label_end = zero  # the depth of a button that is shown, and where its text ended
    literal_end = zero  # all before it is text
    blank = np.bool_(True)
    position = zero
    while position < size:
        flags = stack[depth, _FLAGS]
        if html[position] != LT:
            before = position
            if flags & HIDDEN:
                position = _next(html, position, LT)
                if not flags & NEVER:
                    hidden += position - before
                continue
            before = written
            position, written, blank = _copy_text(html, position, text, written, blank, flags & PRE)
            if flags & LINK:
                linked += written - before
            continue
        following = html[position + 1] if position + 1 < size else np.uint8(0)
        closing = following == SLASH
        after = position + 2 if closing else position + 1
        if position < literal_end or after >= size or not _is_letter(html[after]):
            if position >= literal_end and (following == BANG or following == QUESTION):
                position = _after_declaration(html, position, flags & _FOREIGN)
            elif position >= literal_end and closing:
                position = _next(html, after, GT) + 1
            else:  # a literal "<"
                position += 1
                if not flags & HIDDEN:
                    text[written] = LT
                    written += 1
                    blank = False
            continue
        name, position = _tag_name(html, after)
        number = find(names, name)
        kind = kinds[number] if number >= 0 else 0
        extra, words_seen, slash = 0, words_kept, False
        while position < size and html[position] != GT:
            if html[position] <= SPACE or html[position] == SLASH:
                slash = html[position] == SLASH
                position += 1
                continue
            slash = False
            key, key_end, value, value_end, position = _read_attribute(html, position)
            if key_end > key and not closing and _INITIALS >> (np.int64(html[key]) & 31) & 1:
                bits, words_seen = _attribute(
                    html, key, key_end, value, value_end, announcing, words, words_seen
                )
                extra |= bits
        position += 1

        is_break = kind & VOID and name == _BR
        if flags & PRE and (is_break or kind & _LINE):  # a line of code
            inside = _close(stack, depth, kind, name) if closing and not is_break else depth
            if stack[inside, _FLAGS] & PRE:
                if not flags & HIDDEN and written > start and (is_break or text[written - 1] != NEWLINE):
                    text[written] = NEWLINE
                    written += 1
                kind &= ~BLOCK
                is_break = False
        if kind & BLOCK or is_break:  # a block ends here
            if written > start:
                blocks = _with_room(blocks, count)
                blocks[count, START], blocks[count, END] = start, written
                blocks[count, LINKED], blocks[count, TAGS] = linked, tags
                blocks[count, KIND] = heading if heading else (BR if is_break else 0)
                _describe_block(blocks[count], stack, depth, names)
                if label_end > start:
                    _part_from_label(blocks[count], label_end, blank)
                count += 1
            start, linked, tags, blank = written, 0, 0, True
            heading = 0
        else:
            tags += 1
        if kind & (_CELL | _ROW | _ROWS) and not flags & TABLE:  # parts of no table
            continue
        if kind & VOID:
            if kind & (BLOCK | _BREAKS_OUT) and flags & (_FOREIGN | _LABEL):
                depth = _close_implied(stack, depth, kind, name)
            continue
        if (
            closing and depth and stack[depth, _NAME] == name
        ):  # the rule; a call costs more than the rest of a tag
            depth -= 1
        elif closing:
            depth = _close(stack, depth, kind, name)
        elif kind & RAW and not flags & _FOREIGN:
            empty = slash or not (name == _SCRIPT or name == _STYLE_NAME)
            end = _raw_end(html, position, name, empty)
            if end >= 0:
                position = _next(html, end, GT) + 1
            continue
        elif slash and not kind & BLOCK:
            continue
        elif kind & (CLOSES_P | ITEM | _ENDS_OWN_KIND) or flags & (_FOREIGN | _LABEL):
            depth = _close_implied(stack, depth, kind, name)
        if link and (depth < link or not stack[link, _OWN] & LINK):
            if link - 1 <= depth and stack[link - 1, _OWN] & LINK:  # the paragraph around it has ended
                link -= 1
            else:
                if count > link_block and not (closing and name == _A):
                    _end_link(blocks, link_block + 1, count)
                    linked = 0
                link = 0
        if depth < label:
            label, label_end = 0, written
        if closing:
            if stack[depth, _FLAGS] & HEADING:  # a heading may go on behind an element inside
                for level in range(depth, 0, -1):
                    if stack[level, _KIND] & HEADING:
                        heading = _heading_level(stack[level, _NAME])
            continue

        shown = extra & _SHOWN and (name == _DIALOG or name == _TEMPLATE)
        if name == _BUTTON and stack[depth, _FLAGS] & _TITLE and written == start:
            shown = True
            label = depth + 1
        own = _own_state(kind, extra, name, shown, reveal)
        if slash:  # it is closed, or meant to be
            kind, own, extra, words_seen = kind & BLOCK, 0, 0, words_kept
        flags = stack[depth, _FLAGS] | own
        if kind & _INTEGRATION and flags & _FOREIGN:
            flags &= ~_FOREIGN
        region, content = stack[depth, _REGION], stack[depth, _CONTENT]
        if (kind | extra) & (ANNOUNCED | HEADER | FOOTER | ASIDE) and not region:
            regions += 1
            region = regions
        if (kind | extra) & (ARTICLE | MAIN) and not content:
            contents += 1
            content = contents
        if depth + 1 < _MAX_DEPTH:
            depth += 1
        stack[depth, _NAME], stack[depth, _KIND] = name, kind
        stack[depth, _OWN], stack[depth, _FLAGS] = own, flags
        stack[depth, _REGION], stack[depth, _CONTENT] = region, content
        stack[depth, _ELEMENT] = stack[depth - 1, _ELEMENT]
        if own & LINK:
            link, link_block = depth, count
        if not flags & HIDDEN:
            elements = _with_room(elements, element_count)
            words_kept = words_seen
            parent = stack[depth, _ELEMENT]
            elements[element_count, PARENT], elements[element_count, NAME] = parent, number
            elements[element_count, PATH] = (elements[parent, PATH] * 1_000_003) ^ (number + 2)
            elements[element_count, WORDS_END] = words_kept
            stack[depth, _ELEMENT] = element_count
            element_count += 1
        if kind & HEADING:
            heading = _heading_level(name)
        if kind & _LITERAL:
            literal_end = size if name == _PLAINTEXT else _raw_end(html, position, name, np.bool_(False))
    if link and count > link_block:
        _end_link(blocks, link_block + 1, count)
        linked = 0
    if written > start:
        blocks = _with_room(blocks, count)
        blocks[count, START], blocks[count, END] = start, written
        blocks[count, LINKED], blocks[count, TAGS], blocks[count, KIND] = linked, tags, 0
        _describe_block(blocks[count], stack, depth, names)
        if link and count > link_block:
            blocks[count, FLAGS] &= ~LINK
        blocks[count, ELEMENT] = -1  # the page ended, no element did
        count += 1
    return (
        text[:written].copy(),
        blocks[:count].copy(),
        elements[:element_count].copy(),
        words[:words_kept].copy(),
        hidden,
    )


@inner
def _end_link(blocks, first, count):
    """No block from `first` on was in the link: it has no end tag, and nobody links paragraphs by accident."""
    for row in range(first, count):
        blocks[row, LINKED] = 0
        blocks[row, FLAGS] &= ~LINK


@inner
def _part_from_label(block, label_end, blank):
    """Of a title that begins with a button: the button or what follows it, whichever is longer."""
    rest = block[END] - label_end
    if rest <= blank:
        return
    if rest > label_end - block[START]:
        block[START] = label_end
    else:
        block[END] = label_end
    block[LINKED] = min(block[LINKED], block[END] - block[START])
