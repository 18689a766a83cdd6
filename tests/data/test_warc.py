"""Reading WARC and ARC files as they come: every good page around any damage, and every damage counted."""

import gzip
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.printable import printable
from crawltalk.data.read.warc import Page, read_pages
from support.pages import page_html, sentences

HTML = "Content-Type: text/html; charset=utf-8"


def body(number: int) -> bytes:
    return page_html(f"Page {number}", [sentences(number), sentences(-number - 1, 3)])


def http(content: bytes, *headers: str, status: str = "HTTP/1.1 200 OK", end: str = "\r\n") -> bytes:
    return end.join([*([status] if status else []), *(headers or [HTML]), "", ""]).encode() + content


def record(url: str, block: bytes, *fields: str, kind: str = "response", version: str = "WARC/1.0") -> bytes:
    lines = [version, f"WARC-Type: {kind}", f"WARC-Record-ID: <urn:x:{url}>", f"WARC-Target-URI: {url}"]
    lines += ["WARC-Date: 2026-01-02T03:04:05Z", "Content-Type: application/http; msgtype=response", *fields]
    head = "\r\n".join([*lines, f"Content-Length: {len(block)}", "", ""])
    return head.encode() + block + b"\r\n\r\n"


def good(number: int) -> bytes:
    return record(f"http://good.example/{number}", http(body(number)))


def odd(number: int, content: bytes | None = None, *headers: str, **fields: str) -> bytes:
    return record(
        f"http://odd.example/{number}",
        http(body(1000 + number) if content is None else content, HTML, *headers, **fields),
    )


def chunked(content: bytes, size: int = 100) -> bytes:
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def sub(pattern: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda whole: re.sub(pattern, new, whole, count=1)


def lower_head(whole: bytes) -> bytes:
    end = whole.index(b"\r\n\r\n")
    return whole[:end].lower() + whole[end:]


def raw_deflate(content: bytes) -> bytes:
    return zlib.compress(content)[2:-4]


# what is odd about a record, and whether its page arrives all the same
ODD: dict[str, tuple[Callable[[int], bytes], bool]] = {
    "says gzip, is plain": (lambda n: odd(n, None, "Content-Encoding: gzip"), True),
    "says br, is plain": (lambda n: odd(n, None, "Content-Encoding: br"), True),
    "says deflate, is plain": (lambda n: odd(n, None, "Content-Encoding: deflate"), True),
    "says chunked, is plain": (lambda n: odd(n, None, "Transfer-Encoding: chunked"), True),
    "says nonsense": (lambda n: odd(n, None, "Content-Encoding: UTF-8", "Transfer-Encoding: x"), True),
    "gzip, unsaid": (lambda n: odd(n, gzip.compress(body(1000 + n))), True),
    "gzip twice": (
        lambda n: odd(n, gzip.compress(gzip.compress(body(1000 + n))), "Content-Encoding: gzip"),
        True,
    ),
    "gzip in chunks": (
        lambda n: odd(
            n, chunked(gzip.compress(body(1000 + n))), "Content-Encoding: gzip", "Transfer-Encoding: chunked"
        ),
        True,
    ),
    "chunks, unsaid": (lambda n: odd(n, chunked(body(1000 + n))), True),
    "zlib": (lambda n: odd(n, zlib.compress(body(1000 + n)), "Content-Encoding: deflate"), True),
    "raw deflate": (lambda n: odd(n, raw_deflate(body(1000 + n)), "Content-Encoding: deflate"), True),
    "brotli": (lambda n: odd(n, brotli.compress(body(1000 + n)), "Content-Encoding: br"), True),
    "zstd": (lambda n: odd(n, zstandard.compress(body(1000 + n)), "Content-Encoding: zstd"), True),
    "gzip without end": (
        lambda n: odd(n, gzip.compress(body(1000 + n))[:-30], "Content-Encoding: gzip"),
        False,
    ),
    "brotli without end": (
        lambda n: odd(n, brotli.compress(body(1000 + n))[:-30], "Content-Encoding: br"),
        False,
    ),
    "zstd without end": (lambda n: odd(n, zstandard.compress(body(1000 + n))[:-30]), False),
    "no length": (lambda n: sub(rb"Content-Length: \d+\r\n", b"")(odd(n)), True),
    "length of letters": (lambda n: sub(rb"Content-Length: ", b"Content-Length: x")(odd(n)), True),
    "negative length": (lambda n: sub(rb"Content-Length: ", b"Content-Length: -")(odd(n)), True),
    "huge length": (lambda n: sub(rb"Content-Length: ", b"Content-Length: 99999999")(odd(n)), True),
    "length too large": (lambda n: sub(rb"Content-Length: \d+", b"Content-Length: 9000")(odd(n)), True),
    "length too small": (lambda n: sub(rb"Content-Length: \d+", b"Content-Length: 777")(odd(n)), True),
    "version 0.18": (lambda n: odd(n).replace(b"WARC/1.0", b"WARC/0.18"), True),
    "version 9.9": (lambda n: odd(n).replace(b"WARC/1.0", b"WARC/9.9"), True),
    "lower case": (lambda n: lower_head(odd(n)), True),
    "no colon": (lambda n: odd(n).replace(b"WARC-Date: ", b"WARC-Date "), True),
    "head of zeros": (lambda n: sub(rb"WARC/1.0\r\nWARC-Type: response", bytes(29))(odd(n)), False),
    "no type": (lambda n: odd(n).replace(b"WARC-Type", b"WARC-Tape"), False),
    "HTTP/2": (lambda n: odd(n, status="HTTP/2 200"), True),
    "ICY": (lambda n: odd(n, status="ICY 200 OK"), True),
    "no status line": (lambda n: odd(n, status=""), True),
    "LF only": (lambda n: record(f"http://odd.example/{n}", http(body(1000 + n), HTML, end="\n")), True),
    "100 Continue": (
        lambda n: record(
            f"http://odd.example/{n}", b"HTTP/1.1 100 Continue\r\n\r\n" + http(body(1000 + n), HTML)
        ),
        True,
    ),
    "an error": (lambda n: odd(n, status="HTTP/1.1 404 Not Found"), False),
}


def packed(records: list[bytes], form: str) -> bytes:  # noqa: PLR0911 (a table)
    everything = b"".join(records)
    compress = zstandard.ZstdCompressor(write_checksum=True).compress
    blocks = [everything[at : at + 3000] for at in range(0, len(everything), 3000)]
    match form:
        case "warc":
            return everything
        case "gzip by record":
            return b"".join(gzip.compress(one, mtime=0) for one in records)
        case "one gzip member":
            return gzip.compress(everything, mtime=0)
        case "gzip in blocks":
            return b"".join(gzip.compress(one, mtime=0) for one in blocks)
        case "zstd by record":
            return b"".join(map(compress, records))
        case "one zstd frame":
            return compress(everything)
        case "two zstd frames a record":
            halves = [half for one in records for half in (one[: len(one) // 2], one[len(one) // 2 :])]
            return b"".join(map(compress, halves))
        case "pzstd":  # a skippable frame with the size in front of each frame
            return b"".join(
                struct.pack("<III", 0x184D2A50, 4, len(frame)) + frame for frame in map(compress, blocks)
            )
        case _:
            dictionary = zstandard.ZstdCompressionDict(b"".join(records[:1])[:2000] + bytes(100))
            packer = zstandard.ZstdCompressor(dict_data=dictionary)
            inner = zstandard.compress(dictionary.as_bytes())
            return (
                struct.pack("<II", 0x184D2A5D, len(inner)) + inner + b"".join(map(packer.compress, records))
            )


FORMS = (
    "warc",
    "gzip by record",
    "one gzip member",
    "gzip in blocks",
    "zstd by record",
    "one zstd frame",
    "two zstd frames a record",
    "pzstd",
    "zstd with a dictionary",
)


def pages_of(path: Path, content: bytes, warnings: list[str] | None = None, limit: int = 10**6) -> list[Page]:
    path.write_bytes(content)
    return list(read_pages(path, limit, ([] if warnings is None else warnings).append))


def check(pages: list[Page], layout: list[str | None]) -> None:
    """`layout`: None for a good page, otherwise the name of what is odd."""
    found = {page.url: page for page in pages if page.url}
    for number, name in enumerate(layout):
        if name is None:
            page = found[f"http://good.example/{number}"]
            assert page.fault is None and page.body == body(number)
        elif ODD[name][1]:
            page = found[f"http://odd.example/{number}"]
            assert page.fault is None and page.body == body(1000 + number), name
        else:
            assert found[f"http://odd.example/{number}"].fault, name
    assert len(pages) == len(layout)


@pytest.mark.parametrize("form", FORMS)
def test_each_odd_record_is_read_or_counted_between_good_ones(tmp_path: Path, form: str):
    layout = [None, *(one for name in ODD for one in (name, None))]
    records = [ODD[name][0](n) if name else good(n) for n, name in enumerate(layout)]
    check(pages_of(tmp_path / "a.warc", packed(records, form)), layout)


@given(st.lists(st.sampled_from([None, None, *ODD]), min_size=1, max_size=12), st.sampled_from(FORMS))
@settings(max_examples=150, deadline=None)
def test_all_good_pages_arrive_and_all_odd_ones_are_counted(
    tmp_path_factory, layout: list[str | None], form: str
):
    layout = [None, *layout]
    records = [ODD[name][0](n) if name else good(n) for n, name in enumerate(layout)]
    check(pages_of(tmp_path_factory.mktemp("warc") / "a.warc", packed(records, form)), layout)


@given(st.lists(st.booleans(), min_size=2, max_size=8), st.sampled_from(["gzip", "zstd"]), st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_member_costs_its_own_page_only(
    tmp_path_factory, layout: list[bool], form: str, data: st.DataObject
):
    content = b""
    for number, damaged in enumerate(layout):
        one = packed([good(number)], f"{form} by record")
        if damaged:
            start = data.draw(st.integers(12, len(one) - 70))
            one = one[:start] + bytes(byte ^ 0x55 for byte in one[start : start + 60]) + one[start + 60 :]
        content += one
    warnings: list[str] = []
    pages = pages_of(tmp_path_factory.mktemp("warc") / "a.warc", content, warnings)
    assert [page.url[-1] for page in pages if not page.fault] == [
        str(number) for number, damaged in enumerate(layout) if not damaged
    ]
    assert sum(page.fault is not None for page in pages) >= sum(layout) and bool(warnings) == any(layout)


@pytest.mark.parametrize("form", FORMS)
def test_a_page_that_the_end_of_the_file_cuts_is_set_aside(tmp_path: Path, form: str):
    content = packed([good(0), good(1)], form)
    for cut in (5, 40, 300):
        warnings: list[str] = []
        pages = pages_of(tmp_path / "a.warc", content[:-cut], warnings)
        assert all(page.body == body(int(page.url[-1])) for page in pages if not page.fault)
        assert not [page.url for page in pages if page.url.endswith("1") and not page.fault] and warnings


def test_a_long_record_is_passed_over_in_little_memory(tmp_path: Path):
    import tracemalloc

    long = odd(1, b"<p>" + b"word " * 8_000_000)
    for form in ("warc", "gzip by record", "one gzip member", "one zstd frame"):
        content = packed([good(0), long, good(2)], form)
        tracemalloc.start()
        pages = pages_of(tmp_path / "a.warc", content)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [page.fault for page in pages] == [None, "more than 1,000,000 bytes", None]
        assert peak < 12_000_000 + len(content) * (form == "warc")


def test_segments_of_a_record_are_put_together(tmp_path: Path):
    block = http(body(1))
    first = record("http://odd.example/1", block[:500], "WARC-Segment-Number: 1")
    origin = "WARC-Segment-Origin-ID: <urn:x:http://odd.example/1>"
    rest = [
        record("http://odd.example/1", block[500:900], origin, "WARC-Segment-Number: 2", kind="continuation"),
        record(
            "http://odd.example/1",
            block[900:],
            origin,
            "WARC-Segment-Number: 3",
            f"WARC-Segment-Total-Length: {len(block)}",
            kind="continuation",
        ),
    ]
    pages = pages_of(tmp_path / "a.warc", b"".join([first, good(0), *rest]))
    assert [page.body for page in pages] == [body(0), body(1)]
    pages = pages_of(tmp_path / "a.warc", b"".join([first, good(0), rest[0]]))
    assert [page.fault for page in pages] == [None, "its other segments are not in this file"]


@pytest.mark.parametrize("pack", [b"".join, lambda records: b"".join(map(gzip.compress, records))])
def test_arc_files_are_read_even_where_a_length_is_wrong(tmp_path: Path, pack):
    def arc(number: int, length: str = "", block: bytes | None = None) -> bytes:
        block = http(body(number)) if block is None else block
        head = f"http://good.example/a b/{number} 192.0.2.1 20080101000000 text/html {length or len(block)}\n"
        return head.encode() + block + b"\n"

    about = b"1 0 Crawler\nURL IP-address Archive-date Content-type Archive-length\n"
    head = b"filedesc://a.arc 0.0.0.0 20080101000000 text/plain %d\n" % len(about) + about + b"\n"
    records = [head, arc(0), arc(1, "-1"), arc(2), arc(3, "99999"), arc(4), arc(5, "", body(5))]
    pages = pages_of(tmp_path / "a.arc", pack(records))
    assert [page.fault for page in pages] == [None] * 6
    assert [page.body for page in pages] == [body(number) for number in range(6)]
    assert pages[3].url == "http://good.example/a b/3" and pages[3].date == "2008-01-01T00:00:00Z"


def test_what_the_crawler_says_it_cut_is_a_page(tmp_path: Path):
    block = http(gzip.compress(body(1))[:-30], HTML, "Content-Encoding: gzip")
    (page,) = pages_of(tmp_path / "a.warc", record("http://a.example/", block, "WARC-Truncated: length"))
    assert page.fault is None and body(1).startswith(page.body) and len(page.body) > 500


@pytest.mark.parametrize(
    ("kind", "content", "fault"),
    [
        ("text/html;;charset=UTF-8", b"text", None),
        ('"text/html"', b"text", None),
        ("TEXT/HTML, text/html", b"text", None),
        ("html", b"text", None),
        ("application/vnd.wap.xhtml+xml", b"text", None),
        ("text/plain", b"<!-- x --><!DOCTYPE html><p>text", None),
        ("text/xml", b"<?xml version='1.0'?>\n<html xmlns='x'><p>text", None),
        ("text/xml", b"<?xml version='1.0'?>\n<rss><p>text</p></rss>", "text/xml is not HTML"),
        ("application/json", b'{"a": "<p>text"}', "application/json is not HTML"),
        ("", b"some <b>text</b>", None),
        ("", b"text", "its content is not HTML"),
        ("image/png", b"\x89PNG\r\n\x1a\n", "image/png is not HTML"),
        ("x" * 100_000 + "/\x1b[31m", b"text", "its content is not HTML"),
    ],
)
def test_bytes_decide_where_the_label_says_nothing(
    tmp_path: Path, kind: str, content: bytes, fault: str | None
):
    (page,) = pages_of(
        tmp_path / "a.warc", record("http://a.example/", http(content, f"Content-Type: {kind}"))
    )
    assert page.fault == fault


@given(st.one_of(st.text(), st.binary()), st.integers(1, 100))
def test_what_strangers_say_is_short_and_printable(text: str | bytes, limit: int):
    line = printable(text, limit)
    assert len(line) <= limit and line.isprintable() and line == printable(line, limit)


def test_escape_sequences_do_not_reach_our_words():
    assert printable("a\x1b[2J\x9b31m\u202eb\nc\t d") == "a\ufffd[2J\ufffd31m\ufffdb c d"
    assert printable(b"x" * 1000, 10) == "xxxxxxxxx…"
