"""Pages of an allowed address, from a server in this process."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from crawltalk.core.errors import BadInput
from crawltalk.tools.fetch import MAX_BYTES, Fetch, _is_public

PAGE = (
    b"<html><head><title>T</title></head><body><nav>Menu</nav><main><p>Dysprosium is a chemical element. It has the"
    b" symbol Dy and the atomic number 66, and it is a rare earth.</p></main></body></html>"
)


class Handler(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        path, _, target = self.path.partition("?to=")
        code, kind, body = 200, "text/html", PAGE
        match path:
            case "/docs/plain":
                kind, body = "text/plain; charset=utf-8", "ein Käse".encode()
            case "/docs/large":
                kind, body = "text/plain", b"y" * (MAX_BYTES + 5000)
            case "/docs/image":
                kind, body = "image/png", b"\x89PNG"
            case "/docs/missing":
                code = 404
            case "/docs/slow":
                self.send_response(200)
                self.end_headers()
                for _ in range(400):  # 20 s
                    time.sleep(0.05)
                    self.wfile.write(b"z" * 7_000)
                return
            case "/docs/away" | "/docs/around":
                code = 302
        self.send_response(code)
        if code == 302:
            self.send_header("location", target or self.path)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture(scope="module")
def site():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # clients that hang up
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def fetch(site):
    return Fetch([f"{site}/docs/"], seconds=30.0, private=True)


def test_the_main_text_of_a_page_is_what_it_says(fetch, site):
    result = fetch.call({"url": f"{site}/docs/element?a=1"})
    assert "Dysprosium is a chemical element" in result.text.shown and "<p>" not in result.text.shown
    assert result.source == f"{site}/docs/element?a=1" and not result.error
    assert fetch.call({"url": f"{site}/docs/plain"}).text.shown == "ein Käse"


def test_a_page_can_be_asked_for_only_once(fetch, site):
    Handler.asked.clear()
    remembering = Fetch([f"{site}/docs/"], private=True, once=True)
    for tool in (remembering, remembering, fetch, fetch):
        assert tool.call({"url": f"{site}/docs/plain"}).text.shown == "ein Käse"
    assert Handler.asked == ["/docs/plain"] * 3


def test_only_addresses_of_the_list_are_asked_for(fetch, site):
    Handler.asked.clear()
    port = site.rpartition(":")[2]
    for url in (
        f"{site}/", f"{site}/docs", f"{site}/docsother", f"{site}/other/docs/", f"{site}/docs/../secret",
        f"{site}/docs/%2e%2e/secret", f"{site}/docs/.%2E/x", f"{site}/docs/..%2fx", f"http://localhost:{port}/docs/",
        f"http://user@127.0.0.1:{port}/docs/", f"http://127.0.0.1:{port}@elsewhere.example/docs/", "file:///etc/passwd",
        "http://127.0.0.1/docs/", f"https://127.0.0.1:{port}/docs/", "gopher://127.0.0.1/docs/", "docs", "",
        f"http:\\\\127.0.0.1:{port}\\docs", f"{site}/docs/ x", f"{site}/docs/\r\nhost: x", "http://[::1/docs/",
    ):  # fmt: skip
        with pytest.raises(BadInput):
            fetch.call({"url": url})
    assert Handler.asked == []


def test_redirects_are_checked_like_first_addresses(fetch, site):
    assert "Dysprosium" in fetch.call({"url": f"{site}/docs/away?to=/docs/element"}).text.shown
    for target in (
        "/secret",
        "http://169.254.169.254/latest/",
        "//elsewhere.example/docs/",
        "file:///etc/passwd",
    ):
        Handler.asked.clear()
        with pytest.raises(BadInput):
            fetch.call({"url": f"{site}/docs/away?to={target}"})
        assert len(Handler.asked) == 1
    with pytest.raises(BadInput, match="redirects more than 3 times"):
        fetch.call({"url": f"{site}/docs/around"})


def test_size_time_and_kind_are_limited(fetch, site):
    large = fetch.call({"url": f"{site}/docs/large"})
    assert large.truncated and len(large.text) == MAX_BYTES
    hasty, began = Fetch([f"{site}/docs/"], seconds=1.0, private=True), time.monotonic()
    with pytest.raises(BadInput, match="did not come within 1 s"):
        hasty.call({"url": f"{site}/docs/slow"})
    assert time.monotonic() - began < 15
    for path, wrong in (("image", "no text but image/png"), ("missing", "answered 404")):
        with pytest.raises(BadInput, match=wrong):
            fetch.call({"url": f"{site}/docs/{path}"})


def test_addresses_of_private_networks_are_refused(site):
    Handler.asked.clear()
    port = site.rpartition(":")[2]
    with pytest.raises(BadInput, match="private network"):
        Fetch([f"{site}/docs/"]).call({"url": f"{site}/docs/element"})
    with pytest.raises(BadInput, match="private network"):
        Fetch([f"http://localhost:{port}/"]).call({"url": f"http://localhost:{port}/docs/element"})
    assert Handler.asked == []
    private = (
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
        "2002:7f00:1::", "64:ff9b::7f00:1", "2001:db8::1",
    )  # fmt: skip
    assert not any(map(_is_public, private))
    assert all(map(_is_public, ("8.8.8.8", "151.101.0.223", "2606:4700::1111")))


def test_a_list_is_needed_and_is_made_of_addresses():
    for allowed in ([], ["docs.python.org"], ["ftp://a.example/"], ["https://a.example/../"]):
        with pytest.raises(BadInput):
            Fetch(allowed)
    assert Fetch(["https://docs.python.org/3/"]).notice == "fetch gets pages below https://docs.python.org/3/"
