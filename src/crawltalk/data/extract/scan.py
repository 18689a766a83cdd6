"""One pass over a page's bytes: runs of text between block-level tags, each with what is known from the elements
around it.

No tree is built. The classifier needs only a stack of open elements, closed as leniently as browsers do
(Kohlschütter et al. 2010 work on the same flat sequence). This costs a fraction of a tree, and it cannot hang:
every step moves forward in the page.
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
_PARAGRAPH = BLOCK | CLOSES_P

_ELEMENTS = {
    "area base basefont br col embed frame hr img input link meta param source track wbr": VOID,
    "script style xmp textarea title": RAW | NEVER,
    "head noscript template svg math button select iframe object canvas audio video map dialog menu datalist": NEVER,
    "h1 h2 h3 h4 h5 h6": _PARAGRAPH | HEADING,
    "p div section center details summary fieldset address hgroup figcaption": _PARAGRAPH,
    "main": _PARAGRAPH | MAIN,
    "article": _PARAGRAPH | ARTICLE,
    "nav aside": _PARAGRAPH | ASIDE,
    "header": _PARAGRAPH | HEADER,
    "footer": _PARAGRAPH | FOOTER,
    "form": _PARAGRAPH | FORM,
    "figure": _PARAGRAPH | FIGURE,
    "blockquote": _PARAGRAPH | QUOTE,
    "pre": _PARAGRAPH | PRE,
    "ul ol dl dir": _PARAGRAPH | LIST,
    "li dt dd": _PARAGRAPH | ITEM,
    "table": _PARAGRAPH | TABLE,
    "tr td th caption tbody thead tfoot": BLOCK | ITEM,
    "option optgroup": BLOCK | ITEM | NEVER,
    "body html": BLOCK,
    "a": LINK,
    "abbr b bdi bdo big cite code data dfn del em font i ins kbd label mark q s samp small span strike strong "
    "sub sup time tt u var": 0,
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

LT, GT, SLASH, EQUALS, QUOTE, APOSTROPHE, DASH, BANG, QUESTION, NEWLINE, SPACE = b"<>/=\"'-!?\n "
_UPPER_A, _UPPER_Z, _LOWER_A, _LOWER_Z, _ZERO = b"AZaz0"
_NAME_BYTES = 8
"""Bytes of an element's name that are kept: enough to distinguish HTML's elements."""
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
_NAME, _KIND, _FLAGS, _REGION, _CONTENT, _ELEMENT = range(6)
"""Columns of the stack of open elements: packed name, what it is, what it stands in, announced element, content
element, row of the elements.
"""
_BLOCK_WIDTH, _ELEMENT_WIDTH, _STACK_WIDTH = len(COLUMNS), len(ELEMENT_COLUMNS), 6


def _pack(name: bytes) -> int:
    """The first letters of a name as a number, which is positive since the first one is ASCII."""
    return int.from_bytes(name[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"), "big")


_P, _HEAD, _BR = (_pack(name) for name in (b"p", b"head", b"br"))


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


def scan(html: bytes) -> Scan:
    """Read a page, in UTF-8."""
    text, *arrays = _scan(np.frombuffer(html, np.uint8), *_tables())
    return Scan(text.tobytes(), *arrays)


@njit(cache=True)
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


@njit(cache=True)
def _lower(byte):
    return byte | 32 if _UPPER_A <= byte <= _UPPER_Z else byte


@njit(cache=True)
def _is_letter(byte):
    return _LOWER_A <= _lower(byte) <= _LOWER_Z


@njit(cache=True)
def _equals(html, start, end, word):
    if end - start != len(word):
        return False
    for offset in range(len(word)):
        if _lower(html[start + offset]) != word[offset]:
            return False
    return True


@njit(cache=True)
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


@njit(cache=True)
def _next(html, position, byte):
    """The position of the next such byte, or the end of the page."""
    while position < len(html) and html[position] != byte:
        position += 1
    return position


@njit(cache=True)
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


_CLASS, _ID, _ROLE, _STYLE, _ITEMPROP, _HIDDEN_NAME, _ARIA = (
    np.frombuffer(word, np.uint8)
    for word in (b"class", b"id", b"role", b"style", b"itemprop", b"hidden", b"aria-hidden")
)
_NONE, _INVISIBLE, _TRUE, _MAIN, _BODY, _NAVIGATION, _BANNER = (
    np.frombuffer(word, np.uint8)
    for word in (
        b"display:none",
        b"visibility:hidden",
        b"true",
        b"main",
        b"articlebody",
        b"navigation",
        b"banner",
    )
)


@njit(cache=True)
def _attribute(html, name, name_end, start, end, announcing, words, count):
    """(the inherited bits that follow from an attribute; the number of words after it)."""
    is_role = _equals(html, name, name_end, _ROLE)
    if is_role or _equals(html, name, name_end, _CLASS) or _equals(html, name, name_end, _ID):
        announces, count = _collect_words(html, start, end, announcing, words, count)
        if not is_role:
            return ANNOUNCED if announces else 0, count
        if _equals(html, start, end, _MAIN):
            return MAIN, count
        nav = _equals(html, start, end, _NAVIGATION) or _equals(html, start, end, _BANNER)
        return ASIDE if announces or nav else 0, count
    return _hidden_or_article(html, name, name_end, start, end), count


@njit(cache=True)
def _hidden_or_article(html, name, name_end, start, end):
    """What hides an element, or makes it an article."""
    if _equals(html, name, name_end, _STYLE):
        hidden = _contains(html, start, end, _NONE) or _contains(html, start, end, _INVISIBLE)
        return HIDDEN if hidden else 0
    if _equals(html, name, name_end, _ITEMPROP):
        return ARTICLE if _equals(html, start, end, _BODY) else 0
    if _equals(html, name, name_end, _HIDDEN_NAME):
        return HIDDEN
    if _equals(html, name, name_end, _ARIA):
        return HIDDEN if _equals(html, start, end, _TRUE) else 0
    return 0


@njit(cache=True)
def _copy_text(html, position, text, written, blank, keep_lines):
    """Copy text up to the next tag, white space single. (position, bytes written, whether the last is blank)."""
    while position < len(html) and html[position] != LT:
        byte = html[position]
        position += 1
        if byte <= SPACE:
            byte = np.uint8(NEWLINE) if keep_lines and byte == NEWLINE else np.uint8(SPACE)
            if blank and byte == SPACE and not keep_lines:
                continue
            blank = True
        else:
            blank = False
        text[written] = byte
        written += 1
    return position, written, blank


@njit(cache=True)
def _after_declaration(html, position):
    """The position behind <!-- -->, <!doctype> or <?xml ?>."""
    if position + 3 >= len(html) or html[position + 2] != DASH or html[position + 3] != DASH:
        return _next(html, position, GT) + 1
    position += 4
    while position < len(html) and not (
        html[position] == GT and html[position - 1] == DASH and html[position - 2] == DASH
    ):
        position += 1
    return position + 1


@njit(cache=True)
def _padded(name, length):
    for _ in range(length, _NAME_BYTES):
        name <<= 8
    return name


@njit(cache=True)
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
    return _padded(name, length), position


@njit(cache=True)
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
        return name, name_end, position + 1, value_end, value_end + 1
    value = position
    while position < size and html[position] > SPACE and html[position] != GT:
        position += 1
    return name, name_end, value, position, position


@njit(cache=True)
def _after_raw_text(html, position, name):
    """The position behind the end tag of an element that holds text without tags."""
    size = len(html)
    while position < size:
        if html[position] == LT and position + 2 < size and html[position + 1] == SLASH:
            other, length = 0, 0
            while (
                length < _NAME_BYTES
                and position + 2 + length < size
                and _is_letter(html[position + 2 + length])
            ):
                other = (other << 8) | np.int64(_lower(html[position + 2 + length]))
                length += 1
            if _padded(other, length) == name:
                break
        position += 1
    return _next(html, position, GT) + 1


@njit(cache=True)
def _heading_level(name):
    """1 to 6, from a packed h1 to h6."""
    return ((name >> 48) & 0xFF) - _ZERO


@njit(cache=True)
def _close_nearest(stack, depth, name, barrier):
    """The depth without the nearest open element of this name and all within it, unless an element of the kinds
    `barrier` stands between.
    """
    level = depth
    while level and not stack[level, _KIND] & barrier:
        if stack[level, _NAME] == name:
            return level - 1
        level -= 1
    return depth


@njit(cache=True)
def _close_implied(stack, depth, kind, name):
    """The depth without the open elements that a start tag ends."""
    if kind & CLOSES_P and depth and stack[depth, _NAME] == _P:
        depth -= 1
    if kind & BLOCK and depth and stack[depth, _NAME] == _HEAD:  # <head> without its end
        depth -= 1
    if kind & ITEM:  # <li> ends an open <li>, <td> an open <td>, but not across a list or table
        depth = _close_nearest(stack, depth, name, LIST | TABLE)
    if kind & LINK:  # links do not nest
        depth = _close_nearest(stack, depth, name, BLOCK)
    return depth


@njit(cache=True)
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


@njit(cache=True)
def _describe_block(block, stack, depth, names):
    """Write what a block stands in."""
    owner = depth
    while owner and not stack[owner, _KIND] & BLOCK:
        owner -= 1
    block[ELEMENT] = find(names, stack[owner, _NAME]) if owner else -1
    block[FLAGS], block[WITHIN] = stack[depth, _FLAGS], stack[depth, _ELEMENT]
    block[REGION], block[CONTENT] = stack[depth, _REGION], stack[depth, _CONTENT]


@njit(cache=True)
def _scan(html, names, kinds, announcing):  # one state machine, kept in one loop for its speed
    size = len(html)
    text = np.empty(size + 1, np.uint8)
    blocks = np.empty((1024, _BLOCK_WIDTH), np.int64)
    elements = np.zeros((1024, _ELEMENT_WIDTH), np.int64)
    # a word is two letters and what parts it from the next, at least
    words = np.empty(min(size // 3, _MAX_WORDS) + 1, np.uint64)
    stack = np.zeros((_MAX_DEPTH, _STACK_WIDTH), np.int64)  # stack[0] is the page itself
    element_count = 1
    elements[0, NAME] = -1
    words_kept = words_seen = 0
    depth = 0
    written = count = linked = tags = start = 0
    heading = regions = contents = 0
    blank = True
    position = 0
    while position < size:
        if html[position] != LT:
            if stack[depth, _FLAGS] & HIDDEN:
                position = _next(html, position, LT)
                continue
            before = written
            keep_lines = stack[depth, _FLAGS] & PRE
            position, written, blank = _copy_text(html, position, text, written, blank, keep_lines)
            if stack[depth, _FLAGS] & LINK:
                linked += written - before
            continue
        following = html[position + 1] if position + 1 < size else np.uint8(0)
        if following == BANG or following == QUESTION:
            position = _after_declaration(html, position)
            continue
        closing = following == SLASH
        position += 2 if closing else 1
        if position >= size or not _is_letter(html[position]):
            if closing:
                position = _next(html, position, GT) + 1
            elif not stack[depth, _FLAGS] & HIDDEN:  # a literal "<"
                text[written] = LT
                written += 1
                blank = False
            continue
        name, position = _tag_name(html, position)
        number = find(names, name)
        kind = kinds[number] if number >= 0 else 0
        extra, words_seen = 0, words_kept
        while position < size and html[position] != GT:
            if html[position] <= SPACE or html[position] == SLASH:
                position += 1
                continue
            key, key_end, value, value_end, position = _read_attribute(html, position)
            if key_end > key and not closing:
                bits, words_seen = _attribute(
                    html, key, key_end, value, value_end, announcing, words, words_seen
                )
                extra |= bits
        self_closing = html[min(position, size) - 1] == SLASH
        position += 1

        is_break = kind & VOID and name == _BR
        if kind & BLOCK or is_break:  # a block ends here
            if written > start:
                blocks = _with_room(blocks, count)
                blocks[count, START], blocks[count, END] = start, written
                blocks[count, LINKED], blocks[count, TAGS] = linked, tags
                blocks[count, KIND] = heading if heading else (BR if is_break else 0)
                _describe_block(blocks[count], stack, depth, names)
                count += 1
            start, linked, tags, blank = written, 0, 0, True
            heading = 0
        else:
            tags += 1
        if kind & VOID:
            continue
        if closing:
            depth = _close_nearest(stack, depth, name, 0)
            for level in range(depth, 0, -1):  # a heading may go on behind an element inside
                if stack[level, _KIND] & HEADING:
                    heading = _heading_level(stack[level, _NAME])
            continue
        if self_closing and not kind & (BLOCK | NEVER | LINK):
            continue
        depth = _close_implied(stack, depth, kind, name)
        if kind & RAW:
            position = _after_raw_text(html, position, name)
            continue

        flags = stack[depth, _FLAGS] | ((kind | extra) & _INHERITED_MASK)
        if kind & NEVER:
            flags |= HIDDEN
        region, content = stack[depth, _REGION], stack[depth, _CONTENT]
        if (kind | extra) & (ANNOUNCED | HEADER | FOOTER | ASIDE) and not region:
            regions += 1
            region = regions
        if (kind | extra) & (ARTICLE | MAIN) and not content:
            contents += 1
            content = contents
        if depth + 1 < _MAX_DEPTH:
            depth += 1
        stack[depth, _NAME], stack[depth, _KIND], stack[depth, _FLAGS] = name, kind, flags
        stack[depth, _REGION], stack[depth, _CONTENT] = region, content
        if not flags & HIDDEN:
            elements = _with_room(elements, element_count)
            words_kept = words_seen
            parent = stack[depth - 1, _ELEMENT]
            elements[element_count, PARENT], elements[element_count, NAME] = parent, number
            elements[element_count, PATH] = (elements[parent, PATH] * 1_000_003) ^ (number + 2)
            elements[element_count, WORDS_END] = words_kept
            stack[depth, _ELEMENT] = element_count
            element_count += 1
        if kind & HEADING:
            heading = _heading_level(name)
    if written > start:
        blocks = _with_room(blocks, count)
        blocks[count, START], blocks[count, END] = start, written
        blocks[count, LINKED], blocks[count, TAGS], blocks[count, KIND] = linked, tags, 0
        _describe_block(blocks[count], stack, depth, names)
        blocks[count, ELEMENT] = -1  # the page ended, no element did
        count += 1
    return (
        text[:written].copy(),
        blocks[:count].copy(),
        elements[:element_count].copy(),
        words[:words_kept].copy(),
    )
