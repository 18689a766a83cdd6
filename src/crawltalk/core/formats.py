"""What a file holds, by its name or its first bytes, and its content without compression."""

import bz2
import gzip
import io
import lzma
import re
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NamedTuple
from urllib.parse import quote

from crawltalk.core.errors import BadInput

Format = Literal["warc", "json", "csv", "parquet", "zip", "tar", "html", "text", "mhtml"]

FORMATS: dict[str, Format] = {
    ending: format_
    for format_, endings in (
        ("warc", (".warc", ".wet", ".wat", ".arc")),
        ("json", (".jsonl", ".ndjson", ".json")),
        ("csv", (".csv", ".tsv")),
        ("parquet", (".parquet", ".pq")),
        ("zip", (".wacz", ".zip")),
        ("tar", (".tar", ".tgz", ".tbz2", ".txz")),
        ("html", (".html", ".htm", ".xhtml", ".shtml")),
        ("text", (".txt", ".md")),
        ("mhtml", (".mhtml", ".mht")),
    )
    for ending in endings
}
"""Endings and what files with them hold; `.gz`, `.zst`, `.bz2` or `.xz` may follow."""
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
SINGLE = ("html", "text", "mhtml")
"""Formats of single pages, many of which make a crawl."""
READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a damaged compressed file raises."""

# fmt: off
_ASSETS = frozenset((
    ".css", ".js", ".mjs", ".map", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".ico", ".webp", ".avif",
    ".bmp", ".woff", ".woff2", ".ttf", ".otf", ".eot", ".mp3", ".mp4", ".webm", ".ogg", ".wav", ".pdf",
    ".epub", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".exe", ".deb", ".rpm", ".so", ".py",
    ".pyc", ".class", ".jar",
))  # of a saved site; named by their endings, they need not be opened
# fmt: on
_HEAD = 4096
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,500}>\s*|<!--(?s:.){0,2000}?-->\s*){0,5}<(?:!doctype\s+html|html|head|script"
    rb"|iframe|h1|div|font|table|a|style|title|b|body|br|p|meta|link|main|article)[\s/>]",
    re.I,
)  # the WHATWG's MIME sniffing, section 7.1, behind what may stand in front of the first element
_MAGIC: tuple[tuple[Format, re.Pattern[bytes]], ...] = (
    ("warc", re.compile(rb"WARC/|filedesc:")),
    ("parquet", re.compile(rb"PAR1")),
    ("zip", re.compile(rb"PK\x03\x04")),
    ("tar", re.compile(rb".{257}ustar", re.S)),
    ("html", _HTML),
    ("json", re.compile(rb"(?:\xef\xbb\xbf)?\s*\[?\s*\{\s*\"")),
)
_HOST = re.compile(
    r"((?:[a-z0-9-]+\.)+(?:(?!(?:js|py|md|sh|ts|so|cc|pl|rs|ps|gz|xz|bz|ui)\b)[a-z]{2}|com|org|net|edu|gov|mil|int|info|biz"
    r"|name|dev|app|blog|wiki|xyz|online|site|example|test)|localhost)(?:[:+](\d{1,5}))?",
    re.I,
)  # as a folder's name; not such as python3.js
_SAVED = re.compile(
    rb"<!-- (?:saved from url=\(\d+\)|Mirrored from )((?:https?://)?[^\s<>\"]{4,2000})(?: by HTTrack| -->)"
)
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_ZSTD_WINDOW = 1 << 31  # what `zstd --long=31` needs
_ZSTD_FEED = 4096  # a block of 4 bytes may hold 128 KiB


def format_by_name(name: str) -> Format | None:
    """What a file of this name holds; None if its ending says nothing."""
    ending = PurePosixPath(_without_compression(name.lower())).suffix
    return FORMATS.get(ending)


def detect_format(path: Path) -> Format | None:
    """What a file holds, by its name or else by its first bytes; None if it is none of `FORMATS`."""
    if found := format_by_name(path.name):
        return found
    if path.suffix.lower() in _ASSETS:
        return None
    try:
        with open_plain(path) as file:
            return format_by_content(file.read(_HEAD))
    except READ_ERRORS:
        return None


def format_by_content(head: bytes) -> Format | None:
    """What a file holds that begins like this, without compression."""
    for found, magic in _MAGIC:
        if magic.match(head):
            return found
    return None


def looks_like_html(body: bytes) -> bool:
    """Whether a page begins like this (WHATWG, MIME Sniffing, section 7.1)."""
    return _HTML.match(body) is not None


def _without_compression(name: str) -> str:
    return name[: name.rindex(".")] if name.lower().endswith(COMPRESSIONS) else name


@contextmanager
def open_plain(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file without its compression, which its first bytes say, whatever its name. Reading raises
    one of `READ_ERRORS` where it is damaged.
    """
    with open(path, "rb") as file, plain(file) as content:
        yield content


@contextmanager
def plain(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The content of an open file that can be sought, without its compression; see `open_plain`."""
    magic = file.read(6)
    file.seek(0)
    content: IO[bytes]
    if magic[:2] == b"\x1f\x8b":
        content = gzip.GzipFile(fileobj=file)  # type: ignore[assignment] - it reads bytes
    elif magic[:4] == _ZSTD or _ZSTD_SKIPPABLE.match(magic):
        content = io.BufferedReader(_ZstdReader(file), 1 << 16)
    elif magic[:3] == b"BZh":
        content = bz2.BZ2File(file)
    elif magic == b"\xfd7zXZ\0":
        content = lzma.LZMAFile(file)  # noqa: SIM115 (closed below)
    else:
        yield file
        return
    with content:
        yield content


class _ZstdReader(io.RawIOBase):
    """Any number of zstd frames, skippable ones among them, with windows of up to 2 GiB. Raises OSError where they
    are damaged, EOFError where they are cut.
    """

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self.file, self.error = file, zstandard.ZstdError
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self.frame: Any = None
        self.packed = self.plain = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.plain and self._feed():
            pass
        count = min(len(buffer), len(self.plain))
        buffer[:count], self.plain = self.plain[:count], self.plain[count:]
        return count

    def _feed(self) -> bool:
        """Decompress some more; False at the end."""
        self.packed = self.packed or self.file.read(_ZSTD_FEED)
        if not self.packed:
            if self.frame is not None:
                raise EOFError("zstd data ends in the middle of a frame")
            return False
        if self.frame is None:
            self.packed += self.file.read(max(0, 8 - len(self.packed)))
            if _ZSTD_SKIPPABLE.match(self.packed):
                size = 8 + int.from_bytes(self.packed[4:8], "little")
                self.file.seek(max(0, size - len(self.packed)), io.SEEK_CUR)
                self.packed = self.packed[size:]
                return True
            self.frame = self.decompressor.decompressobj()
        try:
            self.plain = self.frame.decompress(self.packed)
        except self.error as error:
            raise OSError(str(error)) from None
        self.packed = self.frame.unused_data
        if self.frame.eof:
            self.frame = None
        return True


class SinglePage(NamedTuple):
    """A saved page or a text."""

    url: str
    kind: str
    """text/html or text/plain."""
    body: bytes


def read_single(name: str, content: bytes, format_: Format) -> SinglePage:
    """The page in a file of one of the formats `SINGLE`. Its URL is the one that the browser or program wrote into
    it that saved it; otherwise that of the host after which the first folder of `name` is named, as wget does;
    otherwise file:/// and `name`. Raises BadInput if there is no page in it.
    """
    if format_ == "mhtml":
        return _from_mhtml(name, content)
    url = _url_of(name)
    if format_ == "text":
        if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            content = content.decode("utf-16", "replace").encode()
        return SinglePage(url, "text/plain", content.removeprefix(BOM_UTF8))
    if saved := _SAVED.search(content[:_HEAD]):
        found = saved[1].decode("utf-8", "replace")
        url = found if "://" in found else f"http://{found}"
    return SinglePage(url, "text/html", content)


def _url_of(name: str) -> str:
    first, _, rest = name.partition("/")
    if rest and (host := _HOST.fullmatch(first)):
        port = f":{host[2]}" if host[2] else ""
        return f"https://{host[1].lower()}{port}/{quote(rest.encode('utf-8', 'surrogateescape'))}"
    return f"file:///{quote(name.encode('utf-8', 'surrogateescape'))}"


def _from_mhtml(name: str, content: bytes) -> SinglePage:
    """RFC 2557, as browsers write it."""
    message = message_from_bytes(content)
    for part in message.walk():
        if part.get_content_type() in ("text/html", "application/xhtml+xml"):
            payload = part.get_payload(decode=True)
            body = payload if isinstance(payload, bytes) else b""
            charset = part.get_content_charset("utf-8")
            if charset not in ("utf-8", "us-ascii") and not body.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
                with suppress(LookupError):  # an unknown charset: the bytes speak for themselves
                    body = BOM_UTF8 + body.decode(charset, "replace").encode()
            url = message["Snapshot-Content-Location"] or part["Content-Location"] or _url_of(name)
            url = "".join(str(url).split()).encode("utf-8", "replace").decode()
            return SinglePage(url, "text/html", body)
    raise BadInput(f"{name} holds no HTML page")
