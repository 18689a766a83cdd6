"""One pass over a page's bytes: runs of text between block-level tags, each with what its surroundings say
about it.

No tree is built. A stack of open elements, closed as leniently as browsers do, is all that the classifier
needs (Kohlschütter et al. 2010 work on the same flat sequence), it costs a fraction of a tree, and it cannot
hang: every step goes forward in the page.
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
    "abbr b bdi bdo big cite code data dfn del em font i ins kbd label mark q s samp small span strike strong sub sup time tt "
    "u var": 0,
}
_NAMES = """
cookie cookies consent gdpr nav navbar navi navigation menu submenu sidebar breadcrumb breadcrumbs footer banner share shares
sharing sharedaddy social related recommended recommendations newsletter subscribe subscription promo advert advertisement
advertising sponsored sponsor comment comments commentlist disqus pagination pager popup modal overlay toolbar skip login signup
byline tags copyright outbrain taboola teaser teasers print rating search complementary contentinfo tablist alertdialog dialog
widget meta author date caption footnotes references
"""
"""Words in class names, ids and roles that announce something else than content."""

BR = 7
"""The kind of a block that ends at a line break only; 1 to 6 are headings, 0 is any other element."""
COLUMNS = ("start", "end", "linked", "flags", "kind", "tags", "region", "content", "element", "within")
"""Of a block: its bytes in the text, how many of them are in links, `INHERITED` bits, heading level or BR,
inline tags, the announced element and the content element (0: none) that it stands in, a number for its own
element's name, and the element that it stands in, a row of the elements.
"""
ELEMENT_COLUMNS = ("parent", "name", "path", "word")
"""Of an element that may hold text: the element that it stands in (the first is the page itself, and its own
parent), a number for its name (-1: unknown), a hash of the names from the page down to it, and the end of its
words (they begin where those of the element before it end).
"""


def _pack(name: bytes) -> int:
    """The first eight letters as a number: enough to tell HTML's elements apart."""
    return int.from_bytes(name[:8].ljust(8, b"\0"), "big")


def word_hash(word: bytes) -> int:
    """FNV-1a of a word in lower case."""
    value = 0xCBF29CE484222325
    for letter in word:
        value = ((value ^ letter) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


@cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(element names, packed and sorted; what each is; hashes of announcing words, sorted)."""
    found = sorted(
        (_pack(name.encode()), kind) for names, kind in _ELEMENTS.items() for name in names.split()
    )
    names = np.array([name for name, _ in found], np.uint64)
    kinds = np.array([kind for _, kind in found], np.int64)
    return names, kinds, np.array(sorted(word_hash(word.encode()) for word in _NAMES.split()), np.uint64)


@cache
def element_number(name: str) -> int:
    """What an element is called in the last column of a block."""
    return int(np.searchsorted(_tables()[0], np.uint64(_pack(name.encode()))))


class Scan(NamedTuple):
    """What a page holds."""

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
    text, *found = _scan(np.frombuffer(html, np.uint8), *_tables())
    return Scan(text.tobytes(), *found)


@njit(cache=True)
def find(table, value):
    """Where a value stands in a sorted table, or -1."""
    low, high = 0, len(table)
    while low < high:
        middle = (low + high) >> 1
        if table[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low if low < len(table) and table[low] == value else -1


@njit(cache=True)
def _letter(byte):
    """Lower case, for A to Z."""
    return byte | 32 if 65 <= byte <= 90 else byte


@njit(cache=True)
def _equals(html, start, end, word):
    if end - start != len(word):
        return False
    for place in range(len(word)):
        if _letter(html[start + place]) != word[place]:
            return False
    return True


@njit(cache=True)
def _contains(html, start, end, word):
    """`word` within these bytes, whatever the case; white space in the page does not count."""
    for first in range(start, end):
        place, matched = first, 0
        while place < end and matched < len(word):
            letter = _letter(html[place])
            if letter == word[matched]:
                matched += 1
            elif letter != 32:
                break
            place += 1
        if matched == len(word):
            return True
    return False


@njit(cache=True)
def _announces(html, start, end, words, said, count):
    """(whether one of the words of a class name, id or role is in the table, how many words are said now).

    Words are runs of letters, cut at capitals too; they are added to `said`, as many as there is room for.
    """
    value, length, found = np.uint64(0xCBF29CE484222325), 0, False
    for place in range(start, end + 1):
        letter = html[place] if place < end else np.uint8(0)
        is_letter = 97 <= letter <= 122 or 65 <= letter <= 90
        capital = 65 <= letter <= 90 and place > start and 97 <= html[place - 1] <= 122
        if (not is_letter or capital) and length:
            found = found or find(words, value) >= 0
            if length > 1 and count < len(said):
                said[count] = value
                count += 1
            value, length = np.uint64(0xCBF29CE484222325), 0
        if is_letter:
            value = (value ^ np.uint64(_letter(letter))) * np.uint64(0x100000001B3)
            length += 1
    return found, count


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
def _attribute(html, name, name_end, start, end, words, said, count):
    """(what an attribute says of its element, as inherited bits; how many words are said now)."""
    is_role = _equals(html, name, name_end, _ROLE)
    if is_role or _equals(html, name, name_end, _CLASS) or _equals(html, name, name_end, _ID):
        announces, count = _announces(html, start, end, words, said, count)
        if not is_role:
            return ANNOUNCED if announces else 0, count
        if _equals(html, start, end, _MAIN):
            return MAIN, count
        nav = _equals(html, start, end, _NAVIGATION) or _equals(html, start, end, _BANNER)
        return ASIDE if announces or nav else 0, count
    return _other_attribute(html, name, name_end, start, end), count


@njit(cache=True)
def _other_attribute(html, name, name_end, start, end):
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
def _scan(html, names, kinds, words):  # one state machine, kept in one place for its speed
    size = len(html)
    text = np.empty(size + 1, np.uint8)
    rows = np.empty((1024, 10), np.int64)
    elements = np.zeros((1024, 4), np.int64)
    said = np.empty(
        min(size // 3, 1 << 20) + 1, np.uint64
    )  # a word is two letters and what parts it from the next, at least
    depth_limit = 512
    stack_name = np.zeros(depth_limit, np.uint64)
    stack_kind = np.zeros(depth_limit, np.int64)
    stack_flags = np.zeros(depth_limit, np.int64)
    stack_region = np.zeros(depth_limit, np.int64)
    stack_content = np.zeros(depth_limit, np.int64)
    stack_element = np.zeros(depth_limit, np.int64)
    element_count = 1
    elements[0, 1] = -1
    words_kept = words_said = 0
    depth = 0  # stack[0] is the page itself
    written = count = linked = tags = start = 0
    heading = regions = contents = 0
    blank = True
    place = 0
    while place < size:
        byte = html[place]
        if byte != 60:  # text, up to the next "<"
            if stack_flags[depth] & HIDDEN:
                place += 1
                while place < size and html[place] != 60:
                    place += 1
                continue
            in_link = stack_flags[depth] & LINK
            keep_lines = stack_flags[depth] & PRE
            while place < size and html[place] != 60:
                byte = html[place]
                if byte <= 32:
                    byte = np.uint8(10) if keep_lines and byte == 10 else np.uint8(32)
                    if blank and byte == 32 and not keep_lines:
                        place += 1
                        continue
                    blank = True
                else:
                    blank = False
                text[written] = byte
                written += 1
                linked += 1 if in_link else 0
                place += 1
            continue
        # a tag, a comment, or a "<" that means itself
        following = html[place + 1] if place + 1 < size else np.uint8(0)
        if following == 33 or following == 63:  # <!-- --> <!doctype> <?xml ?>
            if place + 3 < size and html[place + 2] == 45 and html[place + 3] == 45:
                place += 4
                while place < size and not (
                    html[place] == 62 and html[place - 1] == 45 and html[place - 2] == 45
                ):
                    place += 1
            else:
                while place < size and html[place] != 62:
                    place += 1
            place += 1
            continue
        closing = following == 47
        place += 2 if closing else 1
        if place >= size or not (97 <= _letter(html[place]) <= 122):
            if not closing and not stack_flags[depth] & HIDDEN:
                text[written] = 60
                written += 1
                blank = False
            elif closing:
                while place < size and html[place] != 62:
                    place += 1
                place += 1
            continue
        packed, length = np.uint64(0), 0
        while place < size and html[place] > 32 and html[place] != 62 and html[place] != 47:
            if length < 8:
                packed = (packed << np.uint64(8)) | np.uint64(_letter(html[place]))
            length += 1
            place += 1
        for _ in range(length, 8):
            packed = packed << np.uint64(8)
        found = find(names, packed)
        kind = kinds[found] if found >= 0 else 0
        extra, words_said = 0, words_kept
        while place < size and html[place] != 62:  # attributes
            if html[place] <= 32 or html[place] == 47:
                place += 1
                continue
            name = place
            while (
                place < size
                and html[place] > 32
                and html[place] != 61
                and html[place] != 62
                and html[place] != 47
            ):
                place += 1
            name_end = place
            if name_end == name:  # a lone "="
                place += 1
                continue
            while place < size and html[place] <= 32:
                place += 1
            value = value_end = place
            if place < size and html[place] == 61:
                place += 1
                while place < size and html[place] <= 32:
                    place += 1
                if place < size and (html[place] == 34 or html[place] == 39):
                    quote = html[place]
                    place += 1
                    value = place
                    while place < size and html[place] != quote:
                        place += 1
                    value_end = place
                    place += 1
                else:
                    value = place
                    while place < size and html[place] > 32 and html[place] != 62:
                        place += 1
                    value_end = place
            if not closing:
                bits, words_said = _attribute(html, name, name_end, value, value_end, words, said, words_said)
                extra |= bits
        self_closing = html[min(place, size) - 1] == 47
        place += 1
        is_break = kind & VOID and packed == np.uint64(0x6272000000000000)  # br
        if kind & BLOCK or is_break:  # the end of a block
            if written > start:
                if count == len(rows):
                    grown = np.empty((2 * count, 10), np.int64)
                    grown[:count] = rows
                    rows = grown
                owner = depth
                while owner and not stack_kind[owner] & BLOCK:
                    owner -= 1
                rows[count, 0], rows[count, 1], rows[count, 2] = start, written, linked
                rows[count, 3], rows[count, 5] = stack_flags[depth], tags
                rows[count, 4] = heading if heading else (BR if is_break else 0)
                rows[count, 6], rows[count, 7] = stack_region[depth], stack_content[depth]
                rows[count, 8] = find(names, stack_name[owner]) if owner else -1
                rows[count, 9] = stack_element[depth]
                count += 1
            start, linked, tags, blank = written, 0, 0, True
            heading = 0
        else:
            tags += 1
        if kind & VOID:
            continue
        if closing:
            level = depth
            while level and stack_name[level] != packed:
                level -= 1
            if level:
                depth = level - 1
            for level in range(depth, 0, -1):  # a heading may go on behind an element inside
                if stack_kind[level] & HEADING:
                    heading = np.int64((stack_name[level] >> np.uint64(48)) & np.uint64(255)) - 48
            continue
        if self_closing and not kind & (BLOCK | NEVER | LINK):
            continue
        if kind & CLOSES_P and depth and stack_name[depth] == np.uint64(0x7000000000000000):  # an open <p>
            depth -= 1
        # <head> without its end
        if kind & BLOCK and depth and stack_name[depth] == np.uint64(0x6865616400000000):
            depth -= 1
        if kind & ITEM:  # <li> ends an open <li>, <td> an open <td>, but not across a list or table
            level = depth
            while level and not stack_kind[level] & (LIST | TABLE):
                if stack_name[level] == packed:
                    depth = level - 1
                    break
                level -= 1
        if kind & LINK:  # links do not nest
            level = depth
            while level and not stack_kind[level] & BLOCK:
                if stack_name[level] == packed:
                    depth = level - 1
                    break
                level -= 1
        if kind & RAW:  # text without tags, up to its end tag
            while place < size:
                if html[place] == 60 and place + 2 < size and html[place + 1] == 47:
                    other, ahead = np.uint64(0), 0
                    while (
                        ahead < 8
                        and place + 2 + ahead < size
                        and 97 <= _letter(html[place + 2 + ahead]) <= 122
                    ):
                        other = (other << np.uint64(8)) | np.uint64(_letter(html[place + 2 + ahead]))
                        ahead += 1
                    for _ in range(ahead, 8):
                        other = other << np.uint64(8)
                    if other == packed:
                        break
                place += 1
            while place < size and html[place] != 62:
                place += 1
            place += 1
            continue
        flags = stack_flags[depth] | ((kind | extra) & _INHERITED_MASK)
        if kind & NEVER:
            flags |= HIDDEN
        region, content = stack_region[depth], stack_content[depth]
        if (kind | extra) & (ANNOUNCED | HEADER | FOOTER | ASIDE) and not region:
            regions += 1
            region = regions
        if (kind | extra) & (ARTICLE | MAIN) and not content:
            contents += 1
            content = contents
        if depth + 1 < depth_limit:  # deeper ones are read, but not told apart
            depth += 1
        stack_name[depth], stack_kind[depth], stack_flags[depth] = packed, kind, flags
        stack_region[depth], stack_content[depth] = region, content
        if not flags & HIDDEN:
            if element_count == len(elements):
                grown = np.empty((2 * element_count, 4), np.int64)
                grown[:element_count] = elements
                elements = grown
            words_kept = words_said
            parent = stack_element[depth - 1]
            elements[element_count, 0], elements[element_count, 1] = parent, found
            elements[element_count, 2] = (elements[parent, 2] * 1_000_003) ^ (found + 2)
            elements[element_count, 3] = words_kept
            stack_element[depth] = element_count
            element_count += 1
        if kind & HEADING:
            heading = np.int64((packed >> np.uint64(48)) & np.uint64(255)) - 48
    if written > start:
        if count == len(rows):
            grown = np.empty((count + 1, 10), np.int64)
            grown[:count] = rows
            rows = grown
        rows[count] = 0
        rows[count, 0], rows[count, 1], rows[count, 2] = start, written, linked
        rows[count, 3], rows[count, 5], rows[count, 8] = stack_flags[depth], tags, -1
        rows[count, 6], rows[count, 7] = stack_region[depth], stack_content[depth]
        rows[count, 9] = stack_element[depth]
        count += 1
    return (
        text[:written].copy(),
        rows[:count].copy(),
        elements[:element_count].copy(),
        said[:words_kept].copy(),
    )
