"""What decides the crawl besides the recipe: the user's files. Imports quickly, since `status` calls it."""

import glob
import gzip
import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.recipe import Crawl

LOOSE = (".html", ".htm", ".xhtml", ".txt", ".md")
"""Endings of single pages and texts, many of which make a crawl."""
_FORMS = "WARC, WET, JSONL or Parquet files, a folder of HTML and text files, a URL, or 'sample'"
_MANY = 100  # files named one by one in the record of a run


def source_files(source: str) -> list[Path]:
    """The files that a path or glob matches, sorted; for a folder, the single pages in it. Raises MissingInput
    if there is none.
    """
    if Path(source).is_dir():
        paths = sorted(
            path.resolve()
            for path in Path(source).rglob("*")
            if path.suffix.lower() in LOOSE and path.is_file()
        )
    else:
        paths = sorted(
            Path(name).resolve() for name in glob.glob(source, recursive=True) if Path(name).is_file()
        )
    if not paths:
        raise MissingInput(f"no file matches crawl.source = {source!r}; give a path or glob of {_FORMS}")
    return paths


def is_url(source: str) -> bool:
    """Whether the source is fetched over the network."""
    return "://" in source


def is_listing(source: str) -> bool:
    """Whether the source is a list of sources, one a line, such as Common Crawl's warc.paths.gz."""
    return source.lower().endswith((".paths", ".paths.gz"))


def read_listing(content: bytes, source: str) -> list[str]:
    """The sources that a list names; relative ones of a list with a URL are relative to its host, as Common
    Crawl's are.
    """
    try:
        lines = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode().split()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(f"{source} is not a list of files: {error}") from None
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


def external_inputs(config: Crawl) -> dict[str, Any]:
    """Path, size and modification time (ns) of each of the user's files; nothing for the embedded sample and
    for URLs.
    """
    if config.source == "sample" or is_url(config.source):
        return {}
    files = [
        [str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in source_files(config.source)
    ]
    return {"files": files} if len(files) <= _MANY else {"files": len(files), "digest": _digest(files)}


def _digest(rows: Iterable[Any]) -> str:
    return hashlib.sha256("\n".join(map(str, rows)).encode()).hexdigest()
