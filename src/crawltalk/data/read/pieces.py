"""The text of a crawl file, whatever its compression: gzip, zstd (with a dictionary, too), lz4, bzip2, xz or none.

Damage costs the gzip member or zstd frame that has it: what can be decompressed of it comes out, then reading goes
on at the next member. Memory is bounded, however large the file or a member is.

gzip is read in two ways. The fast one (fastwarc's) knows nothing of members and fails at the first damage. Then, or
when its reader finds no record where one should be, the text is read once more, member by member.
"""

import bz2
import lzma
import mmap
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from fastwarc.stream_io import GzipReader, Lz4Reader

CHUNK = 1 << 15
"""Bytes given to a decompressor at once."""
_TEXT = 1 << 20  # the most that comes out at once
_PIECE = 1 << 18  # of text that is read without boundaries: as much as stays in a core's cache
GZIP = b"\x1f\x8b\x08"
ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_DICTIONARY = b"\x5d\x2a\x4d\x18"  # the skippable frame of a .warc.zst file with its dictionary
_OTHERS = {b"\x04\x22\x4d\x18": Lz4Reader, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_ERRORS = (OSError, EOFError, ValueError, lzma.LZMAError)


class Piece(NamedTuple):
    """Some text of a file."""

    data: bytes
    position: int
    """Where it stands in the file: of compressed text, where its member or frame begins."""
    opens: bool = False
    """Whether a gzip member or a zstd frame begins with it."""
    damage: str = ""
    """Why the text breaks off behind it."""


class Irregular(Exception):
    """The text must be read with the boundaries of its members."""


class Text(NamedTuple):
    """The text of a file."""

    pieces: Iterator[Piece]
    """May raise `Irregular`."""
    compressed: bool
    careful: Callable[[], Iterator[Piece]] | None = None
    """The same text from the beginning, with boundaries and damages, if `pieces` lacks them."""


def read_text(path: Path, data: mmap.mmap) -> Text:
    """The text of a file. `data` are the file's bytes."""
    if data[:3] == GZIP:
        return Text(_fast_gzip(path, data), True, lambda: _gzip(data))
    if data[:4] == ZSTD or _SKIPPABLE.match(data):
        return Text(_zstd(data), True)
    for magic, reader in _OTHERS.items():
        if data[: len(magic)] == magic:
            return Text(_stream(reader(str(path))), True)
    if not data[:CHUNK].lstrip().startswith((b"WARC/", b"filedesc:")):  # perhaps the beginning is damaged
        name = path.name.lower()
        if name.endswith(".gz") and _next_member(data, 0) is not None:
            return Text(_gzip(data), True)
        if name.endswith((".zst", ".zstd")) and _next_frame(data, 0) is not None:
            return Text(_zstd(data), True)
    return Text((Piece(data[at : at + _PIECE], at) for at in range(0, len(data), _PIECE)), False)


def behind(pieces: Iterator[Piece], count: int) -> Iterator[Piece]:
    """The pieces without the first `count` bytes of text."""
    for piece in pieces:
        dropped = min(count, len(piece.data))
        count -= dropped
        if dropped < len(piece.data) or piece.damage:
            yield piece._replace(data=piece.data[dropped:], opens=piece.opens and not dropped)


def _stream(file: Any) -> Iterator[Piece]:
    """Of a format whose parts cannot be told apart: damage ends it."""
    with file:
        while True:
            try:
                text = file.read(_TEXT)
            except _ERRORS as error:
                yield Piece(b"", 0, damage=f"damaged compression: {error}")
                return
            if not text:
                return
            yield Piece(text, 0)


# --- gzip: members, of a record each as a rule ---


def _fast_gzip(path: Path, data: mmap.mmap) -> Iterator[Piece]:
    given = 0
    try:
        with open(path, "rb") as file:
            reader = GzipReader(file)
            while text := reader.read(_PIECE):
                yield Piece(text, reader.frame_start_position() or 0)
                given += len(text)
            start = reader.frame_start_position() or 0
    except OSError:
        raise Irregular from None
    one = start == 0 and data[-4:] == (given & 0xFFFFFFFF).to_bytes(
        4, "little"
    )  # its length stands at its end
    if not one and not _complete(data, start):  # fastwarc does not report a file that was cut
        raise Irregular


def _complete(data: mmap.mmap, start: int) -> bool:
    """Whether the member at `start` ends where the file ends."""
    member = zlib.decompressobj(31)
    for fed in range(start, len(data), CHUNK):
        chunk = data[fed : fed + CHUNK]
        while chunk and not member.eof:
            member.decompress(chunk, _TEXT)
            chunk = member.unconsumed_tail
    return member.eof and not member.unused_data


def _gzip(data: mmap.mmap) -> Iterator[Piece]:
    position, size = 0, len(data)
    while position < size:
        if data[position : position + 3] == GZIP:
            position = yield from _member(data, position)
            continue
        following = _next_member(data, position)
        end = size if following is None else following
        if end - position > _TEXT or data[position:end].strip(b"\0"):  # zeros are padding
            yield Piece(b"", position, True, f"{end - position:,} bytes between gzip members")
        position = end


def _member(data: mmap.mmap, start: int) -> Iterator[Piece]:
    """One member. Returns where the next one begins."""
    member, fed, given = zlib.decompressobj(31), start, 0
    try:
        while not member.eof:
            chunk = member.unconsumed_tail
            if not chunk:
                chunk = data[fed : fed + CHUNK]
                fed += len(chunk)
                if not chunk:
                    yield Piece(b"", start, not given, "the file ends in the middle of a gzip member")
                    return fed
            if text := member.decompress(chunk, _TEXT):
                yield Piece(text, start, not given)
                given += len(text)
    except zlib.error as error:
        reason = str(error).rpartition(": ")[2]
        yield Piece(_salvage(data, start, given), start, not given, f"damaged gzip member: {reason}")
        following = _next_member(data, start + 1)
        return len(data) if following is None else following
    return fed - len(member.unused_data)


def _salvage(data: mmap.mmap, start: int, given: int) -> bytes:
    """What a damaged member has before its damage, behind the first `given` bytes of text."""
    member, fed, done = zlib.decompressobj(31), start, 0
    while True:
        before, chunk = member.copy(), data[fed : fed + CHUNK]
        fed += len(chunk)
        try:
            done += len(member.decompress(chunk))
        except zlib.error:
            break
    text = bytearray()
    for place in range(len(chunk)):
        try:
            text += before.decompress(chunk[place : place + 1])
        except zlib.error:
            break
    return bytes(text[given - done :] if given >= done else text)


def _next_member(data: mmap.mmap, start: int) -> int | None:
    """Where the next member begins, at `start` or behind it. Three bytes alone may be any data, so the rest of
    the header must be usual (RFC 1952: flags, level, system), or what follows must decompress.
    """
    while (start := data.find(GZIP, start)) >= 0:
        flags, level, system = (
            *data[start + 3 : start + 4],
            *data[start + 8 : start + 10],
            0xFF,
            0xFF,
            0xFF,
        )[:3]
        if flags < 0x20 and level in (0, 2, 4) and (system < 14 or system == 0xFF):
            return start
        try:
            zlib.decompressobj(31).decompress(data[start : start + CHUNK], _TEXT)
        except zlib.error:
            start += 1
        else:
            return start
    return None


# --- zstd: frames (RFC 8878), and the dictionary of a .warc.zst file (IIPC's specification, section 3) ---


def _zstd(data: mmap.mmap) -> Iterator[Piece]:
    position, size = 0, len(data)
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    if data[:4] == _DICTIONARY and (end := frame_end(data, 0)) is not None:
        try:
            decompressor = _with_dictionary(data[8:end])
        except zstandard.ZstdError as error:
            yield Piece(b"", 0, damage=f"damaged dictionary: {error}")
    while position < size:
        end = frame_end(data, position)
        if end is None or end > size:
            following = _next_frame(data, position + 1)
            cut = following is None and end is not None
            end = size if following is None else following
            reason = "the file ends in the middle of a zstd frame" if cut else "damaged zstd frame"
            text = b""
            if data[position : position + 4] == ZSTD:
                text = _salvage_frame(decompressor, data, position, end, 0)
            yield Piece(text, position, True, reason)
        elif data[position : position + 4] == ZSTD:
            end = yield from _frame(decompressor, data, position, end)
        position = end


def _with_dictionary(content: bytes) -> zstandard.ZstdDecompressor:
    """`content`: of the first frame; the dictionary may be compressed itself."""
    if content[:4] == ZSTD:
        content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    dictionary = zstandard.ZstdCompressionDict(content)
    return zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << 31)


def _frame(
    decompressor: zstandard.ZstdDecompressor, data: mmap.mmap, start: int, end: int
) -> Iterator[Piece]:
    """One frame. Returns where the next one begins."""
    given = 0
    view = memoryview(data)[start:end]
    try:
        with decompressor.stream_reader(view, closefd=False) as reader:
            while text := reader.read(_TEXT):
                yield Piece(text, start, not given)
                given += len(text)
    except zstandard.ZstdError as error:
        text = _salvage_frame(decompressor, data, start, end, given)
        reason = str(error).rpartition(": ")[2]
        yield Piece(text, start, not given, f"damaged zstd frame: {reason}")
        following = _next_frame(data, start + 1)  # the damage may be in the sizes that said where it ends
        return len(data) if following is None else following
    finally:
        view.release()
    return end


def _salvage_frame(
    decompressor: zstandard.ZstdDecompressor, data: mmap.mmap, start: int, end: int, given: int
) -> bytes:
    """What a damaged frame has before its damage, behind the first `given` bytes of text; 16 MiB at most."""
    frame, text, done, step = decompressor.decompressobj(), bytearray(), 0, 512
    for at in range(start, end, step):
        try:
            new = frame.decompress(data[at : min(at + step, end)])
        except zstandard.ZstdError:
            break
        text += new[max(0, given - done) :]
        done += len(new)
        if frame.eof or len(text) > 1 << 24:
            break
    return bytes(text)


def frame_end(data: bytes | mmap.mmap, start: int) -> int | None:
    """Where the frame at `start` ends by its headers, which may be behind the end of the data; None if there is
    none.
    """
    head = data[start : start + 6]
    if _SKIPPABLE.match(head):
        return start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
    if head[:4] != ZSTD or len(head) < 6:
        return None if head[:4] != ZSTD[: len(head)] else len(data) + 1
    flags = head[4]
    single = flags >> 5 & 1
    content_size = (single, 2, 4, 8)[flags >> 6]
    at = start + 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + content_size
    last = False
    while not last:
        block = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        if at + 3 > len(data):
            return len(data) + 1
        if kind == 3 or size > 1 << 17:
            return None
        at += 3 + (1 if kind == 1 else size)
    return at + (4 if flags >> 2 & 1 else 0)


def _next_frame(data: mmap.mmap, start: int) -> int | None:
    while (start := data.find(ZSTD, start)) >= 0 and frame_end(data, start) is None:
        start += 1
    return None if start < 0 else start
