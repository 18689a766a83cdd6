"""Chunks of text, numbered from 1 on in the order of their first occurrence. Counts in training and merged ranks in
encoding are then arrays over these numbers.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from crawltalk.core.errors import BadInput
from crawltalk.tokenizer.patterns import Splitter
from crawltalk.tokenizer.pointer import inner, pointer
from crawltalk.tokenizer.split import (
    LONG,
    SHORT,
    STEP,
    WINDOW,
    chunk_end,
    chunk_key,
    chunk_starts,
    classes,
    lowest,
    short_key,
)

_ROOM = 1 << 17
"""Chunks that a new table has room for; a power of two."""


_DECIDED = np.uint64((1 << 63) - 4)
"""The bytes of a window that `chunk_starts` decides."""
_AHEAD = WINDOW + 16
"""Bytes behind a window's first one that are read, including those of a chunk's key."""


_MOST_TEXT = 1 << 32
"""Bytes of copies that can be addressed."""


class Packed(NamedTuple):
    """Chunks of bytes, one behind the other."""

    data: np.ndarray
    """uint8."""
    ends: np.ndarray
    """Where each ends, int64."""


class ChunkTable:
    """An open-addressing hash table (Knuth vol. 3, 6.4) from chunks to their numbers.

    The keys of frequent chunks are close together, since these occur early. A key is `chunk_key`; longer chunks,
    which do not fit into a key, are copied.
    """

    def __init__(self, room: int = _ROOM) -> None:
        self.slots = np.zeros(2 * room, np.uint32)
        """Numbers of chunks; 0: empty."""
        self.keys = np.empty((room, 2), np.uint64)
        self.keys[0] = 0  # number 0 means no chunk
        self.copies = np.empty(room, np.uint64)
        """For a longer chunk the offset of its copy (high 32 bits) and its length (low 32 bits)."""
        self.text = np.empty(1 << 16, np.uint8)
        """The copies."""
        self.used = np.array([1, 0])
        """The next number, and bytes of `text`."""
        self._found = np.empty(0, np.uint32)

    def __len__(self) -> int:
        """The number that the next new chunk gets."""
        return int(self.used[0])

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The arguments of compiled code."""
        return self.slots, self.keys, self.copies, self.text, self.used

    def number(self, data: np.ndarray, ends: np.ndarray, by: Splitter) -> tuple[np.ndarray, np.ndarray]:
        """Cut texts; `ends`: the end of each. Returns the numbers of their chunks, uint32, which are valid until
        the next call, and how many there are up to the end of each text.
        """
        at, chunk_ends = np.zeros(3, np.int64), np.empty(len(ends), np.int64)
        result = self._room_for(len(data))
        while not _number(data, ends, at, classes(by), by.rule, self.arrays, result, chunk_ends):
            self._grow(len(data))
        return result[: at[2]], chunk_ends

    def number_cut(self, chunks: Packed) -> np.ndarray:
        """The numbers of chunks that are cut already, uint32; they are valid until the next call."""
        at, result = np.zeros(1, np.int64), self._room_for(len(chunks.ends))
        data = chunks.data.view()
        data.flags.writeable = (
            False  # arrays that can be written have a type of their own, compiled once more
        )
        while not _number_cut(data, chunks.ends, at, self.arrays, result):
            self._grow(len(data))
        return result[: len(chunks.ends)]

    def chunks(self) -> Packed:
        """All chunks, in the order of their numbers."""
        data = np.empty(SHORT * len(self) + int(self.used[1]), np.uint8)
        ends = np.empty(len(self) - 1, np.int64)
        return Packed(data[: _unpack(len(self), self.arrays, data, ends)].copy(), ends)

    def _room_for(self, chunks: int) -> np.ndarray:
        if len(self._found) < chunks:
            self._found = np.empty(2 * chunks, np.uint32)
        return self._found

    def _grow(self, size: int) -> None:
        """Make room for more chunks, or for copies of so many bytes."""
        if self.used[1] + size >= _MOST_TEXT:
            raise BadInput(f"more than {_MOST_TEXT:,} bytes of different long words; give a lower max_chunks")
        if len(self.text) < self.used[1] + size:
            self.text = grown(self.text, 2 * len(self.text) + size)
        if len(self) == len(self.keys):
            self.keys, self.copies = grown(self.keys, 2 * len(self)), grown(self.copies, 2 * len(self))
            self.slots = np.zeros(2 * len(self.keys), np.uint32)
            _enter(len(self), self.arrays)


def grown(array: np.ndarray, room: int) -> np.ndarray:
    """A copy of an array, extended to `room` rows; the new rows are not initialised."""
    larger = np.empty((room, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


@inner
def pointers(arrays):
    """What compiled code looks chunks up in: slots, keys, copies, text, and by how many bits a hash is shifted."""
    slots, keys, copies, text, _ = arrays
    shift = np.uint64(64 - lowest(np.uint64(len(slots))))
    return pointer(slots), pointer(keys), pointer(copies), pointer(text), shift


@njit(cache=True, nogil=True, inline="always")
def _first_slot(first, second, shift):
    """The slot to try first; a frequent chunk is nearly always there."""
    mixed = first * np.uint64(0x9E3779B97F4A7C15) ^ second * np.uint64(0xC2B2AE3D27D4EB4F)
    # the high bits, since they depend on all lower ones
    return np.int64(mixed >> shift)


@njit(cache=True, nogil=True)
def _number(data, ends, at, classes, rule, arrays, result, chunk_ends):
    """Number chunks from byte `at[0]` of text `at[1]` on; `at[2]` chunks came before. False if there is no room
    for another new chunk.

    The bits of windows, from `window` on, say where chunks begin; where these are unclear, the text is cut.
    """
    readable, rooms, used = len(data), (len(arrays[1]), len(arrays[3])), pointer(arrays[4])
    table = pointers(arrays)
    slots, keys, _, _, shift = table
    data, classes, result = pointer(data), pointer(classes), pointer(result)
    position, written = at[0], at[2]
    for number in range(at[1], len(ends)):
        begin, stop = ends[number - 1] if number else 0, ends[number]
        window, starts, unclear = position - 2 - STEP, np.uint64(0), np.uint64(0)
        while position < stop:
            while not starts and begin <= window + STEP <= stop - _AHEAD:
                before = np.uint64(4) if unclear else np.uint64(0)  # counts for the chunk that goes on
                window += STEP
                starts, unclear = chunk_starts(data, window, rule)
                starts, unclear = starts & _DECIDED, unclear & _DECIDED | before
                starts, unclear = _from(starts, position + 1 - window), _from(unclear, position - window)
            bit = starts & (~starts + np.uint64(1))
            if starts and not unclear & (bit | (bit - np.uint64(1))):
                end = window + lowest(starts)
                starts ^= bit
            else:
                end = chunk_end(data, position, stop, classes, rule)
                if starts and end < window + WINDOW - 1:
                    starts, unclear = _from(starts, end + 1 - window), _from(unclear, end - window)
                else:
                    window, starts, unclear = end - 2 - STEP, np.uint64(0), np.uint64(0)
            if end - position <= SHORT and position + 16 <= readable:
                first, second = short_key(data, position, np.uint64(end - position))
                chunk = np.int64(slots[_first_slot(first, second, shift)])
                found = keys[2 * chunk] == first and keys[2 * chunk + 1] == second
            else:
                first, second = chunk_key(data, position, end, readable)
                chunk, found = 0, False
            if not found:
                chunk = _find_or_keep(data, position, end, first, second, table, rooms, used)
                if not chunk:
                    at[0], at[1], at[2] = position, number, written
                    return False
            result[written] = chunk
            written += 1
            position = end
        chunk_ends[number] = written
    at[2] = written
    return True


@inner
def _from(bits, number):
    """The bits from a number on, which is at most 63; all, if it is negative."""
    return bits >> np.uint64(max(number, 0)) << np.uint64(max(number, 0))


@njit(cache=True, nogil=True)
def _number_cut(data, ends, at, arrays, result):
    """The same for chunks that are cut already, from number `at[0]` on."""
    readable, rooms, used = len(data), (len(arrays[1]), len(arrays[3])), pointer(arrays[4])
    table, data = pointers(arrays), pointer(data)
    for number in range(at[0], len(ends)):
        start, end = ends[number - 1] if number else 0, ends[number]
        first, second = chunk_key(data, start, end, readable)
        result[number] = _find_or_keep(data, start, end, first, second, table, rooms, used)
        if not result[number]:
            at[0] = number
            return False
    return True


@inner
def _find_or_keep(data, start, end, first, second, table, rooms, used):
    """Number of a chunk, which may be a new one; 0 if there is no room for that. `rooms`: chunks, and bytes of
    copies, that there is room for.
    """
    chunk, slot = find_chunk(data, start, end, first, second, table)
    if chunk or used[0] == rooms[0]:
        return chunk
    slots, keys, copies, text, _ = table
    if second >= LONG:
        if used[1] + end - start > rooms[1]:
            return 0
        copies[used[0]] = np.uint64(used[1]) << np.uint64(32) | np.uint64(end - start)
        for position in range(start, end):
            text[used[1]] = data[position]
            used[1] += 1
    chunk = used[0]
    used[0] += 1
    slots[slot] = chunk
    keys[2 * chunk], keys[2 * chunk + 1] = first, second
    return chunk


@inner
def find_chunk(data, start, end, first, second, table):
    """Number of a chunk, 0 if it is not there, and the slot that says so."""
    slots, keys, copies, text, shift = table
    slot = _first_slot(first, second, shift)
    chunk = np.int64(slots[slot])
    while chunk:
        same = keys[2 * chunk] == first and keys[2 * chunk + 1] == second
        if same and (second < LONG or _equal(data, start, end, text, copies[chunk])):
            break
        slot = slot + 1 & (1 << 64 - np.int64(shift)) - 1
        chunk = np.int64(slots[slot])
    return chunk, slot


@inner
def _equal(data, start, end, text, copy):
    position, size = np.int64(copy >> np.uint64(32)), np.int64(copy & np.uint64(0xFFFFFFFF))
    if end - start != size:
        return False
    for step in range(size):  # noqa: SIM110 - compiled: no generator
        if data[start + step] != text[position + step]:
            return False
    return True


@njit(cache=True, nogil=True)
def _enter(count, arrays):
    """Enter the first chunks, which are known to differ, into empty slots."""
    slots, keys, _, _, shift = pointers(arrays)
    for chunk in range(1, count):
        slot = _first_slot(keys[2 * chunk], keys[2 * chunk + 1], shift)
        while slots[slot]:
            slot = slot + 1 & (1 << 64 - np.int64(shift)) - 1
        slots[slot] = chunk


@njit(cache=True, nogil=True)
def _unpack(count, arrays, data, ends):
    """Write all chunks behind one another; returns their bytes."""
    _, keys, copies, text, _ = pointers(arrays)
    end = 0
    for chunk in range(1, count):
        start = end
        if keys[2 * chunk + 1] >= LONG:
            position = np.int64(copies[chunk] >> np.uint64(32))
            end += np.int64(copies[chunk] & np.uint64(0xFFFFFFFF))
            for step in range(end - start):
                data[start + step] = text[position + step]
        else:
            end += np.int64(keys[2 * chunk + 1] >> np.uint64(56))
            for step in range(end - start):
                word = keys[2 * chunk + step // 8]
                data[start + step] = np.uint8(word >> np.uint64(8 * (step % 8)) & np.uint64(255))
        ends[chunk - 1] = end
    return end
