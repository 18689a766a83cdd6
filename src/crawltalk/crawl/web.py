"""A polite web crawler: `crawltalk crawl URL...` fetches pages and writes WARC.

It obeys robots.txt and the rules of single pages (`crawl.robots`), asks a host for one page at a time with a
pause in between, follows links breadth first up to a depth, and stays on the sites of its start URLs and of those
that they redirect to. Its state is kept in `frontier.sqlite` beside the WARC files.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from crawltalk.core.errors import BadInput, UserError
from crawltalk.core.formats import looks_like_html
from crawltalk.crawl.frontier import Entry, Frontier
from crawltalk.crawl.robots import LONGEST_PAUSE, TOKEN, RobotsFile, page_rules
from crawltalk.crawl.writer import Fetched, Writer

TRIES = 3
_HOPS = 10
_LONGEST = 2000  # characters of a URL
_REPEATS = 3  # of one segment in a path; more is a trap
_LONGEST_WAIT = 3600.0
_ROBOTS_BYTES = 500 << 10  # RFC 9309, 2.5
_HTML = ("text/html", "application/xhtml+xml")
_UNKNOWN = ("", "unknown/unknown", "application/unknown", "*/*")
"""Content types that say nothing (MIME Sniffing, 7): the bytes decide."""

Report = Callable[[int, str], Any]


@dataclass(frozen=True, kw_only=True)
class WebCrawl:
    """How far to go, and how politely."""

    depth: int = 2
    """Links away from the start."""
    pages: int = 1000
    """Most pages to store."""
    delay: float = 1.0
    """Seconds between two requests to one host; more if its robots.txt asks for it."""
    same_site: bool = True
    """Only the hosts of the start URLs; a leading www. makes no difference."""
    agent: str = field(default_factory=lambda: f"Mozilla/5.0 (compatible; {TOKEN}/{version('crawltalk')})")
    """The User-Agent header."""
    max_page_bytes: int = 10_000_000
    """A longer body is cut."""
    timeout: float = 30.0
    """Seconds to wait for a host."""
    pages_per_file: int = 1000


def crawl_web(
    urls: Sequence[str],
    out: Path,
    settings: WebCrawl | None = None,
    report: Report = lambda stored, url: None,
) -> dict[str, int]:
    """Crawl from the start URLs into `out/crawl-*.warc.gz`, continuing where an earlier call ended.

    `report` is called with the number of stored pages and the current URL. Returns the number of URLs in each
    state. Raises BadInput for a start that is not a URL, UserError if nothing could be fetched or `out` belongs
    to another crawl.
    """
    settings = settings or WebCrawl()
    starts = [_start(url) for url in urls]
    out.mkdir(parents=True, exist_ok=True)
    frontier = Frontier(out / "frontier.sqlite")
    try:
        if frontier.load_value("starts") not in (None, starts):
            raise UserError(
                f"{out} holds a crawl of {' '.join(frontier.load_value('starts'))}; give another folder with --out"
            )
        frontier.save_value("starts", starts)
        frontier.add([(url, host_of(url)) for url in starts], 0)
        frontier.commit()
        Crawler(starts, out, settings, frontier, report).run()
        counts = frontier.counts()
        if not counts.get("stored"):
            note = frontier.base.execute(
                "SELECT url, state, note FROM pages WHERE state != 'waiting'"
            ).fetchone()
            raise UserError(f"nothing was stored: {': '.join(filter(None, note or starts[:1]))}")
        return counts
    finally:
        frontier.close()


def host_of(url: str) -> str:
    """Host, with the port if it is not the scheme's own."""
    return urlsplit(url).netloc


def normalize(url: str, base: str = "") -> str | None:
    """The canonical form of a URL, or None if it should not be fetched."""
    try:
        parts = urlsplit(urljoin(base, url.strip()))
        host = (parts.hostname or "").encode("idna").decode().lower()
        port = parts.port
    except ValueError:  # an invalid port, or a host that IDNA refuses
        return None
    segments = _without_dots(parts.path.split("/"))
    if (
        parts.scheme not in ("http", "https")
        or not host
        or any(segments.count(one) > _REPEATS for one in set(segments) - {""})
    ):
        return None
    netloc = host if port in (None, {"http": 80, "https": 443}[parts.scheme]) else f"{host}:{port}"
    safe = "%/:=&?~+!$,;'@()*[]"
    found = urlunsplit(
        (parts.scheme, netloc, quote("/".join(segments) or "/", safe), quote(parts.query, safe), "")
    )
    return found if len(found) <= _LONGEST else None


def _without_dots(segments: Sequence[str]) -> list[str]:
    """Resolve . and .. in the segments of an absolute path (RFC 3986, 5.2.4)."""
    found: list[str] = []
    for segment in segments:
        if segment == "..":
            del found[max(1, len(found) - 1) :]
        elif segment != ".":
            found.append(segment)
    return [*found, ""] if segments[-1] in (".", "..") else found


def _start(url: str) -> str:
    found = normalize(url) if "://" in url else None
    if found is None:
        raise BadInput(f"{url!r} is not a web address; give one such as https://www.example.org/")
    return found


class Crawler:
    """The HTTP client of a crawl, the robots.txt files that it has read, and the earliest time of the next
    request to each host.
    """

    def __init__(
        self, starts: Sequence[str], out: Path, settings: WebCrawl, frontier: Frontier, report: Report
    ) -> None:
        self.settings, self.frontier, self.report = settings, frontier, report
        self.sites = {host_of(url).removeprefix("www.") for url in starts}
        self.sites |= set(frontier.load_value("redirected_to") or ())
        self.writer = Writer(out, settings.pages_per_file, frontier)
        self.ready: dict[str, float] = {}
        self.robots: dict[str, RobotsFile | str] = {}
        """Of each host; or why it cannot be read now, and then everything is forbidden (RFC 9309, 2.3.1)."""

    def run(self) -> None:
        """Fetch until nothing waits or enough is stored."""
        import httpx

        headers = {
            "User-Agent": self.settings.agent,
            "Accept": "text/html,application/xhtml+xml",
            "Accept-Encoding": "gzip",
        }
        with httpx.Client(headers=headers, timeout=self.settings.timeout, max_redirects=5) as client:
            self.client = client
            while self.frontier.counts().get("stored", 0) < self.settings.pages:
                hosts = self.frontier.waiting_hosts(self.settings.depth)
                if not hosts:
                    break
                host = min(hosts, key=lambda name: self.ready.get(name, 0.0))
                time.sleep(max(0.0, self.ready.get(host, 0.0) - time.monotonic()))
                entry = self.frontier.next_of(host, self.settings.depth)
                assert entry is not None, host
                self._visit(entry)
                self.frontier.commit()
        self.writer.finish()

    def _visit(self, entry: Entry) -> None:
        """Fetch one URL, if that is allowed, and record its new state."""
        import httpx

        robots = self._robots(entry)
        if isinstance(robots, str):
            return self._retry_later(entry, 0.0, robots)
        pause = max(self.settings.delay, robots.pause())
        if forbidden := self._forbidden(entry, robots, pause):
            return self.frontier.settle(entry.url, "forbidden", forbidden)
        try:
            fetched = self._fetch(entry.url)
        except httpx.HTTPError as error:
            self.ready[entry.host] = time.monotonic() + pause
            return self._retry_later(entry, 0.0, _reason(error))
        self.ready[entry.host] = time.monotonic() + pause
        if isinstance(fetched, str):
            return self.frontier.settle(entry.url, "not HTML", fetched)
        status = fetched.response.status_code
        if status in (429, 503):
            return self._retry_later(
                entry, _retry_after(fetched.response.headers.get("retry-after", "")), f"HTTP status {status}"
            )
        return self._store(entry, fetched)

    def _forbidden(self, entry: Entry, robots: RobotsFile, pause: float) -> str:
        """Why the host's robots.txt keeps this crawler from the URL; empty if it does not."""
        if not robots.can_fetch(entry.url):
            return "robots.txt"
        if pause > max(LONGEST_PAUSE, self.settings.delay):
            return f"robots.txt asks for {pause:,.0f} seconds between pages; at most {LONGEST_PAUSE:.0f} are waited"
        return ""

    def _store(self, entry: Entry, fetched: Fetched) -> None:
        """Store a response and add its links, or the target of its redirect, to the frontier."""
        status, metas = fetched.response.status_code, list[tuple[str, str]]()
        state = "stored" if status == 200 else f"HTTP status {status}"
        tree = _tree(fetched) if status == 200 else None
        if tree:
            metas = [
                (meta.getattr("name", ""), meta.getattr("content", ""))
                for meta in tree.document.query_selector_all("meta[name]")
            ]
        rules = page_rules(fetched.response.headers.get_list("x-robots-tag"), metas)
        if tree and "nofollow" not in rules:
            self._add(_links(tree, entry.url), entry.depth + 1)
        elif (
            300 <= status < 400
            and entry.hops < _HOPS
            and (target := normalize(fetched.response.headers.get("location", ""), entry.url))
        ):
            self._redirect(entry, target)
        if "noindex" in rules:
            return self.frontier.settle(entry.url, "noindex")
        first = None
        if status == 200:
            digest = hashlib.sha256(fetched.body).hexdigest()
            first = self.frontier.first_with(digest, entry.url, fetched.date)
        self.writer.write(entry.url, fetched, first)
        self.frontier.settle(entry.url, "duplicate" if first else state)
        self.report(self.frontier.counts().get("stored", 0), entry.url)
        return None

    def _redirect(self, entry: Entry, target: str) -> None:
        """Add the target of a redirect. Where a start leads to another host, that is the site that was meant."""
        site = host_of(target).removeprefix("www.")
        if entry.depth == 0 and site not in self.sites:
            self.sites.add(site)
            known = self.frontier.load_value("redirected_to") or []
            self.frontier.save_value("redirected_to", [*known, site])
        self._add([target], entry.depth, entry.hops + 1)

    def _add(self, urls: Any, depth: int, hops: int = 0) -> None:
        found = [(url, host_of(url)) for url in dict.fromkeys(filter(None, urls))]
        if self.settings.same_site:
            found = [(url, host) for url, host in found if host.removeprefix("www.") in self.sites]
        self.frontier.add(found, depth, hops)

    def _fetch(self, url: str) -> Fetched | str:
        """The response; or its content type if that is not HTML, whose body is not read to the end."""
        with self.client.stream("GET", url) as response:
            fetched = Fetched(
                response, b"", False, response.extensions["network_stream"].get_extra_info("server_addr")[0]
            )
            kind = media_type(response.headers.get("content-type", ""))
            if response.status_code == 200 and kind not in (*_HTML, *_UNKNOWN):
                return kind
            pieces, size = [], 0
            for piece in response.iter_raw():
                pieces.append(piece)
                size += len(piece)
                if size > self.settings.max_page_bytes:
                    break
            fetched.body = b"".join(pieces)[: self.settings.max_page_bytes]
            fetched.truncated = size > self.settings.max_page_bytes
            sniffed = response.status_code == 200 and kind in _UNKNOWN
            if sniffed and not looks_like_html(fetched.content()):
                return kind or "no content type"
            return fetched

    def _robots(self, entry: Entry) -> RobotsFile | str:
        """The rules of a host, or why they cannot be read now."""
        import httpx

        key = f"{urlsplit(entry.url).scheme}://{entry.host}"
        if not isinstance(self.robots.get(key), RobotsFile):
            try:
                self.robots[key] = self._read_robots(f"{key}/robots.txt")
            except httpx.TooManyRedirects:  # as good as none (RFC 9309, 2.3.1.2)
                self.robots[key] = RobotsFile(b"")
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                self.robots[key] = _reason(error)
        return self.robots[key]

    def _read_robots(self, url: str) -> RobotsFile | str:
        with self.client.stream("GET", url, follow_redirects=True) as response:
            if response.status_code >= 500 or response.status_code == 429:
                return f"robots.txt cannot be read (HTTP status {response.status_code}), so everything is forbidden"
            content = b""
            for piece in response.iter_bytes() if response.status_code < 400 else ():
                content += piece
                if len(content) > _ROBOTS_BYTES:
                    break
            return RobotsFile(content[:_ROBOTS_BYTES])

    def _retry_later(self, entry: Entry, seconds: float, why: str) -> None:
        """Try again after a pause that doubles, or give the URL up."""
        if entry.tries + 1 >= TRIES:
            return self.frontier.settle(entry.url, "failed", why)
        pause = max(seconds, self.settings.delay * 2 ** (entry.tries + 1))
        self.ready[entry.host] = time.monotonic() + min(pause, _LONGEST_WAIT)
        return self.frontier.retry(entry.url)


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for: a number or a date (RFC 9110, 10.2.3)."""
    if re.fullmatch(r"\s*[0-9]+\s*", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _reason(error: Exception) -> str:
    """In words, without the number of the system's error: "cannot connect: Connection refused"."""
    import httpx

    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
    return f"cannot connect: {text}" if isinstance(error, httpx.ConnectError) else text


def media_type(content_type: str) -> str:
    """The type that a Content-Type header names, in lower case, whatever stands around it: that of "text/html
    charset=utf-8" and of "text/html, text/html" is text/html. Empty if there is none.
    """
    match = re.search(r"[\w.+*-]+/[\w.+*-]+", content_type)
    return match[0].lower() if match else ""


def _tree(fetched: Fetched) -> Any:
    """The page, parsed; None if it is nested so deeply that the parser hangs."""
    from resiliparse.parse.encoding import detect_encoding
    from resiliparse.parse.html import HTMLTree

    body = fetched.content()
    if body.count(b"<") > 200_000:
        return None
    try:
        return HTMLTree.parse(body.decode(fetched.response.charset_encoding or "", "replace"))
    except (LookupError, ValueError):  # no charset, or one that nobody knows
        return HTMLTree.parse_from_bytes(body, detect_encoding(body) or "utf-8")


def _links(tree: Any, url: str) -> Iterator[str | None]:
    """Targets of the page's links, without those that are marked nofollow."""
    base = tree.document.query_selector("base[href]")
    root = urljoin(url, base.getattr("href", "")) if base else url
    for element in tree.document.query_selector_all("a[href]"):
        if "nofollow" not in element.getattr("rel", "").lower().split():
            yield normalize(element.getattr("href", ""), root)
    for element in tree.document.query_selector_all("meta[http-equiv]"):
        refresh = re.match(r"[\d.\s]*[;,]?\s*url\s*=\s*(.+)", element.getattr("content", ""), re.IGNORECASE)
        if element.getattr("http-equiv", "").lower() == "refresh" and refresh:
            yield normalize(refresh[1].strip(" \"'"), root)
