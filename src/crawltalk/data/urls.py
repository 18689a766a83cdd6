"""URL filter: blocked domains, URLs and words, before anything is parsed (RefinedWeb, Penedo et al. 2023, G.1; FineWeb 3.1).

A list of millions of entries is made into one sorted array of 64-bit hashes in a file, which all workers map into memory and
share: the full list of the University of Toulouse (UT1, 4.6 million domains) takes 37 MB for all of them together.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.stage import write_array

WORDS = frozenset({"porn", "xxx", "casino", "viagra", "betting", "torrent"})
"""Words that block a URL where they stand whole between hyphens, slashes, dots and the like."""

_BUILT_IN = Path(__file__).with_name("blocklist.txt")
_DOMAIN = re.compile(r"[\w-]+(\.[\w-]+)*\.?")
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://(?:www\.)?", re.I)


def blocklist_files(path: str | None) -> list[Path]:
    """The files of the user's list: one with an entry a line, or a folder of UT1's form (CATEGORY/domains, CATEGORY/urls).

    Raises MissingInput if there are none.
    """
    if path is None:
        return []
    place = Path(path)
    found = [place] if place.is_file() else sorted(file for name in ("domains", "urls") for file in place.rglob(name))
    if not found:
        raise MissingInput(
            f"data.blocklist = {path!r} is neither a file with a domain or URL a line nor a folder with files named 'domains'"
            " and 'urls'"
        )
    return found


def write_blocklist(path: str | None, target: Path) -> None:
    """Write the sorted hashes of the built-in list and the user's. Raises MissingInput, or BadInput with the line's number."""
    entries = (entry for file in (_BUILT_IN, *blocklist_files(path)) for entry in _entries(file))
    write_array(target, np.unique(np.fromiter(map(_hash, entries), np.uint64)))


def _entries(path: Path) -> Iterator[str]:
    """Domains, and URLs without scheme and www; a URL has a slash behind its host."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            entry = _SCHEME.sub("", line.decode(errors="replace").split("#")[0].strip()).lower().removeprefix("www.")
            domain, slash, rest = entry.partition("/")
            if entry and not _DOMAIN.fullmatch(domain):
                raise BadInput(f"{path}, line {number}: {entry[:40]!r} is neither a domain such as pills.example nor a URL")
            if entry:
                yield domain.rstrip(".") + (slash + rest.rstrip("/") if rest.strip("/") else "")


def _hash(entry: str) -> int:
    return int.from_bytes(blake2b(entry.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def host_of(url: str) -> str:
    """The host in lower case, without port, user and www; empty if there is none."""
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:  # such as http://[half-an-ipv6
        return ""


def blocked_url(url: str, blocklist: np.ndarray) -> str | None:
    """Why this URL is blocked, or None. `blocklist`: the sorted hashes of `write_blocklist`."""
    host = host_of(url)
    labels = host.split(".")
    names = [".".join(labels[start:]) for start in range(len(labels))]
    names += _addresses(url, host)
    hashes = np.array([_hash(name) for name in names], np.uint64)
    places = np.minimum(np.searchsorted(blocklist, hashes), len(blocklist) - 1)
    for name, hit in zip(names, blocklist[places] == hashes, strict=True):
        if hit:
            return f"URL {name}" if "/" in name else f"domain {name}"
    words = re.split(r"[^a-z0-9]+", unquote(url).lower())
    return next((f"word {word}" for word in words if word in WORDS), None)


def _addresses(url: str, host: str) -> list[str]:
    """The URL as a list has it, and every folder above it: an entry blocks what lies below."""
    path = _SCHEME.sub("", url).partition("/")[2].split("#")[0].lower()
    steps = path.split("?")[0].strip("/").split("/")
    found = [f"{host}/{'/'.join(steps[: place + 1])}" for place in range(min(len(steps), 8))] if steps[0] else []
    return [*found, f"{host}/{path.rstrip('/')}"] if "?" in path else found
