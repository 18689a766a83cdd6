"""The chapters on what models can do side by side."""

from pathlib import Path

import msgspec

from crawltalk import recipe
from crawltalk.evals.abilities import Abilities
from crawltalk.evals.results import Mean
from crawltalk.report.abilities import jagged, thinking, weights_and_context
from crawltalk.report.chapter import Chapter, render
from crawltalk.run.stage import Job, Progress

CHAPTERS = (weights_and_context, thinking, jagged)


def report_job(folder: Path) -> Job[recipe.Report]:
    return Job(recipe.Report(), {"evals": folder}, folder, 0, recipe.Machine(), Progress())


def told(chapter: Chapter | None) -> str:
    assert chapter is not None
    return render("Any", chapter)


def mean(task: str, score: float, n: int = 4, metric: str = "correct", **group: str) -> Mean:
    return Mean(task=task, group=group, metric=metric, score=score, stderr=0.1, n=n)


def test_a_run_without_these_measurements_has_no_such_chapters(tmp_path: Path):
    assert [chapter(report_job(tmp_path)) for chapter in CHAPTERS] == [None] * 3


def test_models_stand_side_by_side_and_what_was_not_asked_is_no_zero(tmp_path: Path):
    means = [
        mean("context", 0.25, condition="closed_book", repeats="0"),
        mean("context", 0.75, condition="in_context", repeats="0"),
        mean("context", 1.0, condition="closed_book", repeats="16 (flagship)"),
        mean("context", 0.99, metric="declined", condition="closed_book", repeats="0"),
        mean("word_problems", 0.125, kind="2_steps", way="direct"),
        mean("word_problems", 0.375, kind="2_steps", way="steps", budget="32"),
        mean("letters", 0.625, kind="count", way="direct"),
    ]
    models = [
        Abilities(
            model=name, parameters=7, flops_per_token=14.0, flops_per_position=2.0, context=9, means=means
        )
        for name in ("assistant", "<other>")
    ]
    (tmp_path / "abilities.json").write_bytes(msgspec.json.encode(models))
    pages, words, letters = (told(chapter(report_job(tmp_path))) for chapter in CHAPTERS)
    assert all("&lt;other&gt;" in html and "<other>" not in html for html in (pages, words, letters))
    assert "0.75" in pages
    assert "16 (flagship)" in pages
    assert ">0.99<" not in pages
    assert "0.125" in words
    assert "0.375" in words
    assert "14" in words
    assert "0.625" in letters
    assert ">-<" in letters
