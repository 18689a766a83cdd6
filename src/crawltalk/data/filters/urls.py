"""URL filter: blocked domains, URLs, pages and words, before anything is parsed (RefinedWeb, Penedo et al. 2023,
G.1; FineWeb 3.1).

A list of millions of entries becomes one sorted array of 64-bit hashes in a file. All workers map it into memory
and share it: the full list of the University of Toulouse (UT1, 4.6 million domains) takes 37 MB for all of them
together.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from numba import njit

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.data.dedup import without_repeats

WORDS = frozenset({"porn", "xxx", "casino", "viagra", "betting", "torrent"})
"""Words that block a URL if they occur as whole words, between hyphens, slashes, dots and the like."""

_BUILT_IN = Path(__file__).with_name("blocklist.txt")
_HTTP, _HTTPS, _WWW = (np.frombuffer(word, np.uint8) for word in (b"http://", b"https://", b"www."))
_FEED, _SPACE, _COMMENT, _DASH, _DOT, _SLASH, _COLON, _UNDERSCORE, _OPENS, _CLOSES = b"\n #-./:_<>"
_DIGIT_0, _DIGIT_9, _UPPER_A, _UPPER_Z, _LOWER_A, _LOWER_Z = b"09AZaz"
_FIRST_NON_ASCII = 128
_PIECE = 32 << 20
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://(?:www\.)?", re.I)


def blocklist_files(path: str | None) -> list[Path]:
    """The files of the user's list: one with an entry a line, or a folder of UT1's form (CATEGORY/domains,
    CATEGORY/urls).

    Raises MissingInput if there are none.
    """
    if path is None:
        return []
    source = Path(path)
    files = (
        [source]
        if source.is_file()
        else sorted(file for name in ("domains", "urls") for file in source.rglob(name))
    )
    if not files:
        raise MissingInput(
            f"data.blocklist = {path!r} is neither a file with one domain or URL a line"
            " nor a folder with files named 'domains' and 'urls'"
        )
    return files


def write_blocklist(path: str | None, target: Path, threads: int = 1) -> None:
    """Write the sorted hashes of the built-in list and the user's. Raises MissingInput, or BadInput with the
    line's number.
    """
    pieces = [piece for file in (_BUILT_IN, *blocklist_files(path)) for piece in _pieces(file)]
    with ThreadPoolExecutor(threads) as pool:
        runs = list(pool.map(_hash_piece, pieces))
    if path and not any(len(run) for (file, *_), run in zip(pieces, runs, strict=True) if file != _BUILT_IN):
        raise BadInput(
            f"{path} names no domain, URL or document; write some into it, or leave data.blocklist out"
        )
    # this sort merges what is sorted already
    np.save(target, without_repeats(np.sort(np.concatenate(runs), kind="stable")), allow_pickle=False)


def _pieces(file: Path) -> Iterator[tuple[Path, int, int]]:
    """A file in pieces of whole lines, about `_PIECE` bytes each: their first and last bytes."""
    size, start = file.stat().st_size, 0
    with open(file, "rb") as lines:
        while start < size:
            lines.seek(start + _PIECE)
            lines.readline()
            end = min(lines.tell(), size)
            yield file, start, end
            start = end


def _hash_piece(piece: tuple[Path, int, int]) -> np.ndarray:
    """The sorted hashes of a piece of a list. Raises BadInput."""
    file, start, end = piece
    hashes, bad_line = _hash_lines(np.memmap(file, np.uint8, "r")[start:end])
    if bad_line:
        data = file.read_bytes()
        number = data.count(b"\n", 0, start) + bad_line
        line = data.split(b"\n")[number - 1].strip().decode(errors="replace")
        raise BadInput(
            f"{file}, line {number}: {line[:40]!r} is neither a domain, such as pills.example, nor a URL,"
            " nor a document's id in angle brackets"
        )
    hashes.sort()
    return hashes


def _hash(entry: str) -> int:
    return int(_hash_bytes(np.frombuffer(entry.encode("utf-8", "replace"), np.uint8)))


@njit(cache=True)
def _lower(byte):
    return byte + 32 if _UPPER_A <= byte <= _UPPER_Z else byte


@njit(cache=True)
def _hash_bytes(data):
    """FNV-1a with 64 bits of the text in lower case, and the finalizer of MurmurHash3."""
    state = np.uint64(0xCBF29CE484222325)
    for byte in data:
        state = (state ^ np.uint64(_lower(byte))) * np.uint64(0x100000001B3)
    state = (state ^ (state >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return state ^ (state >> np.uint64(33))


@njit(cache=True)
def _skip(data, start, end, word):
    """The position behind `word` if the text begins with it, else `start`."""
    if end - start < len(word):
        return start
    for position in range(len(word)):
        if _lower(data[start + position]) != word[position]:
            return start
    return start + len(word)


@njit(cache=True, nogil=True)
def _hash_lines(data):
    """Hashes of a list's entries, without comments, scheme, www. and slash at the end; number of the first
    bad line or 0.

    Compiled, since lists have millions of lines.
    """
    hashes = np.empty(len(data) // 2 + 1, np.uint64)
    count = number = stop = 0
    while stop < len(data):
        start, number = stop, number + 1
        while stop < len(data) and data[stop] != _FEED:
            stop += 1
        end, stop = stop, stop + 1
        for position in range(start, end):
            if data[position] == _COMMENT:
                end = position
                break
        while start < end and data[start] <= _SPACE:
            start += 1
        while start < end and (data[end - 1] <= _SPACE or data[end - 1] == _SLASH):
            end -= 1
        if start < end and data[start] == _OPENS and data[end - 1] == _CLOSES:
            hashes[count] = _hash_bytes(data[start:end])
            count += 1
            continue
        start = _skip(data, start, end, _HTTP)
        start = _skip(data, start, end, _HTTPS)
        start = _skip(data, start, end, _WWW)
        if start == end:
            continue
        for position in range(start, end):
            byte = _lower(data[position])
            if byte == _SLASH:
                break
            letter = _LOWER_A <= byte <= _LOWER_Z or _DIGIT_0 <= byte <= _DIGIT_9 or byte >= _FIRST_NON_ASCII
            if not (letter or byte == _DASH or byte == _DOT or byte == _UNDERSCORE or byte == _COLON):
                return hashes[:0], number
        while start < end and data[end - 1] == _DOT:
            end -= 1
        hashes[count] = _hash_bytes(data[start:end])
        count += 1
    return hashes[:count], 0


def host_of(url: str) -> str:
    """The host in lower case, without port, user and www; empty if there is none."""
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:  # such as http://[half-an-ipv6
        return ""


def blocked_url(url: str, blocklist: np.ndarray, identifier: str = "") -> str | None:
    """Why this URL, or the page with this id, is blocked, or None. `blocklist`: the sorted hashes of
    `write_blocklist`.
    """
    host = host_of(url)
    labels = host.split(".")
    names = [".".join(labels[start:]) for start in range(len(labels))]
    names += [*_addresses(url, host), *([in_brackets(identifier)] if identifier else [])]
    hashes = np.array([_hash(name) for name in names], np.uint64)
    positions = np.minimum(np.searchsorted(blocklist, hashes), len(blocklist) - 1)
    for name, hit in zip(names, blocklist[positions] == hashes, strict=True):
        if hit:
            kind = "id" if name.startswith("<") else "URL" if "/" in name else "domain"
            return f"{kind} {name}"
    words = re.split(r"[^a-z0-9]+", unquote(url).lower())
    return next((f"word {word}" for word in words if word in WORDS), None)


def in_brackets(identifier: str) -> str:
    """A document's id as an entry of a list, whether it has brackets of its own, as those of WARC do, or not."""
    return f"<{identifier.removeprefix('<').removesuffix('>')}>"


def blocked_ids(path: str | None) -> set[str]:
    """The documents' ids in a list that is one file, in small letters as all its entries."""
    if path is None or not Path(path).is_file():
        return set()
    with open(path, "rb") as lines:
        entries = [line.partition(b"#")[0].strip() for line in lines if line.lstrip().startswith(b"<")]
    return {entry.decode(errors="replace").lower() for entry in entries}


def _addresses(url: str, host: str) -> list[str]:
    """The URL in the form of a list's entries, and every folder above it: an entry blocks everything below."""
    path = _SCHEME.sub("", url).partition("/")[2].split("#")[0].lower()
    steps = path.split("?")[0].strip("/").split("/")
    addresses = (
        [f"{host}/{'/'.join(steps[: count + 1])}" for count in range(min(len(steps), 8))] if steps[0] else []
    )
    return [*addresses, f"{host}/{path.rstrip('/')}"] if "?" in path else addresses
