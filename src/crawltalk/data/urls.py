"""URL filter: blocked domains and words, before anything is parsed (RefinedWeb, Penedo et al. 2023, G.1; FineWeb 3.1)."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from crawltalk.core.errors import BadInput, MissingInput

WORDS = frozenset({"porn", "xxx", "casino", "viagra", "betting", "torrent"})
"""Words that block a URL where they stand whole between hyphens, slashes, dots and the like."""

_BUILT_IN = Path(__file__).with_name("blocklist.txt")
_DOMAIN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def read_blocklist(path: str | None = None) -> frozenset[str]:
    """The built-in domains and those of the user's file. Raises MissingInput, or BadInput with the line's number."""
    domains = _read_domains(_BUILT_IN)
    if path is not None:
        if not Path(path).is_file():
            raise MissingInput(f"data.blocklist = {path!r} is not a file; give one with a domain a line")
        domains |= _read_domains(Path(path))
    return domains


def _read_domains(path: Path) -> frozenset[str]:
    domains = set()
    for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
        domain = line.split("#")[0].strip().lower().removeprefix("www.")
        if domain and not _DOMAIN.fullmatch(domain):
            raise BadInput(f"{path}, line {number}: {domain[:40]!r} is not a domain such as pills.example")
        domains.add(domain)
    return frozenset(domains - {""})


def host_of(url: str) -> str:
    """The host in lower case, without port, user and www; empty if there is none."""
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:  # such as http://[half-an-ipv6
        return ""


def blocked_url(url: str, domains: frozenset[str]) -> str | None:
    """Why this URL is blocked, or None."""
    labels = host_of(url).split(".")
    for start in range(len(labels)):
        domain = ".".join(labels[start:])
        if domain in domains:
            return f"domain {domain}"
    words = re.split(r"[^a-z0-9]+", unquote(url).lower())
    return next((f"word {word}" for word in words if word in WORDS), None)
