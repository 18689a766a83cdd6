"""Pages of WARC files (ISO 28500), even damaged ones: what can be read is read, the rest is counted.

A page that cannot be used (an error status, a picture, a body that is too long) is returned with the reason in
`fault`.
"""

import mmap
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from crawltalk.data.read.charset import is_wide

_PAGES: Any = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
_HTML = {"text/html", "application/xhtml+xml"}
_MAGIC = (
    b"\x89PNG",
    b"GIF8",
    b"\xff\xd8\xff",
    b"%PDF",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"RIFF",
    b"\x7fELF",
    b"wOFF",
    b"OggS",
    b"ID3",
)
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK = 1 << 18  # a block of a frame has 128 KiB at most, and is decoded as a whole
# "binary data bytes" of the WHATWG's MIME sniffing, section 3
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_MAX_TAGS = 20_000  # below it, even a page that only opens tags is parsed within 0.1 s
_SHORTEST_TAG = 3
_MAX_DEPTH = 2_000  # browsers stop nesting at 512
_NESTING = re.compile(
    rb"<(/?)(?:div|span|section|article|main|header|footer|aside|nav|ul|ol|dl|table|blockquote|center|font|small|big|form|figure"
    rb"|fieldset|details|a|b|i|u|s|em|strong|code|sub|sup|svg|g|q)(?![\w\x80-\xff])",
    re.I,
)


class Page(msgspec.Struct, kw_only=True):
    """One response of a web server."""

    id: str
    url: str
    date: str
    body: bytes
    """Decoded from its transfer and content encodings; empty if there is a `fault`."""
    charset: str | None
    """From the HTTP header."""
    fault: str | None
    """Why this page cannot be used, or None."""
    text: str | None = None
    """Its main text, if the source has it already (WET, JSONL, Parquet)."""


def read_pages(path: Path, max_page_bytes: int, warn: Callable[[str], None]) -> Iterator[Page]:
    """The pages of one WARC file, in order. `warn` is called with one line for each damage, and reading continues
    behind it.
    """
    size = path.stat().st_size
    if size == 0:
        warn(f"{path.name} is empty")
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = position = 0
        while True:
            file.seek(start)
            try:
                records = ArchiveIterator(file, record_types=_PAGES, parse_http=True, auto_decode="all")
                for record in records:
                    position = start + record.stream_pos
                    yield _page(record, max_page_bytes)
                break
            except OSError as error:
                following = _next_record(data, max(start, position) + 1)
                going_on = (
                    "nothing readable follows"
                    if following is None
                    else f"reading goes on at byte {following:,}"
                )
                warn(f"{path.name} is broken after byte {position:,} of {size:,} ({error}); {going_on}")
                if following is None:
                    return
                start = position = following
        if _cut_short(data, position):
            warn(f"{path.name} ends in the middle of a record; the records before it are kept")


def _page(record: WarcRecord, max_page_bytes: int) -> Page:
    headers = record.headers
    page = Page(
        id=headers.get("WARC-Record-ID") or f"<offset:{record.stream_pos}>",
        url=(headers.get("WARC-Target-URI") or "").strip("<> "),
        date=headers.get("WARC-Date") or "",
        body=b"",
        charset=record.http_charset,
        fault=None,
    )
    status = record.http_headers.status_code if record.is_http and record.http_headers else None
    kind = (record.http_content_type if record.is_http else headers.get("Content-Type")) or ""
    kind = kind.split(";")[0].strip().lower()
    if not page.url:
        page.fault = "no URL"
    elif record.is_http and status != 200:
        page.fault = f"HTTP status {status}"
    elif (
        kind
        and kind not in _HTML
        and not (record.record_type == WarcRecordType.conversion and kind == "text/plain")
    ):
        page.fault = f"{kind[:60]} is not HTML"
    else:
        try:
            page.body = record.reader.read(max_page_bytes + 1)
        except OSError as error:
            page.fault = f"unreadable body: {error}"
        else:
            page.fault = _fault(page.body, max_page_bytes)
    if record.record_type == WarcRecordType.conversion and not page.fault:
        page.text = page.body.decode("utf-8", "replace").replace("\0", "")
    if page.fault:
        page.body = b""
    return page


def _fault(body: bytes, max_page_bytes: int) -> str | None:
    if len(body) > max_page_bytes:
        return f"more than {max_page_bytes:,} bytes"
    if not body.strip():
        return "empty body"
    if is_wide(body):  # every other byte may be 0
        return None
    head = body[:4096]
    if head.startswith(_MAGIC) or len(_CONTROL.findall(head)) > 0.05 * len(head):
        return "binary data that calls itself HTML"
    return None


def _next_record(data: mmap.mmap, start: int) -> int | None:
    """The position of the next record at or after `start`: in plain text, or at the head of a gzip member or zstd
    frame.
    """
    if data[:2] == b"\x1f\x8b":
        while (start := data.find(b"\x1f\x8b\x08", start)) >= 0:
            try:
                if zlib.decompressobj(31).decompress(data[start : start + 1024], 5) == b"WARC/":
                    return start
            except zlib.error:
                pass  # these three bytes are not a header, just data
            start += 1
        return None
    if data[:4] == _ZSTD:
        while (start := data.find(_ZSTD, start)) >= 0 and not _opens_record(
            data[start : start + _ZSTD_BLOCK]
        ):
            start += 1
        return None if start < 0 else start
    start = data.find(b"\nWARC/1.", start - 1)
    return None if start < 0 else start + 1


def _opens_record(frame: bytes) -> bool:
    """Whether a zstd frame begins with a record."""
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.BufferReader(frame), "zstd") as stream:
            return stream.read(5) == b"WARC/"
    except OSError:
        return False


def _cut_short(data: mmap.mmap, start: int) -> bool:
    """Whether the last gzip member, from the record at `start` on, is incomplete: fastwarc does not report that."""
    if data[:2] != b"\x1f\x8b":
        return False
    if data[start : start + 2] != b"\x1f\x8b":  # one member for the whole file: positions mean nothing
        start = 0
    member, fed = zlib.decompressobj(31), start
    while fed < len(data):
        chunk = data[fed : fed + (1 << 20)]
        try:
            while chunk:
                member.decompress(chunk)
                chunk = member.unused_data
                if member.eof and chunk:
                    member = zlib.decompressobj(31)
        except zlib.error:
            return False  # garbage behind the last record
        fed += 1 << 20
    return not member.eof


def too_deep(html: bytes) -> bool:
    """Whether elements are nested so deeply that parsers hang or overflow; costs nothing on ordinary pages."""
    if len(html) < _SHORTEST_TAG * _MAX_TAGS or html.count(b"<") < _MAX_TAGS:
        return False
    depth = 0
    for match in _NESTING.finditer(html):
        depth = max(0, depth - 1) if match[1] else depth + 1
        if depth > _MAX_DEPTH:
            return True
    return False
