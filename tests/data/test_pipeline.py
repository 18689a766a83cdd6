"""The list of steps up to deduplication, and the loop that takes pages through it."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from crawltalk.core.types import Document
from crawltalk.data.parts import FileTask, Part
from crawltalk.data.pipeline import Drop, Pipeline, Step, fineweb
from crawltalk.data.read.warc import Page
from crawltalk.data.record.funnel import Clock
from crawltalk.recipe import Data
from support.pages import crawl_folder, page_html, removed_rows, run, sentences, write_warc


def task(folder: Path, **fields) -> FileTask:
    np.save(folder / "blocklist.npy", np.zeros(1, np.uint64))
    return FileTask(number=0, source="a.warc.gz", size=1, folder=folder, config=Data(**fields))


def page(**fields) -> Page:
    html = page_html("Rivers", [sentences(1), sentences(2)])
    given = {"id": "1", "url": "http://a.example/", "date": "", "body": html, "charset": None, "fault": None}
    return Page(**given | fields)


def test_the_steps_stand_in_fineweb_s_order(tmp_path: Path):
    names = [step.name for step in fineweb(task(tmp_path))]
    assert names == ["broken", "url", "extraction", "language", "quality", "signature", "pii"]
    work = task(tmp_path, early_language=0.1, site_lines=0.3)
    names = [step.name for step in fineweb(work)]
    assert names[2:5] == ["early_language", "extraction", "site_lines"]
    names = [step.name for step in fineweb(msgspec.structs.replace(work, survey=True))]
    assert names == ["broken", "url", "early_language", "extraction", "lines"]


def test_a_page_that_passes_is_counted_after_each_step_and_timed_in_each(tmp_path: Path):
    work = task(tmp_path)
    part = Part(work, 0)
    Pipeline(work).run(page(), part, Clock(part.stats.costs))
    assert len(part.documents) == len(part.bands) == 1 and not part.removed
    assert list(part.stats.left) == ["broken", "url", "extraction", "language", "quality"]
    assert list(part.stats.costs) == [*part.stats.left, "signature", "pii"]
    assert part.stats.languages == {"en": 1}


def test_texts_skip_the_steps_that_read_html(tmp_path: Path):
    work = task(tmp_path, early_language=0.1)
    part = Part(work, 0)
    Pipeline(work).run(page(body=b"", text=sentences(1)), part, Clock(part.stats.costs))
    assert len(part.documents) == 1 and "early_language" not in part.stats.costs


def test_a_failure_names_the_step_that_failed(tmp_path: Path):
    def fail(item: object) -> Drop:
        raise ValueError("no such tag")

    work = task(tmp_path)
    pipeline = Pipeline(work)
    steps = pipeline.steps
    for position, step in enumerate(steps):
        pipeline.steps = [*steps[:position], Step(step.name, fail), *steps[position + 1 :]]
        part = Part(work, 0)
        pipeline.run(page(), part, Clock(part.stats.costs))
        (row,) = part.removed
        assert (row.step, row.reason, row.detail) == (step.name, "failed: ValueError", "no such tag")
        assert not part.documents and (row.text is not None) == (position > 2)


def shout(document: Document) -> Document:
    """A filter of the user's that changes the text."""
    document.text = document.text.upper()
    return document


def failing(document: Document) -> str | None:
    """A filter of the user's that fails."""
    raise KeyError(document.url)


def as_bytes(html: bytes) -> Any:
    return html


def surrogate(html: bytes) -> str:
    return sentences(1) + " \ud800"


def picky(html: bytes) -> str:
    """Fails on all but a page of its liking."""
    if b"Rivers" not in html:
        raise ValueError("no rivers")
    return sentences(1)


def yes(document: Document) -> Any:
    return True


def lose_text(document: Document) -> Any:
    document.text = None  # type: ignore[assignment]
    return document


def odd_reason(document: Document) -> str:
    return "odd \ud800: \ud800"


@pytest.mark.parametrize(
    ("fields", "step", "reason"),
    [
        ({"extractor": "as_bytes"}, "extraction", "failed: TypeError"),
        ({"extractor": "surrogate"}, "extraction", "failed: UnicodeEncodeError"),
        ({"filters": ("yes",)}, "quality", "failed: TypeError"),
        ({"filters": ("lose_text",)}, "quality", "failed: TypeError"),
        ({"filters": ("odd_reason",)}, "quality", f"{__name__}:odd_reason: odd \ufffd"),
    ],
)
def test_what_a_step_of_the_users_returns_wrongly_is_laid_at_its_door(fields, step, reason, tmp_path: Path):
    named = {
        field: f"{__name__}:{value}"
        if isinstance(value, str)
        else tuple(f"{__name__}:{one}" for one in value)
        for field, value in fields.items()
    }
    work = task(tmp_path, **named)
    part = Part(work, 0)
    Pipeline(work).run(page(), part, Clock(part.stats.costs))
    part.write()
    assert [(row.step, row.reason) for row in part.removed] == [(step, reason)]


def test_an_extractor_that_fails_on_a_page_of_nothing_still_reads_the_others(tmp_path: Path):
    work = task(tmp_path, extractor=f"{__name__}:picky")
    part = Part(work, 0)
    Pipeline(work).run(page(), part, Clock(part.stats.costs))
    assert len(part.documents) == 1


def test_a_filter_may_change_the_text_or_fail(tmp_path: Path):
    write_warc(tmp_path / "a.warc.gz", [("http://a.example/", page().body)])
    crawl = crawl_folder(tmp_path / "crawl", [tmp_path / "a.warc.gz"])
    metrics = run(crawl, tmp_path / "out", config=Data(filters=(f"{__name__}:shout",)))
    assert metrics["documents"] == 1
    run(crawl, tmp_path / "failed", config=Data(filters=(f"{__name__}:failing",)))
    assert removed_rows(tmp_path / "failed") == {"http://a.example/": ("quality", "failed: KeyError")}
    record = json.loads((tmp_path / "failed" / "funnel.json").read_text())
    assert record["removed"][0]["step"] == "quality"
