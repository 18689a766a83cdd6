"""Pages of WARC and ARC files, even damaged ones: what can be read is read, the rest is counted.

A page that cannot be used (an error status, a picture, a body that is too long, a damaged record) is returned with
the reason in `fault`.
"""

import mmap
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import msgspec

from crawltalk.core.formats import looks_like_html
from crawltalk.core.printable import printable
from crawltalk.data.read.charset import decode
from crawltalk.data.read.http import decode_body, parse_head
from crawltalk.data.read.records import TOO_LONG, Record, read_records

_PAGES = ("response", "resource", "conversion")
_NO_PAGES = ("warcinfo", "request", "metadata", "revisit", "continuation")
_HTML = (b"text/html", b"xhtml+xml")
_SLOPPY = (b"html", b"text/htm", b"text")
_TYPE = re.compile(rb"[\w.*+-]{1,40}/[\w.*+-]{1,60}")
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([\w:.+-]{1,40})", re.I)
_ANY_TAG = re.compile(rb"<[a-z!/]", re.I)
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
_MAX_HTTP_HEAD = 1 << 17
_WARNINGS = 3  # damages of a file that are told one by one
_SEGMENTED = 16  # segmented records that wait for their other segments at once
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
    """The pages of one WARC or ARC file, in order. Whatever cannot be read comes out as a page with its `fault`;
    `warn` is called with a line for the first damages, and with the number of the others.
    """
    size = path.stat().st_size
    if size == 0:
        warn(f"{path.name} is empty")
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        damages = records = 0
        for number, record in enumerate(
            _joined(read_records(path, data, max_page_bytes + _MAX_HTTP_HEAD), max_page_bytes), 1
        ):
            records += bool(record.kind)
            if not record.fault and record.kind not in (*_PAGES, *_NO_PAGES):
                record.fault = "unknown record type" if record.kind else "unreadable record head"
            if record.fault and record.fault != TOO_LONG:
                damages += 1
                if damages <= _WARNINGS:
                    place = f"{path.name}, byte {record.position:,} of {size:,}"
                    warn(f"{place}: {printable(record.fault)}; reading goes on behind it")
            if record.kind in _PAGES or (record.fault and record.kind not in _NO_PAGES):
                yield _page(record, number, path, max_page_bytes)
        if damages > _WARNINGS:
            warn(f"{path.name}: {damages - _WARNINGS:,} more records are damaged")
        elif not records:
            warn(f"{path.name} holds no record of a WARC or ARC file")


def _joined(records: Iterator[Record], max_page_bytes: int) -> Iterator[Record]:
    """The records with segmented ones put together (ISO 28500, section 8): the first segment is a response, the
    others are continuations that name it.
    """
    waiting: dict[bytes, Record] = {}
    for record in records:
        origin = record.fields.get(b"warc-segment-origin-id", b"")
        if record.fields.get(b"warc-segment-number") == b"1" and record.kind in _PAGES and not record.fault:
            waiting[record.fields.get(b"warc-record-id", b"")] = record
        elif record.kind == "continuation" and origin in waiting:
            first = waiting[origin]
            first.fault = first.fault or record.fault
            if first.end - first.start <= max_page_bytes:
                first.text = first.block + record.block
                first.start, first.end = 0, len(first.text)
            if b"warc-segment-total-length" in record.fields:
                yield waiting.pop(origin)
        else:
            yield record
        if len(waiting) > _SEGMENTED:
            yield _unfinished(waiting.pop(next(iter(waiting))))
    yield from map(_unfinished, waiting.values())


def _unfinished(record: Record) -> Record:
    record.fault = record.fault or "its other segments are not in this file"
    return record


def _page(record: Record, number: int, path: Path, max_page_bytes: int) -> Page:
    """The page of a record, which is the file's `number`th."""
    page = Page(
        id=record.field(b"warc-record-id") or f"<{path.name}:{number}>",
        url=record.field(b"warc-target-uri").strip("<> "),
        date=record.field(b"warc-date"),
        body=b"",
        charset=None,
        fault=None,
    )
    if record.fault:
        page.fault = f"more than {max_page_bytes:,} bytes" if record.fault == TOO_LONG else record.fault
        return page
    text, start, end = record.text, record.start, record.end
    kind, status = record.fields.get(b"content-type", b""), None
    fields: dict[bytes, bytes] = {}
    if record.kind == "response" or kind.startswith(b"application/http"):
        head = parse_head(text, start, end)
        status, fields, start = head.status, head.fields, head.end
        kind = fields.get(b"content-type", b"" if kind.startswith(b"application/http") else kind)
    page.charset = _charset(kind)
    if not page.url:
        page.fault = "no URL"
    elif status not in (200, None):
        page.fault = f"HTTP status {status}"
    elif end - start > max_page_bytes:
        page.fault = f"more than {max_page_bytes:,} bytes"
    else:
        body = decode_body(text[start:end], fields, max_page_bytes)
        # what the crawler says it cut is a page all the same, as in Common Crawl
        declared = body.cut and b"warc-truncated" in record.fields
        is_text = record.kind == "conversion" and b"html" not in kind
        page.fault = _no_text(body.data, max_page_bytes)
        if not page.fault and not is_text:
            identified = record.fields.get(b"warc-identified-payload-type", b"")
            page.fault = _not_html(kind, identified, body.data)
        if not page.fault and (body.fault and not declared):
            page.fault = body.fault
        if not page.fault and (body.binary or body.data.startswith(_MAGIC)):
            page.fault = "binary data that calls itself HTML"
        if not page.fault:
            page.body = body.data
            if is_text:
                page.text = decode(page.body, page.charset)
    return page


@lru_cache(1000)
def _charset(content_type: bytes) -> str | None:
    match = _CHARSET.search(content_type)
    return match[1].decode("ascii", "replace") if match else None


@lru_cache(1000)
def _says_html(content_type: bytes) -> bool:
    """Whether a Content-Type means HTML, in whatever form it says so."""
    kind = content_type.lower()
    return any(name in kind for name in _HTML) or kind.strip(b"' \"") in _SLOPPY


def _not_html(content_type: bytes, identified: bytes, body: bytes) -> str | None:
    """Why a body is not HTML, or None: by what the crawler identified and what the server said, or by the bytes
    where these say otherwise.
    """
    if _says_html(identified) or _says_html(content_type) or looks_like_html(body):
        return None
    kind = _TYPE.search(identified) or _TYPE.search(content_type)
    if kind is None and not content_type.strip() and _ANY_TAG.search(body, 0, 4096):
        return None
    return f"{kind[0].decode('ascii').lower() if kind else 'its content'} is not HTML"


def _no_text(body: bytes, max_page_bytes: int) -> str | None:
    if len(body) > max_page_bytes:
        return f"more than {max_page_bytes:,} bytes"
    return "empty body" if body[:1] != b"<" and not body.strip() else None


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
