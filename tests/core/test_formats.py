import bz2
import gzip
import io
import lzma
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.core.formats import READ_ERRORS, detect_format, format_by_name, open_plain, read_single

COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


@given(st.binary(max_size=3000), st.sampled_from(sorted(COMPRESS)), st.sampled_from(sorted(COMPRESS)))
def test_content_is_the_same_however_it_is_packed_and_named(tmp_path_factory, data, packed, name):
    data = b"x" + data  # bytes that begin like a compressed file are one
    path = tmp_path_factory.getbasetemp() / f"a{name}"
    path.write_bytes(COMPRESS[packed](data))
    with open_plain(path) as file:
        assert file.read() == data


def read(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    with open_plain(path) as file:
        return file.read()


def test_zstd_may_have_many_frames_and_large_windows(tmp_path):
    frame, skipped = (
        zstandard.compress(b"one\n" * 1000),
        b"\x5a\x2a\x4d\x18" + (5000).to_bytes(4, "little") + bytes(5000),
    )
    path = tmp_path / "a.zst"
    assert read(path, skipped + frame + skipped + frame) == b"one\n" * 2000
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=30)
    buffer = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(
        buffer, closefd=False
    ) as writer:
        writer.write(b"long" * 1000)
    assert read(path, buffer.getvalue()) == b"long" * 1000
    for broken in (frame[:-9], frame + b"garbage", frame[:8] + bytes(9) + frame[17:]):
        with pytest.raises(READ_ERRORS):
            read(path, broken)


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("CC-MAIN-1.warc.wet.gz", "warc"),
        ("old.arc.gz", "warc"),
        ("c4-train.00000-of-01024.json.gz", "json"),
        ("A.JSONL.ZST", "json"),
        ("a.tar.gz", "tar"),
        ("a.tgz", "tar"),
        ("a.wacz", "zip"),
        ("page.HTM", "html"),
        ("note.txt.gz", "text"),
        ("a.gz", None),
        ("README", None),
    ],
)
def test_a_name_says_what_a_file_holds(name, format_):
    assert format_by_name(name) == format_


@pytest.mark.parametrize(
    ("head", "format_"),
    [
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML>\n<p>", "html"),
        (b"<?xml version='1.0'?><!DOCTYPE html PUBLIC 'x'><html xmlns='x'>", "html"),
        (b"<!-- saved from url=(0019)http://a.example/ -->\n<html>", "html"),
        (b"<?xml version='1.0'?><rss version='2.0'>", None),
        (b"<svg xmlns='x'>", None),
        (b"WARC/1.1\r\n", "warc"),
        (b"filedesc://a.arc 0.0.0.0", "warc"),
        (b'{"text": "x"}', "json"),
        (b"\x89PNG\r\n", None),
        (b"", None),
    ],
)
def test_a_file_without_an_ending_is_known_by_its_first_bytes(tmp_path, head, format_):
    for name, data in (("index.php?id=3", head), ("packed", gzip.compress(head))):
        (tmp_path / name).write_bytes(data)
        assert detect_format(tmp_path / name) == format_


@pytest.mark.parametrize(
    ("name", "content", "url"),
    [
        ("deep/a b.html", b"<p>x", "file:///deep/a%20b.html"),
        ("www.example.org/a/index.html", b"<p>x", "https://www.example.org/a/index.html"),
        ("localhost:8080/index.html", b"<p>x", "https://localhost:8080/index.html"),
        ("python3.11/index.html", b"<p>x", "file:///python3.11/index.html"),
        ("jquery.ui/index.html", b"<p>x", "file:///jquery.ui/index.html"),
        ("a.html", b"<!-- saved from url=(0025)https://www.example.org/x -->", "https://www.example.org/x"),
        (
            "a.html",
            b"<!-- Mirrored from www.example.org/x.html by HTTrack Website Copier/3.x -->",
            "http://www.example.org/x.html",
        ),
        ("caf\udce9.html", b"<p>x", "file:///caf%E9.html"),
    ],
)
def test_a_saved_page_gets_the_url_that_it_had_where_that_is_known(name, content, url):
    page = read_single(name, content, "html")
    assert (page.url, page.kind, page.body) == (url, "text/html", content)


def test_a_text_of_windows_is_read():
    assert read_single("a.txt", "ab\u00e9".encode("utf-16"), "text").body == "ab\u00e9".encode()


def test_a_page_that_a_browser_saved_as_one_file_is_read():
    content = (
        b"From: <Saved by Blink>\r\nSnapshot-Content-Location: https://www.example.org/\r\n page\r\n"
        b'MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary="B"\r\n\r\n'
        b"--B\r\nContent-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"<p>caf=E9 a=\r\nnd\r\n--B\r\nContent-Type: image/png\r\n\r\nx\r\n--B--"
    )
    page = read_single("a.mhtml", content, "mhtml")
    assert page.url == "https://www.example.org/page"
    assert page.body.decode("utf-8-sig").strip() == "<p>café and"
    with pytest.raises(BadInput, match="no HTML page"):
        read_single("a.mhtml", b"Content-Type: image/png\r\n\r\nx", "mhtml")
