"""A page of the web, if its address is on a list that a person made.

A model that has read a page may have been told by it what to fetch. So only allowed addresses are asked for;
redirects are followed by hand, each checked like a first address; a name is looked up once, and the address that was
checked is the one that is connected to; and addresses of private networks are refused, whatever their names are.
"""

import ipaddress
import socket
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

from crawltalk.core.errors import BadInput
from crawltalk.tools.tool import Tool, ToolResult, texts

MAX_BYTES = 2_000_000
MAX_REDIRECTS = 3
_TEXTS = ("text/", "application/json", "application/xhtml+xml", "application/xml")
_PORTS = {"http": 80, "https": 443}


class Fetch(Tool):
    """Gets the text of a page."""

    name = "fetch"
    description = "Gets the text of a web page."
    parameters = texts("url")
    sends = ("url",)

    def __init__(
        self, allowed: Sequence[str], *, seconds: float = 15.0, private: bool = False, once: bool = False
    ) -> None:
        """`allowed`: beginnings of addresses, such as https://docs.python.org/3/, which end at a part of the path.
        `private`: also in networks that only this machine can reach. `once`: remember pages, and ask for each once.
        Raises BadInput for what is no address.
        """
        if not allowed:
            raise BadInput("fetch needs to know what it may get: --allow https://docs.python.org/3/")
        self.allowed = [address_parts(url) for url in allowed]
        self.seconds, self.private = seconds, private
        self.once = once
        self._listed = ", ".join(allowed)
        self._fetched: dict[str, ToolResult] = {}

    @property
    def notice(self) -> str:
        return f"fetch gets pages below {self._listed}"

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        """The text of the page; of HTML its main text."""
        url = arguments["url"].strip()
        if url not in self._fetched:
            result = self._fetch(url)
            if not self.once:
                return result
            self._fetched[url] = result
        return self._fetched[url]

    def _fetch(self, url: str) -> ToolResult:
        import httpx

        deadline = time.monotonic() + self.seconds
        try:
            for _ in range(MAX_REDIRECTS + 1):
                status, headers, body, cut = self._get(url, deadline)
                if status not in (301, 302, 303, 307, 308):
                    break
                url = urljoin(url, headers.get("location", ""))
            else:
                raise BadInput(f"it redirects more than {MAX_REDIRECTS} times")
        except httpx.HTTPError as error:
            raise BadInput(f"the page cannot be read: {error or type(error).__name__}") from None
        if status != 200:
            raise BadInput(f"the server answered {status}")
        result = ToolResult.of(_text(headers.get("content-type", ""), body), url)
        return result if not cut else ToolResult(text=result.text, source=url, truncated=True)

    def _get(self, url: str, deadline: float) -> tuple[int, Any, bytes, bool]:
        """Status, headers, body, and whether that is cut. Raises BadInput for an address that is not allowed."""
        import httpx

        scheme, host, port, path = self._checked(url)
        address = self._address(host, port)
        query = urlsplit(url).query
        shown = f"[{address}]" if ":" in address else address
        headers = {
            "host": host if port == _PORTS[scheme] else f"{host}:{port}",
            "user-agent": "crawltalk-fetch",
        }
        with (
            httpx.Client(timeout=self.seconds, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "GET",
                f"{scheme}://{shown}:{port}{path}{'?' if query else ''}{query}",
                headers=headers,
                extensions={"sni_hostname": host},
            ) as response,
        ):
            body = b""
            for piece in response.iter_bytes(65_536):
                body += piece
                if len(body) > MAX_BYTES:
                    break
                if time.monotonic() > deadline:
                    raise BadInput(f"the page did not come within {self.seconds:g} s")
            return response.status_code, response.headers, body[:MAX_BYTES], len(body) > MAX_BYTES

    def _checked(self, url: str) -> tuple[str, str, int, str]:
        """Scheme, host, port and path of an allowed address. Raises BadInput for another one."""
        scheme, host, port, path = address_parts(url)
        for one in self.allowed:
            if (scheme, host, port) == one[:3] and (
                path == one[3] or path.startswith(one[3].rstrip("/") + "/")
            ):
                return scheme, host, port, path
        raise BadInput(f"this address is not on the list; allowed is what begins with {self._listed}")

    def _address(self, host: str, port: int) -> str:
        """The address of a host. Raises BadInput if any of its addresses is private."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise BadInput(f"there is no host {host}") from None
        addresses = [str(one[4][0]).partition("%")[0] for one in found]
        if not self.private and not all(map(_is_public, addresses)):
            raise BadInput(f"{host} is an address of a private network")
        return addresses[0]


def _is_public(address: str) -> bool:
    """Whether anybody can reach an address. One that carries an IPv4 address (mapped, 6to4, Teredo, NAT64) is not
    asked.
    """
    known = ipaddress.ip_address(address)
    if isinstance(known, ipaddress.IPv6Address) and (
        known.ipv4_mapped or known.sixtofour or known.teredo or known in ipaddress.ip_network("64:ff9b::/96")
    ):
        return False
    return known.is_global and not known.is_multicast


def address_parts(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path. Raises BadInput unless it is a plain address of the web."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    plain = url.isascii() and url.isprintable() and not any(mark in url for mark in ' \\<>"')
    if parts.scheme not in _PORTS or not host or parts.username is not None or not plain:
        raise BadInput(f"{url[:100]!r} is no web address such as https://docs.python.org/3/")
    path = parts.path or "/"
    if (
        any(segment.lower().replace("%2e", ".") in (".", "..") for segment in path.split("/"))
        or "%2f" in path.lower()
    ):
        raise BadInput("an address with .. in its path is not asked for")
    return parts.scheme, host.lower(), port or _PORTS[parts.scheme], path


def _text(content_type: str, body: bytes) -> str:
    """The text of a body. Raises BadInput for what is none."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind and not kind.startswith(_TEXTS):
        raise BadInput(f"the page is no text but {kind}")
    if "html" not in kind:
        return body.decode("utf-8", "replace")
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import detect_encoding
    from resiliparse.parse.html import HTMLTree

    if body.count(b"<") > 100_000:
        raise BadInput("the page has too much markup to be read")
    tree = HTMLTree.parse_from_bytes(body, detect_encoding(body) or "utf-8")
    return extract_plain_text(tree, main_content=True) or extract_plain_text(tree)
