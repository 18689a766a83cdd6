"""What the classifier sees of a page's blocks: numbers, one row a block, with those of its neighbours beside
them.
"""

import numpy as np
from numba import njit

from crawltalk.data.extract.scan import BR, INHERITED, MAIN, Scan, element_number, find

NEIGHBOURS = (-2, -1, 1, 2)
ELEMENTS = ("p", "li", "td", "div", "dd", "pre", "blockquote", "figcaption", "section", "article")
LEVELS = 3
"""Containers that a block sees itself in: the smallest that holds more than the block, the next larger one,
...
"""
_SHARES = 26 + len(INHERITED) + len(ELEMENTS)
_NAMES = _SHARES + 6
_LEVELS = _NAMES + 5
OWN = _LEVELS + 4 * LEVELS + 4
"""Numbers of a block by itself: 26 of its text and place, then what it stands in, its element, 6 shares, 5 of
the names of classes around it, 4 of each container, and 4 of blocks of its like and of the container of most
of the page's prose.
"""
_BITS = np.array(INHERITED, np.int64)
_SEEN = np.array(
    [
        0,
        2,
        5,
        9,
        11,
        22,
        23,
        24,
        26 + len(INHERITED),
        27 + len(INHERITED),
        _SHARES + 3,
        _SHARES + 4,
        _SHARES + 5,
        _NAMES + 1,
    ]
)
"""Which of them a block sees of its neighbours: length, links, end mark, heading, paragraph or item, shares,
names.
"""
FEATURES = OWN + len(NEIGHBOURS) * len(_SEEN) + 1
_STEPS = np.array(NEIGHBOURS)


def features(page: Scan, names: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Shape (blocks, FEATURES), float32. `names`: hashes of words in class names, sorted, and how much each
    speaks for content.
    """
    numbers = np.array([element_number(name) for name in ELEMENTS], np.int64)
    return _features(
        np.frombuffer(page.text, np.uint8), page.blocks, page.elements, page.words, *names, numbers
    )


@njit(cache=True)
def _features(text, blocks, elements, words, names, scores, numbers):
    """Plain loops: a page has a few dozen blocks, for which array operations cost more than they compute."""
    count = len(blocks)
    rows = np.zeros((count, FEATURES), np.float32)
    prose = np.zeros(count)
    total = whole = 1e-9
    first = -1
    regions, contents, seen_main = 0, 0, False
    for row in range(count):
        _describe(text, blocks, row, rows)
        size = blocks[row, 1] - blocks[row, 0]
        total += size
        if rows[row, 2] < 0.3 and size > 60:
            prose[row] = size
            whole += size
        if blocks[row, 4] == 1 and first < 0:
            first = row
        regions, contents = max(regions, blocks[row, 6]), max(contents, blocks[row, 7])
        seen_main = seen_main or (blocks[row, 3] & MAIN) > 0
    in_region, in_content, titled = np.zeros(regions + 1), np.zeros(contents + 1), np.zeros(regions + 1)
    like, same_path = _groups(blocks, blocks[:, 3]), _groups(blocks, elements[blocks[:, 9], 2])
    in_like, of_like, on_path, of_path = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    for row in range(count):
        in_region[blocks[row, 6]] += prose[row] / whole
        in_content[blocks[row, 7]] += prose[row] / whole
        in_like[like[row]] += prose[row] / whole
        of_like[like[row]] += 1
        on_path[same_path[row]] += prose[row] / whole
        of_path[same_path[row]] += 1
        if blocks[row, 4] == 1:
            titled[blocks[row, 6]] = 1
    said = _said(elements, words, names, scores)
    held = _held(blocks, elements, prose)
    main = _main_container(elements, held, 0.7 * whole)
    before = 0.0
    for row in range(count):
        own = rows[row]
        region, content, kind = blocks[row, 6], blocks[row, 7], blocks[row, 4]
        own[15] = row / count
        own[16] = before / whole
        before += prose[row]
        own[17] = first >= 0
        own[18] = row >= first
        own[19] = min(20, row - max(first, 0)) / 20
        own[20] = np.log1p(total) / 10
        own[21] = whole / total
        own[22] = kind == 1
        own[23] = kind == 2 or kind == 3
        own[24] = 4 <= kind < BR
        own[25] = kind == BR
        place = 26
        for bit in _BITS:
            own[place] = (blocks[row, 3] & bit) > 0
            place += 1
        for number in numbers:
            own[place] = blocks[row, 8] == number
            place += 1
        own[place] = region > 0 and not titled[region] and in_region[region] < 0.3
        own[place + 1] = in_region[region] if region else 0.0
        own[place + 2] = in_content[content] if content else 0.0
        own[place + 3] = seen_main
        own[place + 4] = in_like[like[row]]
        own[place + 5] = min(30, of_like[like[row]]) / 30
        place = _NAMES
        element = blocks[row, 9]
        for column in range(4):
            own[place + column] = said[element, column]
        own[place + 4] = said[elements[element, 0], 0]
        place = _LEVELS
        level = element
        for _ in range(LEVELS):
            blocks_held = held[level, 3]
            while level and held[level, 3] == blocks_held:
                level = elements[level, 0]
            own[place] = np.log1p(held[level, 0]) / 10
            own[place + 1] = held[level, 1] / max(1.0, held[level, 0])
            own[place + 2] = held[level, 2] / whole
            own[place + 3] = np.log1p(held[level, 3]) / 5
            place += 4
        own[place] = on_path[same_path[row]]
        own[place + 1] = min(30, of_path[same_path[row]]) / 30
        level, away = element, 0
        while level > main:  # elements are numbered as they open: one within another has the larger number
            level = elements[level, 0]
            away += 1
        own[place + 2] = level == main
        own[place + 3] = min(10, away) / 10
    for row in range(count):
        place = OWN
        for step in _STEPS:
            if 0 <= row + step < count:
                for seen in range(len(_SEEN)):
                    rows[row, place + seen] = rows[row + step, _SEEN[seen]]
            place += len(_SEEN)
        around = 0.0
        for other in range(max(0, row - 4), min(count, row + 5)):
            around += prose[other]
        rows[row, place] = np.log1p(around) / 8
    return rows


@njit(cache=True)
def _said(elements, words, names, scores):
    """For each element: what its class names say, then the sum, the least and the most of it from the page
    down.
    """
    said = np.zeros((len(elements), 4))
    start = 0
    for element in range(len(elements)):
        own = 0.0
        for place in range(start, elements[element, 3]):
            found = find(names, words[place])
            if found >= 0:
                own += scores[found]
        start = elements[element, 3]
        own = min(3.0, max(-3.0, own))
        parent = elements[element, 0]
        said[element, 0] = own
        said[element, 1] = min(6.0, max(-6.0, said[parent, 1] + own))
        said[element, 2] = min(said[parent, 2], own)
        said[element, 3] = max(said[parent, 3], own)
    return said


@njit(cache=True)
def _held(blocks, elements, prose):
    """For each element: bytes of text, of text in links and of prose, and the number of blocks, all that
    stand in it.
    """
    held = np.zeros((len(elements), 4))
    for row in range(len(blocks)):
        element = blocks[row, 9]
        held[element, 0] += blocks[row, 1] - blocks[row, 0]
        held[element, 1] += blocks[row, 2]
        held[element, 2] += prose[row]
        held[element, 3] += 1
    for element in range(len(elements) - 1, 0, -1):
        held[elements[element, 0]] += held[element]
    return held


@njit(cache=True)
def _main_container(elements, held, least):
    """The smallest element that holds so much prose."""
    main = 0
    for element in range(1, len(elements)):
        if elements[element, 0] == main and held[element, 2] >= least:
            main = element
    return main


@njit(cache=True)
def _describe(text, blocks, row, rows):
    """The numbers of a block's own text, into the first columns."""
    start, end = blocks[row, 0], blocks[row, 1]
    size = max(1, end - start)
    while end > start and text[end - 1] <= 32:
        end -= 1
    words, digits, capitals, commas, ends, bars = 1, 0, 0, 0, 0, 0
    for place in range(start, end):
        byte = text[place]
        words += byte <= 32
        digits += 48 <= byte <= 57
        capitals += 65 <= byte <= 90
        commas += byte == 44
        ends += byte == 46 or byte == 33 or byte == 63
        bars += byte == 124 or byte == 187 or byte == 183 or byte == 169  # | and, in UTF-8, the ends of » · ©
    last = text[end - 1] if end > start else np.uint8(0)
    if (last == 34 or last == 41 or last == 39) and end - 1 > start:  # "He said so."
        last = text[end - 2]
    opening = text[start] if end > start else np.uint8(0)
    links = blocks[row, 2] / size
    own = rows[row]
    own[0] = np.log1p(size) / 5
    own[1] = np.log1p(words) / 4
    own[2] = links
    own[3] = links > 0.5
    own[4] = size > 60
    own[5] = size > 150
    own[6] = words / size * 5
    own[7] = digits / size
    own[8] = capitals / words
    own[9] = min(5, commas) / 5
    own[10] = min(5, ends) / 5
    own[11] = last == 46 or last == 33 or last == 63 or last == 58
    own[12] = min(3, bars) / 3
    own[13] = opening == 45 or opening == 42
    own[14] = min(10, blocks[row, 5]) / 10


@njit(cache=True)
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
        key = marks[row] * 1000 + blocks[row, 8]
        place = ((key * 2654435761) >> 7) % width
        while table[place] >= 0 and (
            marks[table[place]] != marks[row] or blocks[table[place], 8] != blocks[row, 8]
        ):
            place = (place + 1) % width
        if table[place] < 0:
            table[place] = row
        like[row] = table[place]
    return like
