"""A page without defences, but for single layers of them, so that each can be measured alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

from crawltalk.serve.http.middleware import CONTENT_SECURITY_POLICY
from crawltalk.serve.ui.routes import STATIC

ESCAPING, ALLOW_LIST, POLICY, EXACT, FLOW = (
    "escaping",
    "allow-list",
    "content security policy",
    "exact string",
    "information flow",
)
LAYERS = (ESCAPING, ALLOW_LIST, POLICY, EXACT, FLOW)


@contextmanager
def serving_undefended() -> Iterator[str]:
    """A page without defences, at a port of this machine that nobody knows, for as long as the red team works. No
    server of the product has it.
    """
    script = Path(__file__).with_name("undefended.js").read_bytes()
    marked = (STATIC / "vendor/marked/marked.esm.js").read_bytes()
    page = b"<!doctype html><meta charset=utf-8><title>undefended</title><script type=module src=/page.js></script>"
    files = {
        "/": ("text/html", page),
        "/page.js": ("text/javascript", script),
        "/marked.js": ("text/javascript", marked),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            kind, body = files.get(path, ("text/plain", b""))
            self.send_response(200 if path in files else 404)
            self.send_header("content-type", f"{kind}; charset=utf-8")
            asked = parse_qs(query)
            if POLICY in asked.get("layer", []):  # the page asks another server than the one that it is from
                policy = CONTENT_SECURITY_POLICY.replace(
                    "connect-src 'self'", f"connect-src {asked['server'][0]}"
                )
                self.send_header("content-security-policy", policy)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
