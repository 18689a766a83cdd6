"""The `data` stage: pages -> URL filter -> main text -> language -> quality -> deduplication -> personal data -> Parquet.

FineWeb's order (Penedo et al. 2024, section 3). Each file is one task that leaves one finished part behind, so that a
killed run continues with the next file; deduplication then sees all parts together.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from crawltalk.core.documents import read_document_file, read_table, write_documents, write_table
from crawltalk.core.errors import BadInput, MissingInput, UserError
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.processes import pool
from crawltalk.core.recipe import Data
from crawltalk.core.stage import STATE, Job, Metrics, Progress, write_atomically
from crawltalk.core.types import Document
from crawltalk.data.dedup import clusters, survivors
from crawltalk.data.funnel import REMOVED_COLUMNS, STEPS, Removed, Tally, summary
from crawltalk.data.pii import replace_pii
from crawltalk.data.refine import Task, load_extractor, refine
from crawltalk.data.truth import Scores, Truth
from crawltalk.data.urls import read_blocklist

ROWS_PER_FILE = 100_000
Row = TypeVar("Row")


class Source(msgspec.Struct, kw_only=True):
    """One row of the crawl's files.json."""

    path: str
    bytes: int
    sha256: str


def data(job: Job[Data]) -> Metrics:
    """Write documents-*.parquet, removed-*.parquet and funnel.json.

    Raises BadInput if the crawl holds no page, MissingInput if a file is gone, BadRecipe if an extractor cannot be loaded.
    """
    result, parts = job.out / "funnel.json", job.out / STATE
    if not result.exists():
        extractor = load_extractor(job.config.extractor)  # before any work: a typing error should not cost an hour
        if job.config.extractor == "crawltalk":
            extractor(b"<p>.</p>")  # compiled here once (ten seconds on a new machine), found by all workers
        read_blocklist(job.config.blocklist)
        parts.mkdir(exist_ok=True)
        for mark in parts.glob("*.working"):  # of a run that was killed
            mark.unlink()
        tasks = _tasks(job, parts)
        _refine_all(tasks, job)
        write_atomically(result, msgspec.json.format(msgspec.json.encode(_finish(tasks, job))))
    return msgspec.json.decode(result.read_bytes())["metrics"]


def _tasks(job: Job[Data], parts: Path) -> list[Task]:
    folder = job.inputs["crawl"]
    listing = folder / "files.json"
    if not listing.exists():
        raise MissingInput(f"{listing} is not there; make it with: crawltalk crawl")
    try:
        sources = msgspec.json.decode(listing.read_bytes(), type=list[Source])
    except msgspec.MsgspecError as error:
        raise BadInput(f"{listing} is damaged ({error}); make it again with: crawltalk crawl") from None
    paths = [folder / source.path for source in sources]
    for path in paths:
        if not path.is_file():
            raise MissingInput(f"{path} is gone; make it again with: crawltalk crawl")
    return [Task(number=n, path=path, parts=parts, config=job.config) for n, path in enumerate(paths)]


def _refine_all(tasks: list[Task], job: Job[Data]) -> None:
    """Refine every file, in processes of their own if there are several. A worker's death keeps the finished parts."""
    todo = [task for task in tasks if not task.part("tally.json").exists()]
    workers = min(job.machine.workers or 1, len(todo))
    sizes = {task.number: task.path.stat().st_size for task in tasks}
    total = sum(sizes.values())
    done = total - sum(sizes[task.number] for task in todo)
    if workers <= 1:
        for task in todo:
            refine(task, partial(_say, job.progress, done, total, task.path.name))
            done += sizes[task.number]
            job.progress.update(done, total, "bytes")
        return
    with pool(workers) as executor:
        futures = {executor.submit(refine, task): task for task in sorted(todo, key=lambda task: -sizes[task.number])}
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    future.result()
                except BrokenProcessPool:
                    suspects = [task.path.name for task in todo if task.part("working").exists()]
                    raise UserError(
                        f"a worker process died (out of memory?) while it read {' or '.join(suspects)}; the finished files"
                        " are kept: run again to go on, with --machine.workers 1 to need less memory"
                    ) from None
                done += sizes[futures[future].number]
                job.progress.update(done, total, "bytes")


def _say(progress: Progress, done: int, total: int, file: str, pages: int) -> None:
    progress.update(done, total, "bytes", file=file, pages=pages)


def _finish(tasks: list[Task], job: Job[Data]) -> dict[str, object]:
    """Deduplicate over all parts, replace personal data, write the final files; returns the funnel."""
    tally = Tally()
    for task in tasks:
        tally.add(msgspec.json.decode(task.part("tally.json").read_bytes(), type=Tally))
    for warning in tally.warnings:
        job.progress.warn(warning)
    if not tally.pages:
        names = ", ".join(f"{task.path.name} ({task.path.stat().st_size:,} bytes)" for task in tasks[:3]) or "no file at all"
        raise BadInput(f"the crawl holds no web page: {names}; give other files with --crawl.source 'FOLDER/*.warc.gz'")

    truth_path = job.inputs["crawl"] / "truth.jsonl"
    scores = Scores(read_jsonl(truth_path, Truth), job.config.ngram) if truth_path.exists() else None
    bands = np.concatenate([np.load(task.part("bands.npy"), allow_pickle=False) for task in tasks])
    keys = [
        (-len(row["text"]), row["url"], row["id"])
        for task in tasks
        for row in read_table(task.part("documents.parquet"), ["text", "url", "id"])
    ]
    cluster = clusters(bands)
    stays = survivors(cluster, keys)
    sizes = Counter(size for size in np.bincount(cluster, minlength=1).tolist() if size > 1)

    lengths: list[int] = []
    urls: list[str] = []
    duplicates: list[Removed] = []
    replaced = 0

    def documents() -> Iterator[Document]:
        nonlocal replaced
        for index, document in enumerate(_documents(tasks)):
            twin = int(stays[index])
            if twin != index:
                page = Removed(
                    id=document.id,
                    url=document.url,
                    dump=document.dump,
                    file_path=document.file_path,
                    step="duplicate",
                    reason="near-duplicate",
                    detail=keys[twin][1],
                    text=document.text,
                )
                duplicates.append(page)
                tally.drop(page)
                if scores:
                    scores.removed(page, keys[twin][2])
                continue
            tally.keep("duplicate", len(document.text))
            extracted = document.text
            document.text, count = replace_pii(extracted)
            document.token_count = (len(document.text.encode("utf-8", "ignore")) + 3) // 4
            replaced += count
            tally.keep("pii", len(document.text))
            lengths.append(len(document.text))
            urls.append(document.url)
            if scores:
                scores.kept(document, extracted)
            yield document

    _write_files(job.out, "documents", documents(), write_documents)
    earlier = (Removed(**row) for task in tasks for row in read_table(task.part("removed.parquet"), list(REMOVED_COLUMNS)))

    def removed() -> Iterator[Removed]:
        for page in earlier:
            if scores:
                scores.removed(page)
            yield page
        yield from duplicates

    _write_files(job.out, "removed", removed(), lambda path, rows: write_table(path, rows, REMOVED_COLUMNS))

    found = summary(tally, urls, lengths, sizes)
    found["pii"] = {"replaced": replaced}
    metrics: Metrics = {"pages": tally.pages, "documents": len(lengths), "characters": sum(lengths)}
    metrics |= {f"removed_{step}": sum(tally.reasons.get(step, {}).values()) for step in STEPS}
    metrics["warnings"] = len(tally.warnings)
    if scores:
        report = scores.report()
        found["truth"] = report
        for step, row in report["steps"].items():
            metrics |= {f"precision_{step}": row["precision"], f"recall_{step}": row["recall"]}
        metrics |= {"pii_left": report["pii_left"], "extract_f1": report["extract_f1"]}
    return {"metrics": metrics} | found


def _documents(tasks: list[Task]) -> Iterator[Document]:
    for task in tasks:
        yield from read_document_file(task.part("documents.parquet"))


def _write_files(folder: Path, name: str, rows: Iterator[Row], write: Callable[[Path, Iterable[Row]], int]) -> None:
    """Spread rows over NAME-00000.parquet, NAME-00001.parquet, ...; at least one file, the last one may be short."""
    number = 0
    first = next(rows, None)
    while number == 0 or first is not None:
        chunk = islice(rows, ROWS_PER_FILE - 1)
        write(folder / f"{name}-{number:05d}.parquet", chain([first], chunk) if first is not None else chunk)
        first = next(rows, None)
        number += 1
