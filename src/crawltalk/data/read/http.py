"""The body of an HTTP response as a crawler stored it.

The headers often say what is not true any more: many crawlers decode the body and keep its headers. So the bytes
decide. A body is decoded from what it is in, whatever the headers say; where the bytes show nothing (deflate,
brotli), the headers' word is tried; what decodes to nothing stays as it is.
"""

import re
import zlib
from collections.abc import Callable
from typing import NamedTuple

import brotli
import zstandard

from crawltalk.data.read.charset import is_wide
from crawltalk.data.read.pieces import GZIP, ZSTD, frame_end

_MAX_HEAD = 1 << 17
_STATUS = re.compile(rb"[!-9;-~]{1,20}[ \t]+(\d{3})(?!\d)[^\r\n]*")  # HTTP/1.1 200 OK, h2 200, ICY 200 OK
_NEXT = re.compile(rb"HTTP/\d[\d.]*[ \t]+\d{3}[ \t\r\n]")
_HEADER = re.compile(rb"[!-9;-~]{1,60}[ \t]*:[ \t]")
_FIELDS = re.compile(rb"\n(content-type|content-encoding|transfer-encoding)[ \t]*:[ \t]*([^\r\n]*)", re.I)
_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_INNER_CHUNK = re.compile(rb"\r?\n([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_TOKEN = re.compile(rb"[a-z0-9.-]+")
_LAYERS = 4
# "binary data bytes" of the WHATWG's MIME sniffing, section 3
_CONTROL = bytes({*range(0x20)} - {*b"\t\n\f\r\x1b"})
_SNIFFED = 2048


class Head(NamedTuple):
    """The head of a response."""

    status: int | None
    """None if there is no status line."""
    fields: dict[bytes, bytes]
    """Of type and encodings only; the names are in lower case."""
    end: int
    """Where the body begins."""


def parse_head(text: bytes, start: int, end: int) -> Head:
    """The head of the response in `text[start:end]`: the last one, if there are several (100 Continue, a proxy's
    answer). Lines may end in LF; where there is no head at all, all is body.
    """
    while True:
        match = _STATUS.match(text, start, end)
        if match is None and _HEADER.match(text, start, end) is None:
            return Head(None, {}, start)
        stop, body = _head_end(text, start, end)
        found = _FIELDS.findall(text, start, stop) if match else _FIELDS.findall(b"\n" + text[start:stop])
        fields: dict[bytes, bytes] = {}
        for name, value in found:
            key = name.lower()
            fields[key] = fields[key] + b", " + value.strip() if key in fields else value.strip()
        if body >= end or _NEXT.match(text, body) is None:
            return Head(int(match[1]) if match else None, fields, body)
        start = body


def _head_end(text: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the head's lines end, and where the body begins."""
    stop = min(end, start + _MAX_HEAD)
    wide = text.find(b"\r\n\r\n", start, stop)
    narrow = text.find(b"\n\n", start, stop if wide < 0 else wide)
    mixed = text.find(b"\n\r\n", start, narrow if narrow >= 0 else wide if wide >= 0 else stop)
    if mixed >= 0:
        return mixed, mixed + 3
    if narrow >= 0:
        return narrow, narrow + 2
    return (wide, wide + 4) if wide >= 0 else (end, end)


class Body(NamedTuple):
    """A decoded body, as far as it could be decoded."""

    data: bytes
    fault: str = ""
    """What is wrong with it."""
    cut: bool = False
    """Whether the fault is that its end is missing."""
    binary: bool = False
    """Whether it looks like no text."""


def decode_body(body: bytes, fields: dict[bytes, bytes], limit: int) -> Body:
    """The body without its transfer and content encodings; not much more than `limit` bytes of it."""
    said = b"chunked" in fields.get(b"transfer-encoding", b"").lower()
    result = _unchunk(body, said) if said or _CHUNK.match(body) else Body(body)
    names = _TOKEN.findall(fields.get(b"content-encoding", b"").lower())
    binary = is_binary(result.data)
    if binary or names:
        decoded = _decode(result.data, names, limit)
        result = Body(decoded.data, result.fault or decoded.fault, result.cut or decoded.cut)
        binary = is_binary(result.data)
    return result._replace(binary=True) if binary else result


def is_binary(body: bytes) -> bool:
    """Whether more than a twentieth of the first bytes are control characters."""
    head = body[:_SNIFFED]
    return len(head) - len(head.translate(None, _CONTROL)) > 0.05 * len(head) and not is_wide(body)


# --- chunks (RFC 9112, section 7.1) ---


def _unchunk(body: bytes, said: bool) -> Body:
    """The chunks put together. Unless chunks were announced, all of them must be as they should."""
    parts, at = [], 0
    while match := _CHUNK.match(body, at):
        size, start = int(match[1], 16), match.end()
        end = start + size
        if size == 0:
            return Body(b"".join(parts))
        after = _LINE_END.match(body, end)
        if after is None or (after.end() < len(body) and not _CHUNK.match(body, after.end())):
            inner = _chunk_behind(body, start) if said else None
            if inner is None and said and end >= len(body) and (parts or end == len(body)):
                parts.append(body[start:])
                cut = end > len(body)
                return Body(b"".join(parts), "the body ends in the middle of a chunk" if cut else "", cut)
            if inner is None:
                return Body(b"".join(parts), "damaged chunks") if said and parts else Body(body)
            parts.append(body[start : inner.start()])
            at = inner.end() - len(inner[0].lstrip(b"\r\n"))
            continue
        parts.append(body[start:end])
        at = after.end()
    if at == len(body) and said and parts:  # only the last chunk, of no bytes, is missing
        return Body(b"".join(parts))
    return Body(body)


def _chunk_behind(body: bytes, start: int) -> re.Match[bytes] | None:
    """Where the next chunk begins, if the size of this one is wrong."""
    for match in _INNER_CHUNK.finditer(body, start):
        end = match.end() + int(match[1], 16)
        if end == len(body) or (end < len(body) and _LINE_END.match(body, end)):
            return match
    return None


# --- content encodings ---


def _decode(body: bytes, names: list[bytes], limit: int) -> Body:
    for _ in range(_LAYERS):
        if body.startswith(GZIP):
            result = _gunzip(body, limit)
        elif body.startswith(ZSTD) and (frame_end(body, 0) or 0) > 0:
            result = _unzstd(body, limit)
        else:
            said = any(name in (b"deflate", b"br") for name in names)
            tried = [decoder(body, limit) for decoder in _UNMARKED] if said or is_binary(body) else []
            whole = [one for one in tried if one and not one.fault and not is_binary(one.data)]
            # a brotli or deflate stream without its end says nothing by itself
            cut = [one for one in tried if one and one.cut and said and is_binary(body) and one.data]
            if not whole and not cut:
                return Body(body)
            result = whole[0] if whole else cut[0]
        if result.fault or len(result.data) > limit:
            return result
        body = result.data
    return Body(body)


def _gunzip(body: bytes, limit: int) -> Body:
    """All members of it; what stands behind them is left out."""
    parts, size = [], 0
    while body.startswith(GZIP) and size <= limit:
        member = zlib.decompressobj(31)
        try:
            parts.append(member.decompress(body, limit + 1 - size))
        except zlib.error:
            return Body(b"".join(parts), "damaged gzip in the body")
        size += len(parts[-1])
        if not member.eof:
            if size > limit:
                break
            return Body(b"".join(parts), "the gzip in the body has no end", cut=True)
        body = member.unused_data
    return Body(b"".join(parts))


def _unzstd(body: bytes, limit: int) -> Body:
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    try:
        with decompressor.stream_reader(body, read_across_frames=True) as reader:
            data = reader.read(limit + 1)
    except zstandard.ZstdError:
        return Body(b"", "damaged zstd in the body")
    end: int | None = 0
    while end is not None and end < len(body):
        end = frame_end(body, end)
    cut = end is not None and end > len(body) and len(data) <= limit
    return Body(data, "the zstd in the body has no end", cut=True) if cut else Body(data)


def _inflate(wbits: int) -> Callable[[bytes, int], Body | None]:
    def decoder(body: bytes, limit: int) -> Body | None:
        stream = zlib.decompressobj(wbits)
        try:
            data = stream.decompress(body, limit + 1)
        except zlib.error:
            return None
        if stream.eof:
            return None if stream.unused_data.strip() else Body(data)
        cut = len(data) <= limit
        return Body(data, "the deflate in the body has no end" if cut else "", cut)

    return decoder


def _unbrotli(body: bytes, limit: int) -> Body | None:
    stream = brotli.Decompressor()
    try:
        data = stream.process(body, output_buffer_limit=limit + 1)
        while len(data) <= limit and not stream.is_finished() and not stream.can_accept_more_data():
            data += stream.process(b"", output_buffer_limit=limit + 1 - len(data))
    except brotli.error:
        return None
    cut = not stream.is_finished() and len(data) <= limit
    return Body(data, "the brotli in the body has no end" if cut else "", cut)


_UNMARKED = (_inflate(15), _inflate(-15), _unbrotli)
