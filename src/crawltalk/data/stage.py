"""The `data` stage: pages -> URL filter -> main text -> language -> quality -> deduplication -> personal data
-> Parquet.

FineWeb's order (Penedo et al. 2024, section 3). Each input file is refined by itself (`refine`), by processes of
this machine or on a Ray cluster. Finished parts are kept, so a killed run continues behind the last one. Then
all parts are deduplicated together (`assemble`).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from crawltalk.core.documents import read_table
from crawltalk.core.errors import BadInput, BadRecipe, MissingInput
from crawltalk.core.files import write_array, write_atomically
from crawltalk.data.assemble import assemble
from crawltalk.data.executors.local import LocalExecutor
from crawltalk.data.executors.ray import RayExecutor
from crawltalk.data.filters.boilerplate import count_lines
from crawltalk.data.filters.rules import check_languages
from crawltalk.data.filters.urls import blocked_ids, in_brackets, write_blocklist
from crawltalk.data.parts import FileTask
from crawltalk.data.pipeline import (
    BOILERPLATE,
    has_own_code,
    load_extractor,
    load_filters,
    load_rank,
    warm_up,
)
from crawltalk.data.record.card import dataset_card
from crawltalk.recipe import Data
from crawltalk.run.manifest import read_manifest
from crawltalk.run.stage import STATE, Job, Metrics, Progress

EXECUTORS = {"local": LocalExecutor, "ray": RayExecutor}
"""What runs the work in parallel, by its name in the recipe."""


class CrawlFile(msgspec.Struct, kw_only=True):
    """One row of the crawl's files.json."""

    path: str
    """Relative to the crawl's folder, absolute, or a URL."""
    bytes: int
    sha256: str
    """Empty for a URL."""


def data(job: Job[Data]) -> Metrics:
    """Write documents-, removed- and clusters-*.parquet, signatures.npy, funnel.json, README.md and
    costs.json.

    Raises BadInput if the crawl has no page, MissingInput if a file is missing, BadRecipe if an extractor cannot
    be loaded.
    """
    result, parts = job.out / "funnel.json", job.out / STATE
    if not result.exists():
        tasks = _tasks(job, parts)
        parts.mkdir(exist_ok=True)
        for mark in parts.glob("*.working"):  # of a run that was killed: no page is the cause
            mark.unlink()
        todo = [task for task in tasks if not task.done()]
        executor_class = _executor(job.machine.executor)
        with executor_class(job.machine, len(todo), has_own_code(job.config)) as executor:
            _prepare(job, parts, executor)
            if job.config.site_lines:
                _survey(tasks, parts, executor, job)
            executor.refine_all(todo, _reporter(tasks, todo, job.progress))
            record, costs = assemble(tasks, job, executor.map)
        _check_blocked(job)
        write_atomically(job.out / "costs.json", msgspec.json.format(msgspec.json.encode(costs)))
        write_atomically(job.out / "README.md", dataset_card(record, job.config).encode())
        write_atomically(result, msgspec.json.format(msgspec.json.encode(record)))
    return msgspec.json.decode(result.read_bytes())["metrics"]


def _prepare(job: Job[Data], parts: Path, executor: LocalExecutor | RayExecutor) -> None:
    """Load everything that the recipe names, and the list of blocked URLs beside it."""
    threads = job.machine.workers or 1
    with ThreadPoolExecutor(1) as thread:
        listed = thread.submit(write_blocklist, job.config.blocklist, parts / "blocklist.npy", threads)
        _check(job.config)
        executor.warm_up()
        listed.result()


def _check_blocked(job: Job[Data]) -> None:
    """Warn of ids in the user's list that no page of the crawl has: what should be gone may still be there."""
    if not (ids := blocked_ids(job.config.blocklist)):
        return
    for path in sorted(job.out.glob("removed-*.parquet")):
        rows = read_table(path, ["id", "reason"])
        ids -= {in_brackets(row["id"]).lower() for row in rows if row["reason"] == "id"}
    if ids:
        job.progress.warn(
            f"{len(ids):,} ids in {job.config.blocklist} are of no page of this crawl, such as {min(ids)}"
        )


def _survey(
    tasks: Sequence[FileTask], parts: Path, executor: LocalExecutor | RayExecutor, job: Job[Data]
) -> None:
    """Read all files once, to find the lines that many pages of a site have."""
    lines, hosts = (parts / name for name in BOILERPLATE)
    if hosts.exists():
        return
    surveys = [msgspec.structs.replace(task, survey=True) for task in tasks]
    todo = [task for task in surveys if not task.done()]
    executor.refine_all(todo, _reporter(surveys, todo, job.progress))
    found = [
        (np.load(task.part(number, "texts.npy")), np.load(task.part(number, "lines.npy"), mmap_mode="r"))
        for task in surveys
        for number in range(task.finished_parts())
    ]
    frequent, pages = count_lines(found)
    write_array(lines, frequent)
    write_array(hosts, pages)  # last: its presence means that both are there


def _executor(name: str) -> type[LocalExecutor] | type[RayExecutor]:
    if name not in EXECUTORS:
        raise BadRecipe(f"machine.executor = {name!r} is neither {' nor '.join(EXECUTORS)}")
    return EXECUTORS[name]


def _check(config: Data) -> None:
    """Load everything that the recipe names before the work begins, so that a misspelt name fails at once."""
    if not 0 <= config.site_lines <= 1:
        raise BadRecipe(
            f"data.site_lines = {config.site_lines:g} is a share of a site's pages, such as 0.3; 0: off"
        )
    check_languages(config.languages)
    load_filters(config)
    # compiled once here (ten seconds on a new machine); all workers use the cached code
    warm_up(load_extractor(config.extractor))
    load_rank(config)
    for run in config.earlier:
        manifest = read_manifest(Path(run) / "data")
        if manifest is None or not (Path(run) / "data" / "signatures.npy").exists():
            raise MissingInput(
                f"data.earlier: {run} has no finished data stage; make it with: crawltalk data {run}"
            )
        for name in ("ngram", "bands", "rows"):
            if manifest.config[name] != getattr(config, name):
                raise BadRecipe(
                    f"data.earlier: {run} was made with data.{name} = {manifest.config[name]}; signatures differ"
                )


def _tasks(job: Job[Data], parts: Path) -> list[FileTask]:
    folder = job.inputs["crawl"]
    listing = folder / "files.json"
    if not listing.exists():
        raise MissingInput(f"{listing} does not exist; make it with: crawltalk crawl")
    try:
        sources = msgspec.json.decode(listing.read_bytes(), type=list[CrawlFile])
    except msgspec.MsgspecError as error:
        raise BadInput(f"{listing} is damaged ({error}); make it again with: crawltalk crawl") from None
    tasks = []
    for number, source in enumerate(sources):
        path = source.path if "://" in source.path else str(folder / source.path)
        if "://" not in path and not Path(path).is_file():
            raise MissingInput(f"{path} does not exist any more; make it again with: crawltalk crawl")
        tasks.append(FileTask(number=number, source=path, size=source.bytes, folder=parts, config=job.config))
    if not tasks:
        raise BadInput(
            "the crawl has no web page: no file at all; give other files with --crawl.source 'FOLDER/*.warc.gz'"
        )
    return tasks


def _reporter(
    tasks: list[FileTask], todo: list[FileTask], progress: Progress
) -> Callable[[FileTask, int], None]:
    """Reports progress in bytes of the files, since the number of pages is unknown."""
    total = sum(task.size for task in tasks)
    done = total - sum(task.size for task in todo)

    def report(task: FileTask, pages: int) -> None:
        nonlocal done
        if pages < 0:
            done += task.size
            progress.update(done, total, "bytes")
        else:
            progress.update(done, total, "bytes", file=task.name, pages=pages)

    return report
