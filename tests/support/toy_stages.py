"""Small real stages for the tests of the frame: they write files, resume, fail and hang on request."""

import os
import time

from crawltalk.core.errors import BadInput
from crawltalk.core.files import write_atomically
from crawltalk.recipe import Crawl, Data, Sft
from crawltalk.run.stage import RESCUED, Job, Metrics, Stage

TOY = (
    Stage("crawl", (), "support.toy_stages:crawl", "pages"),
    Stage("data", ("crawl",), "support.toy_stages:data", "documents"),
)
"""A pipeline."""


def crawl(job: Job[Crawl]) -> Metrics:
    """Writes as many numbered files as `articles` says, one by one; finished ones are not written again."""
    count = job.config.articles or 3
    written = 0
    for index in range(count):
        path = job.out / f"page-{index:03d}.txt"
        if not path.exists():
            write_atomically(path, f"{job.seed} {job.config.topics} {index}\n".encode())
            time.sleep(0.005)
            written += 1
        job.progress.update(index + 1, count, "pages")
    return {"pages": count}


def data(job: Job[Data]) -> Metrics:
    """Joins the pages; `extractor` names a way to fail."""
    if job.config.extractor == "user":
        raise BadInput("the pages are upside down; turn them")
    if job.config.extractor == "rescue":
        (job.out / RESCUED).mkdir()
        (job.out / RESCUED / "step-2.txt").write_text("good until here")
        raise BadInput("it went wrong")
    if job.config.extractor == "bug":
        raise ZeroDivisionError("our own mistake")
    if job.config.extractor == "full":
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")
    if job.config.extractor == "killed":
        os.kill(os.getpid(), 9)
    texts = [path.read_text() for path in sorted(job.inputs["crawl"].glob("page-*.txt"))]
    write_atomically(job.out / "all.txt", "".join(texts).encode())
    job.progress.note(f"{len(texts)} pages")
    return {"documents": len(texts)}


def polish(job: Job[Sft]) -> Metrics:
    """Writes down which model and which values it got."""
    line = f"{job.model('base', 'assistant').name} {job.config.epochs} {job.config.tasks['identity']}"
    write_atomically(job.out / "config.txt", line.encode())
    return {}
