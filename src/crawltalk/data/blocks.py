"""What the classifier sees of a page's blocks: numbers, one row a block, with those of its neighbours beside them."""

import numpy as np
from numba import njit

from crawltalk.data.scan import BR, INHERITED, MAIN, element_number

NEIGHBOURS = (-2, -1, 1, 2)
ELEMENTS = ("p", "li", "td", "div", "dd", "pre", "blockquote", "figcaption", "section", "article")
OWN = 32 + len(INHERITED) + len(ELEMENTS)
"""Numbers of a block by itself: 26 of its text and place, then what it stands in, its element, and 6 shares."""
_BITS = np.array(INHERITED, np.int64)
_SEEN = np.array([0, 2, 5, 9, 11, 22, 23, 24, 26 + len(INHERITED), 27 + len(INHERITED), OWN - 3, OWN - 2, OWN - 1])
"""Which of them a block sees of its neighbours: length, links, end mark, heading, paragraph or item, shares."""
FEATURES = OWN + len(NEIGHBOURS) * len(_SEEN) + 1
_STEPS = np.array(NEIGHBOURS)


def features(text: bytes, blocks: np.ndarray) -> np.ndarray:
    """Shape (blocks, FEATURES), float32."""
    elements = np.array([element_number(name) for name in ELEMENTS], np.int64)
    return _features(np.frombuffer(text, np.uint8), blocks, elements)


@njit(cache=True)
def _features(text, blocks, elements):
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
    like = _groups(blocks)
    in_like, of_like = np.zeros(count), np.zeros(count)
    for row in range(count):
        in_region[blocks[row, 6]] += prose[row] / whole
        in_content[blocks[row, 7]] += prose[row] / whole
        in_like[like[row]] += prose[row] / whole
        of_like[like[row]] += 1
        if blocks[row, 4] == 1:
            titled[blocks[row, 6]] = 1
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
        for element in elements:
            own[place] = blocks[row, 8] == element
            place += 1
        own[place] = region > 0 and not titled[region] and in_region[region] < 0.3
        own[place + 1] = in_region[region] if region else 0.0
        own[place + 2] = in_content[content] if content else 0.0
        own[place + 3] = seen_main
        own[place + 4] = in_like[like[row]]
        own[place + 5] = min(30, of_like[like[row]]) / 30
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
def _groups(blocks):
    """For each block the number of the first one of its like: in the same kind of element, within the same."""
    count = len(blocks)
    width = 64
    while width < 2 * count:
        width *= 2
    table = np.full(width, -1)
    like = np.zeros(count, np.int64)
    for row in range(count):
        key = blocks[row, 3] * 1000 + blocks[row, 8]
        place = (key * 2654435761) % width
        while table[place] >= 0 and (blocks[table[place], 3] != blocks[row, 3] or blocks[table[place], 8] != blocks[row, 8]):
            place = (place + 1) % width
        if table[place] < 0:
            table[place] = row
        like[row] = table[place]
    return like
