"""Writes what a crawl fetched as WARC files."""

import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crawltalk.crawl.frontier import Frontier
from crawltalk.crawl.records import gzip_record
from crawltalk.crawl.robots import TOKEN

_REVISIT = "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"


@dataclass
class Fetched:
    """A response. Only the transfer encoding of its body is decoded."""

    response: Any
    body: bytes
    truncated: bool
    address: str
    """Of the host that answered."""
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))

    def content(self) -> bytes:
        """The body without its content encoding; as it came, if that header is not true."""
        import httpx

        try:
            return httpx.Response(200, headers=self.response.headers, content=self.body).content
        except httpx.DecodingError:
            return self.body


class Writer:
    """Writes WARC files one after the other. The name of the unfinished one ends in .open; at the start, records
    that the frontier has not committed are cut off.
    """

    def __init__(self, out: Path, pages_per_file: int, frontier: Frontier) -> None:
        self.out, self.pages_per_file, self.frontier = out, pages_per_file, frontier
        self.number, self.length, self.pages = frontier.load_value("file") or (0, 0, 0)
        for path in out.glob("crawl-*.warc.gz.open"):
            if path != self._path():
                path.rename(path.with_suffix(""))  # complete, and killed before it was named
        if self._path().exists():
            os.truncate(self._path(), self.length)

    def _path(self) -> Path:
        return self.out / f"crawl-{self.number:05d}.warc.gz.open"

    def write(self, url: str, fetched: Fetched, first: tuple[str, str] | None) -> None:
        """Append request and response. A body that another URL had before is replaced by a reference to it. The
        caller commits.
        """
        if self.pages >= self.pages_per_file:
            self.finish()
        with open(self._path(), "ab") as file:
            if not self.length:
                file.write(_info(self._path().stem))
            file.write(_exchange(url, fetched, first))
            file.flush()
            os.fsync(file.fileno())
            self.length = file.tell()
        self.pages += 1
        self.frontier.save_value("file", (self.number, self.length, self.pages))

    def finish(self) -> None:
        """Give the unfinished file its final name."""
        path = self._path()
        if path.exists():
            self.number, self.length, self.pages = self.number + 1, 0, 0
            self.frontier.save_value("file", (self.number, 0, 0))
            self.frontier.commit()
            path.rename(path.with_suffix(""))


def _info(name: str) -> bytes:
    block = f"software: {TOKEN} {version('crawltalk')}\r\nformat: WARC File Format 1.1\r\nrobots: obey\r\n".encode()
    return gzip_record(
        _head("warcinfo", block, {"WARC-Filename": name, "Content-Type": "application/warc-fields"}), block
    )


def _exchange(url: str, fetched: Fetched, first: tuple[str, str] | None) -> bytes:
    """Request and response as two records."""
    response, request = fetched.response, fetched.response.request
    request_head = _http_head(
        f"{request.method} {request.url.raw_path.decode()} HTTP/1.1", request.headers.raw
    )
    kept = [
        (name, value)
        for name, value in response.headers.raw
        if name.lower() not in (b"transfer-encoding", b"content-length")
    ]
    kept.append((b"Content-Length", str(len(fetched.body)).encode()))
    answered = _http_head(f"{response.http_version} {response.status_code} {response.reason_phrase}", kept)
    common = {"WARC-Target-URI": url, "WARC-Date": fetched.date, "WARC-IP-Address": fetched.address}
    own = {"Content-Type": "application/http;msgtype=response"}
    own["WARC-Payload-Digest"] = f"sha256:{hashlib.sha256(fetched.body).hexdigest()}"
    if fetched.truncated:
        own["WARC-Truncated"] = "length"
    if first:
        own |= {
            "WARC-Profile": _REVISIT,
            "WARC-Refers-To-Target-URI": first[0],
            "WARC-Refers-To-Date": first[1],
        }
    block = answered if first else answered + fetched.body
    head = _head("revisit" if first else "response", block, common | own)
    about = {"Content-Type": "application/http;msgtype=request", "WARC-Concurrent-To": head["WARC-Record-ID"]}
    return gzip_record(head, block) + gzip_record(
        _head("request", request_head, common | about), request_head
    )


def _http_head(first: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"".join([first.encode(), b"\r\n", *(b"%s: %s\r\n" % pair for pair in headers), b"\r\n"])


def _head(kind: str, block: bytes, fields: dict[str, str]) -> dict[str, str]:
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    head = {"WARC-Type": kind, "WARC-Record-ID": f"<urn:uuid:{uuid.uuid4()}>", "WARC-Date": date}
    return head | fields | {"Content-Length": str(len(block))}
