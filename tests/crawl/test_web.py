"""The web crawler, against a real server on this machine."""

import gzip
import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator
from warcio.archiveiterator import ArchiveIterator as OtherIterator

from crawltalk.cli import main
from crawltalk.core.errors import BadInput, UserError
from crawltalk.crawl.robots import page_rules
from crawltalk.crawl.web import WebCrawl, crawl_web, normalize
from crawltalk.data.read.warc import read_pages

FAST = WebCrawl(delay=0.0, depth=9)


class Site:
    """A web server: `pages` maps a path to (status, headers, body); `requests` tells path and time of each
    request.
    """

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.requests: list[tuple[str, float]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.requests.append((self.path, time.monotonic()))
                status, headers, body = site.answer(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if headers.get("Transfer-Encoding") == "chunked":
                    self.end_headers()
                    self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
                    return
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        return self.pages.get(path, (404, {"Content-Type": "text/html"}, b"nothing here"))

    def page(self, path: str, links: list[str], text: str = "", **headers: str) -> None:
        """Add an HTML page with links."""
        anchors = "".join(f'<a href="{link}">x</a>' for link in links)
        body = f"<html><head></head><body>{path} {text} {anchors}</body></html>".encode()
        self.pages[path] = (
            200,
            {"Content-Type": "text/html; charset=utf-8"}
            | {k.replace("_", "-"): v for k, v in headers.items()},
            body,
        )

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests if path != "/robots.txt"]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    yield server
    server.close()


def stored(folder: Path) -> list[tuple[str, str]]:
    """(type, path) of all records but requests, read by fastwarc; warcio must agree."""
    result, others = [], []
    for path in sorted(folder.glob("crawl-*.warc.gz")):
        for record in ArchiveIterator(io.BytesIO(path.read_bytes())):
            result.append(
                (record.headers["WARC-Type"], record.headers.get("WARC-Target-URI", "").split("/", 3)[-1])
            )
        others += [record.rec_type for record in OtherIterator(io.BytesIO(path.read_bytes()))]
    assert [kind for kind, _ in result] == others
    return [(kind, f"/{path}") for kind, path in result if kind not in ("request", "warcinfo")]


def test_links_are_followed_breadth_first_to_the_depth(site: Site, tmp_path: Path):
    site.page("/", ["/a", "/b#part", "/a?x=1", "/a"])
    site.page("/a", ["/c", "b", "http://other.example/"])
    site.page("/a?x=1", [])
    site.page("/b", ["/"])
    site.page("/c", ["/d"])
    counts = crawl_web([f"{site.address}"], tmp_path, WebCrawl(delay=0.0, depth=2))
    assert site.paths() == ["/", "/a", "/b", "/a?x=1", "/c"] and counts == {"stored": 5, "waiting": 1}
    assert [path for _, path in stored(tmp_path)] == ["/", "/a", "/b", "/a?x=1", "/c"]
    pages = list(read_pages(tmp_path / "crawl-00000.warc.gz", 10**6, lambda warning: None))
    assert [page.body for page in pages] == [site.pages[path][2] for path in site.paths()]
    assert not any(page.fault for page in pages)
    crawl_web([site.address], tmp_path, WebCrawl(delay=0.0, depth=2))
    assert len(site.paths()) == 5  # nothing was left to do
    crawl_web([site.address], tmp_path, FAST)
    assert site.paths()[5:] == ["/d"]


def test_robots_txt_and_the_pages_own_rules_are_obeyed(site: Site, tmp_path: Path):
    site.pages["/robots.txt"] = (
        200,
        {},
        b"User-agent: *\nDisallow: /private\nUser-agent: crawltalk\nDisallow: /mine\nCrawl-delay: 0.2",
    )
    site.page("/", ["/private", "/mine/x", "/alone", "/hidden", "/blind"])
    site.page("/private", [])
    site.page("/alone", ["/far"], X_Robots_Tag="nofollow")
    site.page("/hidden", ["/behind"], "<meta name=ROBOTS content='NOINDEX'>")
    site.page("/behind", [])
    site.pages["/blind"] = (200, {"Content-Type": "text/html"}, b"<a href=/far rel='x nofollow'>x</a>")
    counts = crawl_web([site.address], tmp_path, FAST)
    assert site.paths() == ["/", "/private", "/alone", "/hidden", "/blind", "/behind"]
    assert counts == {"stored": 5, "forbidden": 1, "noindex": 1}
    times = [moment for path, moment in site.requests if path != "/robots.txt"]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.19


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_robots_txt_that_cannot_be_read_forbids_all(site: Site, tmp_path: Path, status: int):
    site.pages["/robots.txt"] = (status, {}, b"")
    site.page("/", [])
    with pytest.raises(UserError, match=rf"nothing was stored: http.*robots\.txt cannot be read.*{status}"):
        crawl_web([site.address], tmp_path, FAST)
    assert site.paths() == []


def test_a_robots_txt_with_a_byte_order_mark_is_obeyed_from_its_first_line(site: Site, tmp_path: Path):
    site.pages["/robots.txt"] = (200, {}, b"\xef\xbb\xbfUser-agent: *\nDisallow: /private\n")
    site.page("/", ["/private"])
    site.page("/private", [])
    assert crawl_web([site.address], tmp_path, FAST) == {"forbidden": 1, "stored": 1}


def test_a_robots_txt_that_redirects_for_ever_is_as_good_as_none(site: Site, tmp_path: Path):
    site.pages["/robots.txt"] = (302, {"Location": "/robots.txt"}, b"")
    site.page("/", [])
    assert crawl_web([site.address], tmp_path, FAST) == {"stored": 1}


@pytest.mark.parametrize("rule", ["Crawl-delay: 86400", "Crawl-delay: 1e14", "Request-rate: 1/1d"])
def test_a_host_that_asks_for_a_pause_of_a_day_is_not_crawled_and_says_so(
    rule: str, site: Site, tmp_path: Path
):
    site.pages["/robots.txt"] = (200, {}, f"User-agent: *\n{rule}".encode())
    site.page("/", [])
    with pytest.raises(UserError, match=r"asks for [\d,]+ seconds between pages; at most 300"):
        crawl_web([site.address], tmp_path, FAST)
    assert site.paths() == []


@pytest.mark.parametrize(
    ("headers", "metas", "rules"),
    [
        (["noindex"], [], {"noindex"}),
        (["NoIndex, NoFollow"], [], {"noindex", "nofollow"}),
        (["none"], [], {"noindex", "nofollow"}),
        (["otherbot: noindex, nofollow"], [], set()),
        (["otherbot: noindex", "nofollow"], [], {"nofollow"}),
        (["crawltalk: noindex"], [], {"noindex"}),
        (["otherbot: nofollow, CrawlTalk: noindex"], [], {"noindex"}),
        (["max-image-preview:none, max-snippet: -1"], [], set()),
        (["unavailable_after: 25 Jun 2010 15:00:00 GMT"], [], {"noindex"}),
        (["unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT"], [], {"noindex"}),
        (["unavailable_after: 25-Jun-2010 15:00:00 GMT"], [], {"noindex"}),
        (["unavailable_after: 2999-01-01"], [], set()),
        (["unavailable_after: soon"], [], set()),
        ([], [("robots", "index, follow, max-image-preview:none")], set()),
        ([], [("robots", "max-image-preview: none; nosnippet")], set()),
        ([], [("ROBOTS", "NOINDEX NOFOLLOW")], {"noindex", "nofollow"}),
        ([], [("googlebot", "noindex")], set()),
        ([], [("crawltalk", "nofollow"), ("robots", "noarchive")], {"nofollow"}),
        ([], [("robots", "unavailable_after: 2010-06-25, nofollow")], {"noindex", "nofollow"}),
        ([], [("description", "none")], set()),
    ],
)
def test_the_rules_of_a_page_are_those_for_this_crawler(headers, metas, rules):
    assert page_rules(headers, metas) == rules


def test_a_start_that_redirects_to_another_host_moves_the_crawl_there(site: Site, tmp_path: Path):
    elsewhere = site.address.replace("127.0.0.1", "localhost")
    site.pages["/start"] = (301, {"Location": f"{elsewhere}/"}, b"")
    site.page("/", ["/a", "http://other.example/"])
    site.page("/a", ["/b"])
    site.page("/b", [])
    crawl_web([f"{site.address}/start"], tmp_path, WebCrawl(delay=0.0, pages=2))
    crawl_web([f"{site.address}/start"], tmp_path, FAST)  # goes on there after an interruption
    assert site.paths() == ["/start", "/", "/a", "/b"]


def test_a_page_whose_type_is_odd_or_not_said_is_judged_by_its_bytes(site: Site, tmp_path: Path):
    html = b"\xef\xbb\xbf <!-- a --><html><a href='/found'>x</a></html>"
    kinds = ["text/html charset=utf-8", "text/html;;charset=UTF-8", "Text/HTML, text/html", '"text/html"']
    for number, kind in enumerate(kinds):
        site.pages[f"/odd{number}"] = (200, {"Content-Type": kind}, html + bytes([97 + number]))
    site.pages["/none"] = (200, {}, html)
    site.pages["/unknown"] = (200, {"Content-Type": "unknown/unknown"}, b"<p>" + html)
    site.pages["/text"] = (200, {}, b"no markup at all")
    site.pages["/stale"] = (200, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, html + b"stale")
    site.pages["/label"] = (200, {"Content-Type": "text/html; charset=nobody-knows"}, html + b"label")
    site.page("/found", [])
    site.page("/", [path for path in site.pages if path != "/"])
    assert crawl_web([site.address], tmp_path, FAST) == {"not HTML": 1, "stored": 10}


def test_a_page_that_sends_the_reader_on_by_its_markup_is_followed(site: Site, tmp_path: Path):
    site.page("/", [], "<meta http-equiv=Refresh content='0; URL=/next'>")
    site.page("/next", [])
    assert crawl_web([site.address], tmp_path, FAST) == {"stored": 2}


def test_redirects_are_recorded_and_followed_on_the_site_only(site: Site, tmp_path: Path):
    site.pages["/"] = (302, {"Location": "/moved"}, b"")
    site.pages["/moved"] = (301, {"Location": "/end"}, b"")
    site.page("/end", ["/out", "/loop0"])
    site.pages["/out"] = (301, {"Location": "http://other.example/"}, b"")
    for n in range(20):
        site.pages[f"/loop{n}"] = (302, {"Location": f"/loop{n + 1}"}, b"")
    crawl_web([site.address], tmp_path, FAST)
    assert site.paths()[:4] == ["/", "/moved", "/end", "/out"] and len(site.paths()) == 4 + 11
    assert ("response", "/moved") in stored(tmp_path)


def test_the_same_body_is_stored_once_and_referred_to(site: Site, tmp_path: Path):
    site.page("/", ["/a", "/b"])
    for path in ("/a", "/b"):
        site.pages[path] = (200, {"Content-Type": "text/html"}, b"<p>the same</p>")
    assert crawl_web([site.address], tmp_path, FAST) == {"duplicate": 1, "stored": 2}
    assert stored(tmp_path) == [("response", "/"), ("response", "/a"), ("revisit", "/b")]


def test_a_busy_server_is_asked_again_when_it_wants_and_given_up_after_three_tries(
    site: Site, tmp_path: Path
):
    site.page("/", ["/busy", "/never"])
    busy = iter([(429, {"Retry-After": "1"}, b""), (200, {"Content-Type": "text/html"}, b"<p>now</p>")])
    plain = site.answer
    site.answer = lambda path: (
        next(busy) if path == "/busy" else (503, {}, b"") if path == "/never" else plain(path)
    )  # type: ignore
    counts = crawl_web([site.address], tmp_path, FAST)
    assert counts == {"failed": 1, "stored": 2} and site.paths().count("/never") == 3
    times = [moment for path, moment in site.requests if path == "/busy"]
    assert len(times) == 2 and times[1] - times[0] > 0.95


def test_bodies_come_as_they_are_and_other_kinds_not_at_all(site: Site, tmp_path: Path):
    site.page("/", ["/gzip", "/chunked", "/image", "/huge"])
    html = b"<p>text</p><a href=/inside>x</a>"
    site.pages["/gzip"] = (
        200,
        {"Content-Type": "text/html", "Content-Encoding": "gzip"},
        gzip.compress(html),
    )
    site.pages["/chunked"] = (200, {"Content-Type": "text/html", "Transfer-Encoding": "chunked"}, html + b" ")
    site.pages["/image"] = (200, {"Content-Type": "image/png"}, b"\x89PNG" * 1000)
    site.pages["/huge"] = (200, {"Content-Type": "text/html"}, b"<p>" + b"x" * 3_000_000)
    site.page("/inside", [])
    counts = crawl_web([site.address], tmp_path, WebCrawl(delay=0.0, max_page_bytes=100_000))
    assert counts == {"not HTML": 1, "stored": 5}
    pages = {
        page.url.rsplit("/", 1)[1]: page
        for page in read_pages(tmp_path / "crawl-00000.warc.gz", 10**7, lambda warning: None)
    }
    assert (
        pages["gzip"].body == html
        and pages["chunked"].body == html + b" "
        and len(pages["huge"].body) == 100_000
    )
    records = ArchiveIterator(io.BytesIO((tmp_path / "crawl-00000.warc.gz").read_bytes()))
    heads = {
        record.headers["WARC-Target-URI"]: dict(record.headers)
        for record in records
        if record.headers["WARC-Type"] == "response"
    }
    assert heads[f"{site.address}/huge"]["WARC-Truncated"] == "length"
    assert heads[f"{site.address}/gzip"]["WARC-IP-Address"] == "127.0.0.1"


def test_a_crawl_killed_at_any_moment_goes_on_without_loss_or_repetition(site: Site, tmp_path: Path):
    for n in range(60):
        site.page(f"/{n or ''}", [f"/{2 * n + 1}", f"/{2 * n + 2}"] if n < 30 else [])
    program = (
        "import sys; from pathlib import Path; from crawltalk.crawl.web import crawl_web, WebCrawl\n"
        "crawl_web([sys.argv[1]], Path(sys.argv[2]), WebCrawl(delay=0.01, depth=9, pages_per_file=7))"
    )
    words = [sys.executable, "-c", program, site.address, str(tmp_path)]
    for after in (5, 20, 33, 46):
        with subprocess.Popen(words) as process:
            while len(site.paths()) < after and process.poll() is None:
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
    assert subprocess.run(words, check=False).returncode == 0
    pages = [path for kind, path in stored(tmp_path) if kind == "response"]
    assert sorted(pages) == sorted(f"/{n or ''}" for n in range(61))
    assert not list(tmp_path.glob("*.open"))


def test_a_limit_of_pages_ends_the_crawl_and_more_pages_go_on(site: Site, tmp_path: Path):
    for n in range(6):
        site.page(f"/{n or ''}", [f"/{n + 1}"])
    assert crawl_web([site.address], tmp_path, WebCrawl(delay=0.0, depth=9, pages=2))["stored"] == 2
    assert crawl_web([site.address], tmp_path, WebCrawl(delay=0.0, depth=9, pages=4))["stored"] == 4
    assert [path for _, path in stored(tmp_path)] == ["/", "/1", "/2", "/3"]


def test_mistakes_get_one_line(site: Site, tmp_path: Path):
    with pytest.raises(BadInput, match="not a web address"):
        crawl_web(["ftp://a.example/"], tmp_path)
    site.page("/", [])
    crawl_web([site.address], tmp_path, FAST)
    with pytest.raises(UserError, match="holds a crawl of"):
        crawl_web([f"{site.address}/other"], tmp_path, FAST)
    with pytest.raises(UserError, match=r"nothing was stored: .*cannot connect: Connection refused"):
        crawl_web(["http://127.0.0.1:1/"], tmp_path / "none", FAST)


@pytest.mark.parametrize(
    ("url", "base", "normal"),
    [
        ("HTTP://Example.ORG:80/a/../b#c", "", "http://example.org/b"),
        ("../x y?q=ä", "https://a.example/d/e/f", "https://a.example/d/x%20y?q=%C3%A4"),
        ("https://münchen.example", "", "https://xn--mnchen-3ya.example/"),
        ("http://a.example:8080", "", "http://a.example:8080/"),
        ("mailto:x@a.example", "http://a.example/", None),
        ("http://a.example/x/x/x/x/x", "", None),
        ("http://a.example/" + "x" * 3000, "", None),
        ("http://a.example:port/", "", None),
    ],
)
def test_a_url_has_one_form_and_traps_have_none(url: str, base: str, normal: str | None):
    assert normalize(url, base) == normal


def test_the_verb_crawls_and_its_files_are_a_source(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    site.page("/", [])
    assert main(["crawl", site.address, "--out", str(tmp_path / "c"), "--delay", "0"]) == 0
    assert (
        "crawltalk run own --crawl.source" in capsys.readouterr().out
        and (tmp_path / "c" / "crawl-00000.warc.gz").exists()
    )
    assert (
        main(["crawl", "nano", "--out", str(tmp_path / "run"), "--crawl.source", f"{tmp_path}/c/*.warc.gz"])
        == 0
    )
