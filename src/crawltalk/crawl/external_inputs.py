"""The user's files: which ones a source names, and what of them decides the crawl besides the recipe. Imports
quickly, since `status` calls it.
"""

import glob
import gzip
import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.formats import COMPRESSIONS, detect_format
from crawltalk.recipe import Crawl

_FORMS = "WARC, WET, WACZ, JSON, CSV or Parquet files, archives or a folder of HTML and text files, a URL, or 'sample'"
_MANY = 100  # files named one by one in the record of a run
_KINDS = 5  # of files left out that a message names
_LONGEST = 60  # characters of a name in a message


@dataclass
class Sources:
    """The files that a source names, and what of it is not read."""

    files: list[str]
    """Paths and URLs, in order."""
    root: Path | None = None
    """The folder that was searched, if it was one."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(path, what it is) of each file that is not read."""

    def describe_left_out(self) -> str:
        """One line about what is not read: how many files of which kind, and an example of each."""
        kinds = Counter(kind for _, kind in self.left_out).most_common()
        first = {kind: path for path, kind in reversed(self.left_out)}
        names = [f"{kind}: {count:,}, such as {printable(first[kind])}" for kind, count in kinds[:_KINDS]]
        rest = sum(count for _, count in kinds[_KINDS:])
        return "; ".join(names) + (f"; others: {rest:,}" if rest else "")


def find_sources(source: str) -> Sources:
    """The files that a path, glob, folder or list names. Raises MissingInput if none can be read.

    Of a folder and of a glob, files whose name and first bytes say that they hold neither pages nor texts are left
    out. A file that is named itself is read in any case.
    """
    path = Path(source).expanduser()
    if is_listing(source) and path.is_file():
        found = _of_list(path.read_bytes(), source)
    elif path.is_dir():
        found = Sources([], Path(os.path.abspath(path)))
        for file in _walk(path, found.left_out):
            _sort_in(file, found)
    elif path.is_file():
        found = Sources([os.path.abspath(path)])
    else:
        found = Sources([])
        for name in sorted(glob.glob(str(path), recursive=True)):
            if not os.path.isdir(name):
                _sort_in(name, found)
            elif "**" not in source:
                found.left_out.append((name, "folders"))
    found.files = list(dict.fromkeys(found.files))
    if not found.files:
        seen = f"; left out: {found.describe_left_out()}" if found.left_out else ""
        raise MissingInput(
            f"no file matches crawl.source = {source!r}; give a path or glob of {_FORMS}{seen}"
        )
    return found


def _walk(folder: Path, left_out: list[tuple[str, str]]) -> Iterator[str]:
    """All files below a folder, sorted, also behind links to folders, but no folder twice."""
    seen: set[tuple[int, int]] = set()
    problems: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=problems.append, followlinks=True):
        state = os.stat(parent)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        left_out += [
            (os.path.join(parent, name), "hidden folders") for name in folders if name.startswith(".")
        ]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(names))
    left_out += [(str(problem.filename), "folders that cannot be read") for problem in problems]


def _sort_in(name: str, found: Sources) -> None:
    """Put a file of a folder or glob where it belongs."""
    path = Path(os.path.abspath(name))
    if path.name.startswith("."):
        found.left_out.append((name, "hidden files"))
    elif not path.is_file():
        found.left_out.append((name, "things that are no files"))
    elif not os.access(path, os.R_OK):
        found.left_out.append((name, "files that cannot be read"))
    elif _is_source_of_page(path):
        found.left_out.append((name, "sources of pages beside them"))
    elif detect_format(path) is None:
        ending = "".join(path.suffixes[-2:]) if path.suffix.lower() in COMPRESSIONS else path.suffix
        found.left_out.append(
            (name, f"{printable(ending.lower())} files" if ending else "files without an ending")
        )
    else:
        found.files.append(str(path))


def _is_source_of_page(path: Path) -> bool:
    """Whether this is what Sphinx puts beside a page: `_sources/a.rst.txt` for `a.html`."""
    if path.suffix != ".txt" or "_sources" not in path.parts:
        return False
    folder = next(parent for parent in path.parents if parent.name == "_sources")
    page = folder.parent / path.relative_to(folder)
    return page.with_suffix("").with_suffix(".html").exists()


def printable(text: str) -> str:
    """A name for a message: no control characters, not too long."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _LONGEST else f"...{text[3 - _LONGEST :]}"


def is_url(source: str) -> bool:
    """Whether the source is fetched over the network."""
    return "://" in source


def is_listing(source: str) -> bool:
    """Whether the source is a list of sources, one a line, such as Common Crawl's warc.paths.gz."""
    return source.lower().endswith((".paths", ".paths.gz"))


def read_listing(content: bytes, source: str) -> list[str]:
    """The sources that a list names; relative ones of a list with a URL are relative to its host, as Common
    Crawl's are. Raises BadInput if it is not a list.
    """
    try:
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(f"{source} is not a list of files: {error}") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    scheme, host = urlsplit(source)[:2]
    root = (
        f"{scheme}://{host}/"
        if scheme in ("http", "https")
        else source.rsplit("/", 1)[0] + "/"
        if "/" in source
        else ""
    )
    return [
        line if is_url(line) or line.startswith("/") else urljoin(root, line) if scheme else root + line
        for line in lines
    ]


def _of_list(content: bytes, source: str) -> Sources:
    """The files that a list names; those that are gone are left out."""
    found = Sources([])
    for name in read_listing(content, source):
        if is_url(name):
            found.files.append(name)
        elif Path(name).is_file():
            found.files.append(os.path.abspath(name))
        else:
            found.left_out.append((name, f"files named in {printable(source)} that do not exist"))
    if not found.files and found.left_out:
        raise MissingInput(f"{found.left_out[0][0]}, named in {source}, does not exist")
    return found


def external_inputs(config: Crawl) -> dict[str, Any]:
    """Path, size and modification time (ns) of each of the user's files, those of a list and the list itself among
    them; nothing for the embedded sample and for URLs.
    """
    if config.source == "sample" or is_url(config.source):
        return {}
    found = find_sources(config.source)
    names = [name for name in found.files if not is_url(name)]
    if is_listing(config.source):
        names = [os.path.abspath(Path(config.source).expanduser()), *names]
    files = []
    for name in names:
        state = os.stat(name)
        files.append([name.encode("utf-8", "backslashreplace").decode(), state.st_size, state.st_mtime_ns])
    if len(files) > _MANY:
        return {"files": len(files), "digest": _digest(files)}
    return {"files": files}


def _digest(rows: Iterable[Any]) -> str:
    return hashlib.sha256("\n".join(map(str, rows)).encode()).hexdigest()
