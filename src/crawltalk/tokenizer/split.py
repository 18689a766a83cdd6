"""Cutting text into the chunks that byte pairs are merged in, without a regex engine: the patterns of GPT-2,
GPT-4 and GPT-4o, written out over bytes of UTF-8 and a table of character classes.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types

from crawltalk.tokenizer.patterns import GPT2_FAMILY, GPT4_FAMILY, O200K_FAMILY, Splitter
from crawltalk.tokenizer.pointer import inner, intrinsic, pointer

OTHER, LETTER, NUMBER, MARK, UPPER, LOWER, SPACE, NEWLINE = range(8)
"""Classes of characters: \\p{Lm} and \\p{Lo}, \\p{N}, \\p{M}, \\p{Lu} and \\p{Lt}, \\p{Ll}, \\s without and
with [\\r\\n].
"""
_NAMES = ("OTHER", "LETTER", "NUMBER", "MARK", "UPPER", "LOWER", "SPACE", "NEWLINE")
_WITHOUT_CASE = np.array([OTHER, LETTER, NUMBER, OTHER, LETTER, LETTER, SPACE, NEWLINE], np.uint8)
"""The classes of the patterns of GPT-2 and GPT-4, by class."""
LONG = np.uint64(1 << 63)
"""The bit of a key that says that the chunk is too long to stand in it."""
_BLANK, _TAB, _FEED, _VERTICAL_TAB, _RETURN, _APOSTROPHE, _SLASH, _DIGIT_0 = b" \t\n\v\r'/0"
_UPPER_A, _UPPER_Z, _LOWER_A = b"AZa"
_S, _T, _M, _D, _L, _R, _V, _E = b"stmdlrve"
_LONG_S = tuple("ſ".encode())
_NON_ASCII = 128
"""The first of so many bytes that are not ASCII."""
_FIRST, SHORT = 8, 15
"""Bytes of the first number of a key, and of both."""
_FIRST_BYTES = np.array([(1 << 8 * min(size, 8)) - 1 for size in range(16)], np.uint64)
_SECOND_BYTES = np.array([(1 << 8 * max(size - 8, 0)) - 1 for size in range(16)], np.uint64)
WINDOW, STEP = 64, 61
"""Bytes that `chunk_starts` reads, and bytes that it decides."""


def classes(by: Splitter) -> np.ndarray:
    """The class of each code point. Shape (0x110000,), uint8. Call it once before threads need it."""
    return _classes(by.family == O200K_FAMILY)


@cache
def _classes(cases: bool) -> np.ndarray:
    table = np.zeros(0x110000, np.uint8)
    for line in (
        files("crawltalk.tokenizer").joinpath("classes.txt").read_text(encoding="ascii").splitlines()[1:]
    ):
        name, *ranges = line.split()
        for edges in ranges:
            start, _, end = edges.partition("-")
            table[int(start, 16) : int(end or start, 16) + 1] = _NAMES.index(name)
    return table if cases else _WITHOUT_CASE[table]


def split(text: bytes, by: Splitter) -> list[bytes]:
    """The chunks of a text in UTF-8; a byte that is none counts as a mark."""
    ends = _ends(np.frombuffer(text, np.uint8), classes(by), by.rule)
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if len(ends) else []


@njit(cache=True, nogil=True)
def _ends(data, table, rule):
    ends = np.empty(len(data), np.int64)
    count = position = np.int64(0)  # a literal would be a type of its own
    while position < len(data):
        position = chunk_end(pointer(data), position, len(data), pointer(table), rule)
        ends[count] = position
        count += 1
    return ends[:count]


@inner
def chunk_end(data, position, stop, table, rule):
    """Where the chunk ends that begins at `position`, in a text that ends at `stop`."""
    family, digits = rule
    if family == GPT4_FAMILY:
        return _gpt4(data, position, stop, table, digits)
    if family == GPT2_FAMILY:
        return _gpt2(data, position, stop, table, digits)
    return _o200k(data, position, stop, table, digits)


@inner
def _gpt4(data, position, stop, table, digits):  # noqa: PLR0911 - one return per alternative of the pattern
    kind, after = _classify(data, position, stop, table)
    if kind == LETTER:
        return _run(data, after, stop, table, LETTER, LETTER)
    if kind == NUMBER:
        return _digits(data, after, stop, table, digits)
    if kind == NEWLINE:
        return _white(data, position, stop, table, True, False)
    if data[position] == _APOSTROPHE:
        size = _contraction(data, position + 1, stop, True)
        if size:
            return position + 1 + size
    following, further = _classify(data, after, stop, table)
    if following == LETTER:
        return _run(data, further, stop, table, LETTER, LETTER)
    if kind == OTHER or (data[position] == _BLANK and following == OTHER and after < stop):
        after = _run(data, after, stop, table, OTHER, OTHER)
        while after < stop and (data[after] == _FEED or data[after] == _RETURN):
            after += 1
        return after
    return _white(data, position, stop, table, True, False)


@inner
def _gpt2(data, position, stop, table, digits):
    kind, after = _classify(data, position, stop, table)
    if data[position] == _APOSTROPHE:
        size = _contraction(data, position + 1, stop, False)
        if size:
            return position + 1 + size
    if kind == NUMBER and digits:
        return _digits(data, after, stop, table, digits)
    if data[position] == _BLANK and after < stop:
        following, further = _classify(data, after, stop, table)
        if following < SPACE and not (following == NUMBER and digits):
            return _run(data, further, stop, table, following, following)
    if kind < SPACE:
        return _run(data, after, stop, table, kind, kind)
    return _white(data, position, stop, table, False, digits > 0)


@inner
def _o200k(data, position, stop, table, digits):
    kind, after = _classify(data, position, stop, table)
    if kind == NUMBER:
        return _digits(data, after, stop, table, digits)
    if kind == NEWLINE:
        return _white(data, position, stop, table, True, False)
    ahead = kind in (OTHER, MARK, SPACE)  # may stand before a word
    end = _cased(data, after if ahead else position, stop, table, kind != MARK)
    if not ahead or end > after or kind == MARK:  # a mark that no word follows is one itself
        size = _contraction(data, end + 1, stop, True) if end < stop and data[end] == _APOSTROPHE else 0
        return end + 1 + size if size else end
    following, _ = _classify(data, after, stop, table)
    if kind == OTHER or (data[position] == _BLANK and following == OTHER and after < stop):
        after = _run(data, after, stop, table, OTHER, MARK)
        while after < stop and (data[after] == _FEED or data[after] == _RETURN or data[after] == _SLASH):
            after += 1
        return after
    return _white(data, position, stop, table, True, False)


@inner
def _cased(data, position, stop, table, capitals):
    """Where the word ends that begins at `position`: capitals, then small letters, with those that have no case,
    and marks, among either. One of capitals alone, only if `capitals`. `position` itself if there is none.
    """
    start = both = position
    kind, after = _classify(data, position, stop, table)
    while position < stop and kind in (UPPER, LETTER, MARK):
        position = after
        if kind != UPPER:
            both = position
        kind, after = _classify(data, position, stop, table)
    if position < stop and kind == LOWER:
        while position < stop and kind in (LOWER, LETTER, MARK):
            position = after
            kind, after = _classify(data, position, stop, table)
        return position
    return position if both == start and capitals else both


@inner
def _digits(data, position, stop, table, digits):
    """Where a number ends of which one digit has been read."""
    for _ in range(digits - 1):
        kind, after = _classify(data, position, stop, table)
        if kind != NUMBER:
            break
        position = after
    return position


@inner
def _classify(data, position, stop, table):
    """Class of the character at `position`, and where the next one begins. A byte that is no UTF-8, and the end:
    `OTHER`.
    """
    if position >= stop:
        return OTHER, position
    byte = data[position]
    if byte < 0x80:
        return np.int64(table[np.int64(byte)]), position + 1
    return _classify_multibyte(data, position, stop, table)


@inner
def _classify_multibyte(data, position, stop, table):
    """The same for characters of several bytes."""
    byte = np.int64(data[position])
    size = 2 if 0xC2 <= byte < 0xE0 else 3 if 0xE0 <= byte < 0xF0 else 4 if 0xF0 <= byte < 0xF5 else 1
    if size == 1 or position + size > stop:
        return OTHER, position + 1
    code = byte & (0x7F >> size)
    for step in range(1, size):
        byte = np.int64(data[position + step])
        if byte & 0xC0 != 0x80:
            return OTHER, position + 1
        code = code << 6 | byte & 0x3F
    if code >= 0x110000 or (size == 3 and code < 0x800) or (size == 4 and code < 0x10000):
        return OTHER, position + 1
    return np.int64(table[code]), position + size


@inner
def _run(data, position, stop, table, kind, other):
    """Where the characters of two classes end."""
    while position < stop:
        result, after = _classify(data, position, stop, table)
        if result not in (kind, other):
            break
        position = after
    return position


@inner
def _white(data, position, stop, table, lines, digits):
    """The end of a chunk of white space: behind its last line break (if `lines`); else all but what the next
    word takes (a number takes none, if `digits`).
    """
    start, last, broken, kind = position, position, -1, SPACE
    while position < stop:
        kind, after = _classify(data, position, stop, table)
        if kind < SPACE:
            break
        if kind == NEWLINE:
            broken = after
        last, position = position, after
    if lines and broken >= 0:
        return broken
    return position if position == stop or last == start or (digits and kind == NUMBER) else last


@inner
def _contraction(data, position, stop, any_case):
    """Bytes of what follows an apostrophe in I'm, you're, it's (0 if it is something else); the long s counts
    as an s.
    """
    if position >= stop:
        return 0
    first = data[position]
    if any_case and _UPPER_A <= first <= _UPPER_Z:
        first += _LOWER_A - _UPPER_A
    if first in (_S, _T, _M, _D):
        return 1
    if position + 1 >= stop:
        return 0
    second = data[position + 1]
    if any_case and first == _LONG_S[0] and second == _LONG_S[1]:
        return 2
    if any_case and _UPPER_A <= second <= _UPPER_Z:
        second += _LOWER_A - _UPPER_A
    if (first == _L and second == _L) or (first in (_R, _V) and second == _E):
        return 2
    return 0


@intrinsic
def _load(typing_context: Any, data: Any, position: Any) -> Any:
    """The eight bytes at `position` as one number, the first one lowest; wherever they lie."""

    def generate(context, builder, signature, arguments):
        address = builder.gep(arguments[0], [arguments[1]])
        return builder.load(builder.bitcast(address, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(data, types.int64), generate


@intrinsic
def _among(typing_context: Any, data: Any, position: Any, first: Any, count: Any) -> Any:
    """One bit for each of the 64 bytes from `position` on, the first one lowest: whether it is one of `count`
    bytes from `first` on.
    """

    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(ir.IntType(8), WINDOW)
        address = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), vector.as_pointer())

        def everywhere(number):
            one = builder.insert_element(
                ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
            )
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), WINDOW), [0] * WINDOW)
            return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)

        low, many = (everywhere(builder.trunc(number, ir.IntType(8))) for number in arguments[2:])
        result = builder.icmp_unsigned("<", builder.sub(builder.load(address, align=1), low), many)
        return builder.bitcast(result, ir.IntType(64))

    return types.uint64(data, types.int64, types.int64, types.int64), generate


@intrinsic
def lowest(typing_context: Any, bits: Any) -> Any:
    """The number of the lowest bit that is set."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@inner
def chunk_starts(data, position, rule):
    """Of the 64 bytes from `position` on, one bit for each that begins a chunk, and one for each where that
    cannot be told, or where a chunk may end that begins before it.

    The bits depend on one byte ahead and two back, so those of the first two bytes and the last one are not
    valid. They follow the patterns for ASCII, without contractions and, where digits are grouped in threes,
    without long numbers.
    """
    family, digits = rule
    upper, lower = _among(data, position, _UPPER_A, 26), _among(data, position, _LOWER_A, 26)
    number, blank = _among(data, position, _DIGIT_0, 10), _among(data, position, _BLANK, 1)
    line = _among(data, position, _FEED, 1) | _among(data, position, _RETURN, 1)
    tab = _among(data, position, _TAB, 1) | _among(data, position, _VERTICAL_TAB, 2)  # and the form feed
    far = _among(data, position, _NON_ASCII, _NON_ASCII)
    apostrophe = _among(data, position, _APOSTROPHE, 1)
    one, two = np.uint64(1), np.uint64(2)
    letter, space = upper | lower, blank | tab | line
    other = ~(letter | number | space | far)
    unclear = apostrophe << one | far | far >> one | far << one | far << two
    starts = other & ~((other | blank) << one)
    if family == GPT2_FAMILY:
        starts |= letter & ~((letter | blank) << one)
        starts |= number if digits else number & ~((number | blank) << one)
        starts |= space & ~(space << one & (space | number if digits else space) >> one)
        return starts, unclear
    joined = other & ~((other | blank) << one)  # marks that belong to a word behind them
    starts |= letter & ~((letter | blank | tab | joined) << one)
    starts |= number & ~(number << one) if digits > 1 else number
    starts |= line & ~((other | space) << one)
    starts |= (blank | tab) & ~((blank | tab) << one & space >> one)
    if digits > 1:
        unclear |= number >> one & number & number << one & number << two
    if family == O200K_FAMILY:
        starts |= upper & lower << one
        unclear |= apostrophe
        # slashes that belong to the marks before a line break, maybe
        if _among(data, position, _SLASH, 1) & (line << one | one):
            unclear = ~np.uint64(0)
    run = (blank | tab) & line << one  # white space behind a line break, and where it ends
    end = (run + (blank | tab)) & ~(blank | tab)
    if run and (end & (line | far) or (blank | tab) >> np.uint64(63)):
        unclear = ~np.uint64(0)  # another line break, maybe, and all is one chunk
    return starts, unclear


@inner
def chunk_key(data, start, end, readable):
    """Two numbers: the bytes of a chunk of up to 15, and its length; of a longer one a hash with the highest
    bit set. `readable`: bytes of `data`.
    """
    size = np.uint64(end - start)
    first = second = np.uint64(0)
    if size > SHORT:
        for position in range(start, end - 7, 8):
            second = _mixed(second ^ _load(data, position))
        return first, _mixed(second ^ _load(data, end - 8) ^ size) | LONG
    if start + 16 <= readable:
        return short_key(data, start, size)
    for position in range(start, min(end, start + _FIRST)):
        first |= np.uint64(data[position]) << np.uint64(8 * (position - start))
    for position in range(start + _FIRST, end):
        second |= np.uint64(data[position]) << np.uint64(8 * (position - start - _FIRST))
    return first, second | size << np.uint64(56)


@inner
def _mixed(word):
    """Every bit decides about half of the others (Steele et al. 2014, the finalizer of SplitMix64, first
    half).
    """
    word = (word ^ word >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    return word ^ word >> np.uint64(27)


@njit(cache=True, nogil=True, inline="always")
def short_key(data, start, size):
    """The key of a chunk of up to 15 bytes, where there are 16 to read."""
    first = _load(data, start) & _FIRST_BYTES[size]
    second = _load(data, start + 8) & _SECOND_BYTES[size]
    return first, second | size << np.uint64(56)
