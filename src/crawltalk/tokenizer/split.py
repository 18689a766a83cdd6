"""Cutting text into the chunks that byte pairs are merged in, without a regex engine: the patterns of GPT-2, GPT-4 and GPT-4o,
written out over bytes of UTF-8 and a table of character classes.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from crawltalk.tokenizer.patterns import GPT2_FAMILY, GPT4_FAMILY, O200K_FAMILY, Splitter

OTHER, LETTER, NUMBER, MARK, UPPER, LOWER, SPACE, NEWLINE = range(8)
"""Classes of characters: \\p{Lm} and \\p{Lo}, \\p{N}, \\p{M}, \\p{Lu} and \\p{Lt}, \\p{Ll}, \\s without and with [\\r\\n]."""
_WITHOUT_CASE = np.array([OTHER, LETTER, NUMBER, OTHER, LETTER, LETTER, SPACE, NEWLINE], np.uint8)
"""What they are to the patterns of GPT-2 and GPT-4."""
LONG = np.uint64(1 << 63)
_FIRST, _SECOND = 8, 15
_ONES, _HIGHEST = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_SMALL = np.uint64(0x2020202020202020)
"""The bit that tells small letters from capitals."""


def classes(by: Splitter) -> np.ndarray:
    """The class of each code point. Shape (0x110000,), uint8. Made at the first call: before threads ask for it."""
    return _classes(by.family == O200K_FAMILY)


@cache
def _classes(cases: bool) -> np.ndarray:
    table = np.zeros(0x110000, np.uint8)
    names = {"LETTER": LETTER, "NUMBER": NUMBER, "MARK": MARK, "UPPER": UPPER, "LOWER": LOWER, "SPACE": SPACE, "NEWLINE": NEWLINE}
    for line in files("crawltalk.tokenizer").joinpath("classes.txt").read_text(encoding="ascii").splitlines()[1:]:
        name, *ranges = line.split()
        for edges in ranges:
            start, _, end = edges.partition("-")
            table[int(start, 16) : int(end or start, 16) + 1] = names[name]
    return table if cases else _WITHOUT_CASE[table]


def split(text: bytes, by: Splitter) -> list[bytes]:
    """The chunks of a text in UTF-8; a byte that is none counts as a mark."""
    ends = _ends(np.frombuffer(text, np.uint8), classes(by), by.rule)
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if len(ends) else []


@njit(cache=True, nogil=True)
def _ends(data, table, rule):
    ends = np.empty(len(data), np.int64)
    count = place = 0
    while place < len(data):
        place, _, _ = next_chunk(data, place, len(data), table, rule)
        ends[count] = place
        count += 1
    return ends[:count]


@njit(cache=True, nogil=True)
def _chunk_end(data, place, stop, table, rule):
    """Where the chunk ends that begins at `place`, in a text that ends at `stop`."""
    family, digits = rule
    if family == GPT4_FAMILY:
        return _gpt4(data, place, stop, table, digits)
    if family == GPT2_FAMILY:
        return _gpt2(data, place, stop, table, digits)
    return _o200k(data, place, stop, table, digits)


@njit(cache=True, nogil=True)
def _gpt4(data, place, stop, table, digits):  # noqa: PLR0911 - one return per alternative of the pattern
    kind, after = _look(data, place, stop, table)
    if kind == LETTER:
        return _run(data, after, stop, table, LETTER, LETTER)
    if kind == NUMBER:
        return _digits(data, after, stop, table, digits)
    if kind == NEWLINE:
        return _white(data, place, stop, table, True, False)
    if data[place] == 39:
        size = _contraction(data, place + 1, stop, True)
        if size:
            return place + 1 + size
    following, further = _look(data, after, stop, table)
    if following == LETTER:
        return _run(data, further, stop, table, LETTER, LETTER)
    if kind == OTHER or (data[place] == 32 and following == OTHER and after < stop):
        after = _run(data, after, stop, table, OTHER, OTHER)
        while after < stop and (data[after] == 10 or data[after] == 13):
            after += 1
        return after
    return _white(data, place, stop, table, True, False)


@njit(cache=True, nogil=True)
def _gpt2(data, place, stop, table, digits):
    kind, after = _look(data, place, stop, table)
    if data[place] == 39:
        size = _contraction(data, place + 1, stop, False)
        if size:
            return place + 1 + size
    if kind == NUMBER and digits:
        return _digits(data, after, stop, table, digits)
    if data[place] == 32 and after < stop:
        following, further = _look(data, after, stop, table)
        if following < SPACE and not (following == NUMBER and digits):
            return _run(data, further, stop, table, following, following)
    if kind < SPACE:
        return _run(data, after, stop, table, kind, kind)
    return _white(data, place, stop, table, False, digits > 0)


@njit(cache=True, nogil=True)
def _o200k(data, place, stop, table, digits):  # noqa: PLR0911 - one return per alternative of the pattern
    kind, after = _look(data, place, stop, table)
    if kind == NUMBER:
        return _digits(data, after, stop, table, digits)
    if kind == NEWLINE:
        return _white(data, place, stop, table, True, False)
    ahead = kind in (OTHER, MARK, SPACE)  # may stand before a word
    end = _cased(data, after if ahead else place, stop, table, kind != MARK)
    if not ahead or end > after or kind == MARK:  # a mark that no word follows is one itself
        size = _contraction(data, end + 1, stop, True) if end < stop and data[end] == 39 else 0
        return end + 1 + size if size else end
    following, _ = _look(data, after, stop, table)
    if kind == OTHER or (data[place] == 32 and following == OTHER and after < stop):
        after = _run(data, after, stop, table, OTHER, MARK)
        while after < stop and (data[after] == 10 or data[after] == 13 or data[after] == 47):
            after += 1
        return after
    return _white(data, place, stop, table, True, False)


@njit(cache=True, nogil=True)
def _cased(data, place, stop, table, capitals):
    """Where the word ends that begins at `place`: capitals, then small letters, with those that have no case, and marks, among
    either. One of capitals alone, only if `capitals`. `place` itself if there is none.
    """
    start = both = place
    kind, after = _look(data, place, stop, table)
    while place < stop and kind in (UPPER, LETTER, MARK):
        place = after
        if kind != UPPER:
            both = place
        kind, after = _look(data, place, stop, table)
    if place < stop and kind == LOWER:
        while place < stop and kind in (LOWER, LETTER, MARK):
            place = after
            kind, after = _look(data, place, stop, table)
        return place
    return place if both == start and capitals else both


@njit(cache=True, nogil=True)
def _digits(data, place, stop, table, digits):
    """Where a number ends of which one digit has been read."""
    for _ in range(digits - 1):
        kind, after = _look(data, place, stop, table)
        if kind != NUMBER:
            break
        place = after
    return place


@njit(cache=True, nogil=True)
def _look(data, place, stop, table):
    """Class of the character at `place`, and where the next one begins. A byte that is no UTF-8, and the end: `OTHER`."""
    if place >= stop:
        return OTHER, place
    byte = data[place]
    if byte < 0x80:
        return np.int64(table[byte]), place + 1
    return _look_far(data, place, stop, table)


@njit(cache=True, nogil=True)
def _look_far(data, place, stop, table):
    """The same for characters of several bytes."""
    byte = np.int64(data[place])
    size = 2 if 0xC2 <= byte < 0xE0 else 3 if 0xE0 <= byte < 0xF0 else 4 if 0xF0 <= byte < 0xF5 else 1
    if size == 1 or place + size > stop:
        return OTHER, place + 1
    code = byte & (0x7F >> size)
    for step in range(1, size):
        byte = np.int64(data[place + step])
        if byte & 0xC0 != 0x80:
            return OTHER, place + 1
        code = code << 6 | byte & 0x3F
    if code >= 0x110000 or (size == 3 and code < 0x800) or (size == 4 and code < 0x10000):
        return OTHER, place + 1
    return np.int64(table[code]), place + size


@njit(cache=True, nogil=True)
def _run(data, place, stop, table, kind, other):
    """Where the characters of two classes end."""
    while place < stop:
        found, after = _look(data, place, stop, table)
        if found not in (kind, other):
            break
        place = after
    return place


@njit(cache=True, nogil=True)
def _white(data, place, stop, table, lines, digits):
    """The end of a chunk of white space: behind its last line break (if `lines`); else all but what the next word takes (a number
    takes none, if `digits`).
    """
    start, last, broken, kind = place, place, -1, SPACE
    while place < stop:
        kind, after = _look(data, place, stop, table)
        if kind < SPACE:
            break
        if kind == NEWLINE:
            broken = after
        last, place = place, after
    if lines and broken >= 0:
        return broken
    return place if place == stop or last == start or (digits and kind == NUMBER) else last


@njit(cache=True, nogil=True)
def _contraction(data, place, stop, any_case):
    """Bytes of what follows an apostrophe in I'm, you're, it's (0 if it is something else); the long s counts as an s."""
    if place >= stop:
        return 0
    first = data[place]
    if any_case and 65 <= first <= 90:
        first += 32
    if first in (115, 116, 109, 100):  # s t m d
        return 1
    if place + 1 >= stop:
        return 0
    second = data[place + 1]
    if any_case and first == 0xC5 and second == 0xBF:
        return 2
    if any_case and 65 <= second <= 90:
        second += 32
    if (first == 108 and second == 108) or (first in (114, 118) and second == 101):  # ll re ve
        return 2
    return 0


@intrinsic
def _load(typing_context: Any, data: Any, place: Any) -> Any:
    """The eight bytes at `place` as one number, the first one lowest; wherever they lie."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(data, types.int64), generate


@njit(cache=True, nogil=True)
def _not_letters(word):
    """The highest bit of each of eight bytes that is no ASCII letter (several at once within a register: Lamport 1975)."""
    low = (word | np.uint64(0x2020202020202020)) & np.uint64(0x7F7F7F7F7F7F7F7F)
    from_a, beyond_z = low + np.uint64(0x1F1F1F1F1F1F1F1F), low + np.uint64(0x0505050505050505)
    return (~from_a | beyond_z | word) & _HIGHEST


@njit(cache=True, nogil=True)
def _until(word, marks):
    """How many bytes stand before the first one marked, these bytes, and whether the marked one is ASCII."""
    mark = marks & (~marks + np.uint64(1))
    kept = (mark >> np.uint64(7)) - np.uint64(1)
    return ((kept & _ONES) * _ONES) >> np.uint64(56), word & kept, not word & mark


@njit(cache=True, nogil=True, inline="always")
def next_chunk(data, place, stop, table, rule):
    """End and key of the chunk at `place`. Most are a word of ASCII letters, maybe behind a blank, which is read eight bytes at a
    time, or a mark before a blank, or a line break before something else.
    """
    if place + 16 < stop:
        first, second = _load(data, place), np.uint64(0)  # pyrefly: ignore[missing-argument]
        byte, following = first & np.uint64(255), (first >> np.uint64(8)) & np.uint64(255)
        marks = _not_letters(first)
        if not marks & np.uint64(1 << 7) or (byte == 32 and not marks & np.uint64(1 << 15)):
            marks &= ~np.uint64(1 << 7)  # the blank belongs to the word
            if marks:
                size, first, plain = _until(first, marks)
            else:
                second = _load(data, place + 8)  # pyrefly: ignore[missing-argument]
                marks = _not_letters(second)
                size, second, plain = _until(second, marks)
                size += np.uint64(8)
            end = place + np.int64(size)
            if marks and plain and (rule[0] != O200K_FAMILY or _is_small(first, second, data[end])):
                return end, first, second | size << np.uint64(56)
        elif (following == 32 and table[byte] == OTHER) or (byte == 10 and following < 0x80 and table[following] < SPACE):
            return place + 1, byte, np.uint64(1 << 56)
    end = _chunk_end(data, place, stop, table, rule)
    first, second = chunk_key(data, place, end)
    return end, first, second


@njit(cache=True, nogil=True)
def _is_small(first, second, following):
    """Whether only the first letter of a word may be a capital, and no apostrophe follows."""
    letters = np.uint64(0x4040404040404040)
    first &= ~np.uint64(0xFFFF) if first & np.uint64(255) == 32 else ~np.uint64(0xFF)
    capitals = (first & letters & ~((first & _SMALL) << np.uint64(1))) | (second & letters & ~((second & _SMALL) << np.uint64(1)))
    return not capitals and following != 39


@njit(cache=True, nogil=True)
def chunk_key(data, start, end):
    """Two numbers: the bytes of a chunk of up to 15, and its length; of a longer one a hash (FNV-1a) with the highest bit set."""
    first = second = np.uint64(0)
    if end - start <= _SECOND:
        for place in range(start, min(end, start + _FIRST)):
            first |= np.uint64(data[place]) << np.uint64(8 * (place - start))
        for place in range(start + _FIRST, end):
            second |= np.uint64(data[place]) << np.uint64(8 * (place - start - _FIRST))
        second |= np.uint64(end - start) << np.uint64(56)
    else:
        second = np.uint64(0xCBF29CE484222325)
        for place in range(start, end):
            second = (second ^ np.uint64(data[place])) * np.uint64(0x100000001B3)
        second |= LONG
    return first, second


@njit(cache=True, nogil=True, inline="always")
def first_slot(first, second, slots):
    """The slot where a chunk is looked for first, and nearly always found, if it is one that occurs often."""
    mixed = first * np.uint64(0x9E3779B97F4A7C15) ^ second * np.uint64(0xC2B2AE3D27D4EB4F)
    return (mixed ^ (mixed >> np.uint64(32))) & np.uint64(len(slots) - 1)


@njit(cache=True, nogil=True)
def find_chunk(data, start, end, first, second, slots, entries, text):
    """Number of a chunk in a table, 0 if it is not there, and the slot that says so.

    Entries lie in the order in which chunks came, so that the frequent ones lie side by side: the key, a value (the caller's), and of
    a longer chunk where in `text` its copy begins (32 bits) and its length (32). The first entry is none: empty slots point to it.
    """
    slot = first_slot(first, second, slots)
    number = np.int64(slots[slot])
    while number:
        same = entries[number, 0] == first and entries[number, 1] == second
        if same and (second < LONG or _equal(data, start, end, text, entries[number, 3])):
            break
        slot = (slot + np.uint64(1)) & np.uint64(len(slots) - 1)
        number = np.int64(slots[slot])
    return number, slot


@njit(cache=True, nogil=True)
def _equal(data, start, end, text, copy):
    place, size = np.int64(copy >> np.uint64(32)), np.int64(copy & np.uint64(0xFFFFFFFF))
    if end - start != size:
        return False
    for step in range(size):  # noqa: SIM110 - compiled: no generator
        if data[start + step] != text[place + step]:
            return False
    return True


@njit(cache=True, nogil=True)
def keep_chunk(data, start, end, first, second, slot, slots, entries, text, used):
    """Enter a chunk that is not there, with a copy in `text` if it is a longer one. `used`: entries, bytes of `text`."""
    number = used[0]
    used[0] += 1
    slots[slot] = number
    entries[number, 0], entries[number, 1], entries[number, 2] = first, second, 0
    if second >= LONG:
        entries[number, 3] = np.uint64(used[1]) << np.uint64(32) | np.uint64(end - start)
        for place in range(start, end):
            text[used[1]] = data[place]
            used[1] += 1
    return number
