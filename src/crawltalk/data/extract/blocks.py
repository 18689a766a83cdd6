"""The features of a page's blocks for the classifier: one row of numbers per block, which includes those of its
neighbours.
"""

from functools import cache

import numpy as np
from numba import njit

from crawltalk.data.extract.scan import (
    BR,
    CONTENT,
    ELEMENT,
    END,
    FLAGS,
    INHERITED,
    KIND,
    LINKED,
    MAIN,
    PARENT,
    PATH,
    REGION,
    START,
    TAGS,
    WITHIN,
    WORDS_END,
    Scan,
    element_number,
    find,
    inner,
)

NEIGHBOURS = (-2, -1, 1, 2)
ELEMENTS = ("p", "li", "td", "div", "dd", "pre", "blockquote", "figcaption", "section", "article")
LEVELS = 3
"""Containers that a block sees itself in: the smallest that holds more than the block, the next larger one,
...
"""

# The columns of a block by itself. Its text:
_SIZE, _WORDS, _LINK_SHARE, _MOSTLY_LINKS, _OVER_60, _OVER_150, _WORD_DENSITY, _DIGITS, _CAPITALS = range(9)
_COMMAS, _SENTENCE_ENDS, _ENDS_SENTENCE, _BARS, _BULLET, _TAGS = range(9, 15)
# Its position on the page, the page, and whether it is a heading:
_POSITION, _PROSE_BEFORE, _HAS_TITLE, _AFTER_TITLE, _SINCE_TITLE, _PAGE_SIZE, _PAGE_PROSE = range(15, 22)
_IS_TITLE, _IS_SECTION_TITLE, _IS_SMALL_TITLE, _ENDS_AT_BREAK = range(22, 26)
# What it stands in, a column for each of INHERITED, and its element, a column for each of ELEMENTS:
_INHERITED, _ELEMENTS = 26, 26 + len(INHERITED)
# Shares of the page's prose that its region, content element and like blocks hold:
_SHARES = _ELEMENTS + len(ELEMENTS)
_UNTITLED_REGION, _IN_REGION, _IN_CONTENT, _PAGE_HAS_MAIN, _IN_LIKE, _LIKE_BLOCKS = range(
    _SHARES, _SHARES + 6
)
# What the class names around it say: its element's, their sum, least and most from the page down; the parent's:
_NAMES = _SHARES + 6
# Four columns for each of its containers:
_CONTAINERS = _NAMES + 5
# Blocks on the same path of elements, and the container of most of the page's prose:
_ON_PATH, _PATH_BLOCKS, _IN_MAIN, _FROM_MAIN = (_CONTAINERS + 4 * LEVELS + n for n in range(4))
OWN = _FROM_MAIN + 1
"""Numbers of a block by itself."""

_SEEN = np.array(
    [
        _SIZE,
        _LINK_SHARE,
        _OVER_150,
        _COMMAS,
        _ENDS_SENTENCE,
        _IS_TITLE,
        _IS_SECTION_TITLE,
        _IS_SMALL_TITLE,
        _ELEMENTS + ELEMENTS.index("p"),
        _ELEMENTS + ELEMENTS.index("li"),
        _PAGE_HAS_MAIN,
        _IN_LIKE,
        _LIKE_BLOCKS,
        _NAMES + 1,
    ]
)
"""Which of them a block sees of its neighbours."""
FEATURES = OWN + len(NEIGHBOURS) * len(_SEEN) + 1
_BITS = np.array(INHERITED, np.int64)
_STEPS = np.array(NEIGHBOURS)
_OWN_SCORE, _SUM, _LEAST, _MOST = range(4)
"""Columns of `_name_scores`."""
_BYTES, _LINK_BYTES, _PROSE_BYTES, _BLOCKS = range(4)
"""Columns of `_contents`."""
_DIGIT_0, _DIGIT_9, _LETTER_A, _LETTER_Z, _SPACE = b"09AZ "
_COMMA, _DOT, _EXCLAMATION, _QUESTION, _BAR, _DASH, _STAR = b",.!?|-*"
_FIRST_WIDE, _LAST_WIDE = "\u3041".encode()[0], "\u9fff".encode()[0]
"""First bytes of kana and Chinese characters, of which two are about a word and one is three letters."""
_THAI = "\u0e01".encode()[0]


def _packed(marks: str) -> np.ndarray:
    """Characters as `_character` returns them, sorted."""
    return np.array(sorted(int.from_bytes(mark.encode(), "big") for mark in marks), np.int64)


_COMMAS_ABROAD, _ENDS, _CLOSING, _BAR_MARKS = (
    _packed(marks) for marks in ("，、､،", ".!?。！？｡．؟۔।", "\"')]»”’」』）", "|·»©｜")
)
_COLONS = _packed(":：")


def features(page: Scan, names: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Shape (blocks, FEATURES), float32. `names`: hashes of words in class names, sorted, and the weight of each
    as evidence for content.
    """
    return _features(
        np.frombuffer(page.text, np.uint8), page.blocks, page.elements, page.words, *names, _element_numbers()
    )


@cache
def _element_numbers() -> np.ndarray:
    return np.array([element_number(name) for name in ELEMENTS], np.int64)


@njit(cache=True)
def _features(text, blocks, elements, words, names, scores, numbers):
    """Plain loops: a page has a few dozen blocks, for which array operations cost more than they compute."""
    count = len(blocks)
    rows = np.zeros((count, FEATURES), np.float32)
    prose = np.zeros(count)
    total = whole = 1e-9
    for row in range(count):
        size = _describe_text(text, blocks, row, rows)
        total += size
        if rows[row, _LINK_SHARE] < 0.3 and size > 60:
            prose[row] = size
            whole += size
    _describe_positions(blocks, prose, total, whole, rows)
    for row in range(count):
        column = _INHERITED
        for bit in _BITS:
            rows[row, column] = (blocks[row, FLAGS] & bit) > 0
            column += 1
        for number in numbers:
            rows[row, column] = blocks[row, ELEMENT] == number
            column += 1
    _describe_shares(blocks, elements, prose, whole, rows)
    _describe_names(blocks, elements, _name_scores(elements, words, names, scores), rows)
    _describe_containers(blocks, elements, _contents(blocks, elements, prose), whole, rows)
    _describe_neighbours(prose, rows)
    return rows


@inner
def _character(text, position, end):
    """(the bytes of the character here as a number, how many they are)."""
    number, length = np.int64(text[position]), 1
    while position + length < end and 0x80 <= text[position + length] < 0xC0 and length < 4:
        number = (number << 8) | np.int64(text[position + length])
        length += 1
    return number, length


@inner
def _ends_sentence(text, start, end):
    """Whether the text's last mark, less quotation marks and brackets that close, ends a sentence."""
    for _ in range(3):
        if end <= start or _is_letter_or_digit(text[end - 1]):
            return False
        position = end - 1
        while position > start and 0x80 <= text[position] < 0xC0:
            position -= 1
        last, _ = _character(text, position, end)
        if find(_CLOSING, last) < 0:
            return find(_ENDS, last) >= 0 or find(_COLONS, last) >= 0
        end = position
    return False


@inner
def _is_letter_or_digit(byte):
    return _LETTER_A <= byte & 0xDF <= _LETTER_Z or _DIGIT_0 <= byte <= _DIGIT_9


@inner
def _describe_text(text, blocks, row, rows):
    """The numbers of a block's own text. Returns its length in Latin letters.

    Scripts differ in bytes a letter and in blanks between words: a letter of an alphabet is one, however many
    bytes it takes, a Chinese character is three and half a word, and a Thai word has five letters.
    """
    start, end = blocks[row, START], blocks[row, END]
    size = max(1, end - start)
    links = blocks[row, LINKED] / size
    while end > start and text[end - 1] <= _SPACE:
        end -= 1
    blanks, digits, capitals, commas, ends, bars, others = 1, 0, 0, 0, 0, 0, 0
    for position in range(start, end):
        byte = text[position]
        blanks += byte <= _SPACE
        digits += _DIGIT_0 <= byte <= _DIGIT_9
        capitals += _LETTER_A <= byte <= _LETTER_Z
        commas += byte == _COMMA
        ends += byte == _DOT or byte == _EXCLAMATION or byte == _QUESTION
        bars += byte == _BAR
        others += byte >= 0x80
    words = float(blanks)
    position = start
    while others:  # to the last byte beyond ASCII
        byte = text[position]
        if byte < 0x80:
            position += 1
            continue
        character, length = _character(text, position, end)
        position += length
        others -= length
        if _FIRST_WIDE <= byte <= _LAST_WIDE:
            words += 0.5
        else:
            size -= length - 1
            words += 0.2 * (byte == _THAI)
        commas += find(_COMMAS_ABROAD, character) >= 0
        ends += find(_ENDS, character) >= 0
        bars += find(_BAR_MARKS, character) >= 0
    opening = text[start] if end > start else np.uint8(0)
    own = rows[row]
    own[_SIZE] = np.log1p(size) / 5
    own[_WORDS] = np.log1p(words) / 4
    own[_LINK_SHARE] = links
    own[_MOSTLY_LINKS] = links > 0.5
    own[_OVER_60] = size > 60
    own[_OVER_150] = size > 150
    own[_WORD_DENSITY] = words / size * 5
    own[_DIGITS] = digits / size
    own[_CAPITALS] = capitals / words
    own[_COMMAS] = min(5, commas) / 5
    own[_SENTENCE_ENDS] = min(5, ends) / 5
    own[_ENDS_SENTENCE] = _ends_sentence(text, start, end)
    own[_BARS] = min(3, bars) / 3
    own[_BULLET] = opening == _DASH or opening == _STAR
    own[_TAGS] = min(10, blocks[row, TAGS]) / 10
    return size


@inner
def _describe_positions(blocks, prose, total, whole, rows):
    """The numbers of a block's position, and of the page: `total` bytes, `whole` of them in prose."""
    count = len(blocks)
    first = -1
    for row in range(count):
        if blocks[row, KIND] == 1:
            first = row
            break
    before = 0.0
    for row in range(count):
        own, kind = rows[row], blocks[row, KIND]
        own[_POSITION] = row / count
        own[_PROSE_BEFORE] = before / whole
        before += prose[row]
        own[_HAS_TITLE] = first >= 0
        own[_AFTER_TITLE] = row >= first
        own[_SINCE_TITLE] = min(20, row - max(first, 0)) / 20
        own[_PAGE_SIZE] = np.log1p(total) / 10
        own[_PAGE_PROSE] = whole / total
        own[_IS_TITLE] = kind == 1
        own[_IS_SECTION_TITLE] = kind == 2 or kind == 3
        own[_IS_SMALL_TITLE] = 4 <= kind < BR
        own[_ENDS_AT_BREAK] = kind == BR


@inner
def _describe_shares(blocks, elements, prose, whole, rows):
    """How much of the page's prose stands in a block's region, content element, like blocks and path."""
    count = len(blocks)
    regions, contents, has_main = 0, 0, False
    for row in range(count):
        regions, contents = max(regions, blocks[row, REGION]), max(contents, blocks[row, CONTENT])
        has_main = has_main or (blocks[row, FLAGS] & MAIN) > 0
    in_region, in_content, titled = np.zeros(regions + 1), np.zeros(contents + 1), np.zeros(regions + 1)
    flags, paths = np.empty(count, np.int64), np.empty(count, np.int64)
    for row in range(count):
        flags[row], paths[row] = blocks[row, FLAGS], elements[blocks[row, WITHIN], PATH]
    like, same_path = _groups(blocks, flags), _groups(blocks, paths)
    in_like, of_like, on_path, of_path = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    for row in range(count):
        share = prose[row] / whole
        in_region[blocks[row, REGION]] += share
        in_content[blocks[row, CONTENT]] += share
        in_like[like[row]] += share
        of_like[like[row]] += 1
        on_path[same_path[row]] += share
        of_path[same_path[row]] += 1
        if blocks[row, KIND] == 1:
            titled[blocks[row, REGION]] = 1
    for row in range(count):
        own, region, content = rows[row], blocks[row, REGION], blocks[row, CONTENT]
        own[_UNTITLED_REGION] = region > 0 and not titled[region] and in_region[region] < 0.3
        own[_IN_REGION] = in_region[region] if region else 0.0
        own[_IN_CONTENT] = in_content[content] if content else 0.0
        own[_PAGE_HAS_MAIN] = has_main
        own[_IN_LIKE] = in_like[like[row]]
        own[_LIKE_BLOCKS] = min(30, of_like[like[row]]) / 30
        own[_ON_PATH] = on_path[same_path[row]]
        own[_PATH_BLOCKS] = min(30, of_path[same_path[row]]) / 30


@inner
def _describe_names(blocks, elements, name_scores, rows):
    """Evidence from the class names around a block."""
    for row in range(len(blocks)):
        element = blocks[row, WITHIN]
        for column in range(4):
            rows[row, _NAMES + column] = name_scores[element, column]
        rows[row, _NAMES + 4] = name_scores[elements[element, PARENT], _OWN_SCORE]


@inner
def _describe_containers(blocks, elements, held, whole, rows):
    """What else the elements around a block contain, and its distance from the element with most prose."""
    main = _main_container(elements, held, 0.7 * whole)
    for row in range(len(blocks)):
        own = rows[row]
        column, level = _CONTAINERS, blocks[row, WITHIN]
        for _ in range(LEVELS):
            blocks_held = held[level, _BLOCKS]
            while level and held[level, _BLOCKS] == blocks_held:
                level = elements[level, PARENT]
            own[column] = np.log1p(held[level, _BYTES]) / 10
            own[column + 1] = held[level, _LINK_BYTES] / max(1.0, held[level, _BYTES])
            own[column + 2] = held[level, _PROSE_BYTES] / whole
            own[column + 3] = np.log1p(held[level, _BLOCKS]) / 5
            column += 4
        level, away = blocks[row, WITHIN], 0
        while level > main:  # elements are numbered as they open: one within another has the larger number
            level = elements[level, PARENT]
            away += 1
        own[_IN_MAIN] = level == main
        own[_FROM_MAIN] = min(10, away) / 10


@inner
def _describe_neighbours(prose, rows):
    """Features of the blocks before and behind a block, and the prose around it."""
    count = len(rows)
    for row in range(count):
        column = OWN
        for step in _STEPS:
            if 0 <= row + step < count:
                for seen in range(len(_SEEN)):
                    rows[row, column + seen] = rows[row + step, _SEEN[seen]]
            column += len(_SEEN)
        around = 0.0
        for other in range(max(0, row - 4), min(count, row + 5)):
            around += prose[other]
        rows[row, column] = np.log1p(around) / 8


@inner
def _name_scores(elements, words, names, scores):
    """For each element: what its class names say, then the sum, the least and the most of it from the page
    down.
    """
    name_scores = np.zeros((len(elements), 4))
    start = 0
    for element in range(len(elements)):
        own = 0.0
        for number in range(start, elements[element, WORDS_END]):
            index = find(names, words[number])
            if index >= 0:
                own += scores[index]
        start = elements[element, WORDS_END]
        own = min(3.0, max(-3.0, own))
        parent = elements[element, PARENT]
        name_scores[element, _OWN_SCORE] = own
        name_scores[element, _SUM] = min(6.0, max(-6.0, name_scores[parent, _SUM] + own))
        name_scores[element, _LEAST] = min(name_scores[parent, _LEAST], own)
        name_scores[element, _MOST] = max(name_scores[parent, _MOST], own)
    return name_scores


@inner
def _contents(blocks, elements, prose):
    """For each element: bytes of text, of text in links and of prose, and the number of blocks, all that
    stand in it.
    """
    held = np.zeros((len(elements), 4))
    for row in range(len(blocks)):
        element = blocks[row, WITHIN]
        held[element, _BYTES] += blocks[row, END] - blocks[row, START]
        held[element, _LINK_BYTES] += blocks[row, LINKED]
        held[element, _PROSE_BYTES] += prose[row]
        held[element, _BLOCKS] += 1
    for element in range(len(elements) - 1, 0, -1):
        for column in range(4):
            held[elements[element, PARENT], column] += held[element, column]
    return held


@inner
def _main_container(elements, held, least):
    """The smallest element that holds so much prose."""
    main = 0
    for element in range(1, len(elements)):
        if elements[element, PARENT] == main and held[element, _PROSE_BYTES] >= least:
            main = element
    return main


@inner
def _groups(blocks, marks):
    """For each block the number of the first one of its like: in the same kind of element, with the same
    mark.
    """
    count = len(blocks)
    width = 64
    while width < 2 * count:
        width *= 2
    table = np.full(width, -1)
    like = np.zeros(count, np.int64)
    for row in range(count):
        key = marks[row] * 1000 + blocks[row, ELEMENT]
        slot = ((key * 2654435761) >> 7) % width  # Knuth's multiplicative hash
        while table[slot] >= 0 and (
            marks[table[slot]] != marks[row] or blocks[table[slot], ELEMENT] != blocks[row, ELEMENT]
        ):
            slot = (slot + 1) % width
        if table[slot] < 0:
            table[slot] = row
        like[row] = table[slot]
    return like
