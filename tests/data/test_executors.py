"""The executors of the data stage: pages that hang or kill, processes that are killed, long files, a real Ray
cluster.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from crawltalk.core.documents import read_documents
from crawltalk.core.errors import UserError
from crawltalk.data import parts
from crawltalk.data.extract import extract
from crawltalk.recipe import Data
from crawltalk.run.stage import Progress
from support.pages import (
    crawl_folder,
    page_html,
    removed_rows,
    run,
    same_files,
    sentences,
    small_crawl,
    write_warc,
)


def pages(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    """Pages that all filters accept."""
    return [
        (f"http://a.example/{n}", page_html(f"Page {n}", [sentences(n), sentences(-n - 1, 2)]))
        for n in range(first, first + count)
    ]


def bad_extract(html: bytes) -> str | None:
    """An extractor with a fault for every kind of page."""
    if b"<title>hang" in html:
        while True:
            pass
    if b"<title>sleep" in html:
        time.sleep(1000)
    if b"<title>abort" in html:
        os.abort()
    if b"<title>memory" in html:
        bytearray(1 << 40)
    if b"<title>raise" in html:
        raise ValueError("no such tag")
    return extract(html)


def test_each_bad_page_is_set_aside_alone_with_its_reason(tmp_path: Path):
    kinds = ("hang", "sleep", "abort", "memory", "raise")
    mixed = pages(6)
    for position, kind in enumerate(kinds):
        mixed.insert(
            2 * position, (f"http://bad.example/{kind}", page_html(kind, [sentences(90 + position)]))
        )
    write_warc(tmp_path / "a.warc.gz", mixed)
    config = Data(extractor=f"{__name__}:bad_extract", page_seconds=0.3)
    metrics = run(crawl_folder(tmp_path / "crawl", [tmp_path / "a.warc.gz"]), tmp_path / "out", config=config)
    rows = {url.rsplit("/", 1)[1]: row for url, row in removed_rows(tmp_path / "out").items() if "bad" in url}
    assert len(rows) == len(kinds) and metrics["removed_broken"] == 3 and metrics["removed_extraction"] == 2
    assert rows["hang"][1].startswith("more than 0.3 CPU seconds (a guard")
    assert rows["sleep"][1] == "no result within 3 s"
    assert rows["abort"][1] == "ended its process twice (SIGABRT)"
    assert rows["memory"] == ("extraction", "failed: MemoryError") and rows["raise"] == (
        "extraction",
        "failed: ValueError",
    )
    assert metrics["documents"] == 6 and metrics["pages"] == 11


def test_a_killed_worker_loses_nothing_and_duplicates_nothing(tmp_path: Path):
    files = []
    for number in range(2):
        files.append(tmp_path / f"{number}.warc.gz")
        write_warc(files[-1], pages(800, 800 * number))
    crawl = crawl_folder(tmp_path / "crawl", files)
    run(crawl, tmp_path / "whole", 2)
    killed: list[int] = []
    hit: set[tuple[str, int]] = set()
    over = threading.Event()

    def kill_workers() -> None:
        while not over.wait(0.4):
            try:
                at_work = {
                    (mark.name, page)
                    for mark in (tmp_path / "out").rglob("*.working")
                    for page in np.fromfile(mark, np.int64).tolist()
                }
            except FileNotFoundError:  # that file is done
                continue
            if at_work & hit:  # a page at which two processes die is set aside, and rightly
                continue
            for child in multiprocessing.active_children()[:1]:
                if len(killed) < 4:
                    hit.update(at_work)
                    killed.append(child.pid or 0)
                    child.kill()

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        run(crawl, tmp_path / "out", 2)
    finally:
        over.set()
        killer.join()
    assert killed
    assert same_files(tmp_path / "whole", tmp_path / "out")


def test_processes_that_cannot_even_start_are_no_pages_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os\nif 'spawn_main' in str(sys.orig_argv): os.abort()\n"
    )
    with pytest.raises(
        UserError, match=r"worker processes end \(SIGABRT\) before they read a page of crawl-"
    ):
        run(
            small_crawl(tmp_path / "in"),
            tmp_path / "out",
            config=Data(extractor=f"{__name__}:bad_extract"),  # with functions of the user's they are spawned
        )


def test_a_file_longer_than_a_part_gives_the_same_documents_after_a_stop_in_its_middle(tmp_path: Path):
    write_warc(tmp_path / "a.warc", pages(parts.PART_PAGES + 300))
    crawl = crawl_folder(tmp_path / "crawl", [tmp_path / "a.warc"])
    metrics = run(crawl, tmp_path / "whole")
    assert (tmp_path / "whole" / "state" / "00000-00001.stats.json").exists() and metrics[
        "pages"
    ] == parts.PART_PAGES + 300

    class Stopper(Progress):
        def update(self, *_args, pages: float = 0, **_figures) -> None:
            if pages > parts.PART_PAGES:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(crawl, tmp_path / "out", progress=Stopper())
    first = tmp_path / "out" / "state" / "00000-00000.stats.json"
    written = first.stat().st_mtime_ns
    run(crawl, tmp_path / "out")
    assert first.stat().st_mtime_ns == written and same_files(tmp_path / "whole", tmp_path / "out")


@pytest.mark.slow
def test_a_ray_cluster_with_a_killed_worker_gives_the_local_result(tmp_path: Path):
    pytest.importorskip("ray", reason="Ray is not installed")
    files = []
    for number in range(4):
        files.append(tmp_path / f"{number}.warc.gz")
        pages_here = pages(300, 300 * number)
        if number == 1:
            pages_here.insert(100, ("http://bad.example/", page_html("abort", [sentences(1)])))
        write_warc(files[-1], pages_here)
    crawl = crawl_folder(tmp_path / "crawl", files)
    config = Data(extractor=f"{__name__}:bad_extract")
    run(crawl, tmp_path / "local", 2, config)
    script = tmp_path / "on_ray.py"
    script.write_text(ON_RAY)
    words = [sys.executable, str(script), str(crawl), str(tmp_path / "ray"), config.extractor]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), os.environ["PYTHONPATH"]))},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert next(json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))["killed"] == 1
    left = {document.id: document for document in read_documents(tmp_path / "local")}
    assert (
        left == {document.id: document for document in read_documents(tmp_path / "ray")} and len(left) > 1000
    )
    for name, reason in (("local", "ended its process twice (SIGABRT)"), ("ray", "ended its process twice")):
        assert removed_rows(tmp_path / name)["http://bad.example/"] == ("broken", reason)


ON_RAY = """
import json, os, signal, subprocess, sys, threading
from pathlib import Path
from crawltalk.recipe import Data, Machine
from crawltalk.run.stage import Job, Progress
from crawltalk.data.stage import data

killed, over = [], threading.Event()

def kill_one():
    while not over.wait(0.1):
        found = subprocess.run(["pgrep", "-f", "ray::refine"], capture_output=True, text=True).stdout.split()
        marks = [mark for mark in out.glob("state/*.working") if int.from_bytes(mark.read_bytes()[:8], "little") > 30]
        if found and marks and not killed:
            killed.append(int(found[0]))
            os.kill(killed[0], signal.SIGKILL)

crawl, out, extractor = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
out.mkdir()
threading.Thread(target=kill_one, daemon=True).start()
machine = Machine(workers=2, device="cpu", dtype="float32", executor="ray")
data(Job(Data(extractor=extractor), {"crawl": crawl}, out, 0, machine, Progress()))
over.set()
print(json.dumps({"killed": len(killed)}))
"""
