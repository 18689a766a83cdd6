"""Benchmarks of a run's models, from `crawltalk eval` to the report and the comparison."""

import json
import re
import shutil
from pathlib import Path

import pytest

from crawltalk import recipe
from crawltalk.cli import main
from crawltalk.core.documents import read_documents
from crawltalk.evals.benchmarks import SUMMARY, read_benchmarks
from crawltalk.pipeline import BENCHMARKS, stages
from crawltalk.report.benchmarks import benchmarks
from crawltalk.report.chapter import render
from crawltalk.report.compare import comparison
from crawltalk.run.folder import RunFolder
from crawltalk.run.stage import Job, Progress


@pytest.fixture(scope="module")
def run(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose base model and assistant took a benchmark, of which one question stands in the corpus."""
    folder = tmp_path_factory.mktemp("marked") / "nano"
    shutil.copytree(nano, folder)
    seen = {
        row["id"] for row in map(json.loads, (nano / "tokens" / "documents.jsonl").read_text().splitlines())
    }
    trained = [document for document in read_documents(nano / "data") if document.id in seen]
    words = max(trained, key=lambda document: len(document.text)).text.split("\n")[-1].split()[:20]
    texts = [" ".join(words), *(f"{'What is it that nobody knows of ' * 2}{i}?" for i in range(5))]
    rows = [
        {"question": text, "choices": ["a", "the", "in"], "answer": i % 3} for i, text in enumerate(texts)
    ]
    (folder.parent / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for model in (folder, folder / "pretrain"):
        asked = ["eval", str(model), "--tasks", "arc_easy", "--data", str(folder.parent / "q.jsonl")]
        assert main(asked) == 0
    return RunFolder(folder)


def chapter(run: RunFolder) -> str:
    inputs = {stage.name: run.folder(stage.name) for stage in stages(run.recipe())[:-1]}
    beside = {BENCHMARKS: run.path / BENCHMARKS}
    job = Job(recipe.Report(), inputs, run.path, 0, recipe.Machine(), Progress(), {}, beside)
    told = benchmarks(job)
    assert told is not None
    return render("Standard benchmarks", told)


def test_what_a_run_was_asked_makes_its_report_stale(run: RunFolder, nano: Path):
    journey = stages(run.recipe())
    state = run.states(journey, run.recipe())["report"]
    assert (state.state, state.reasons) == ("stale", ("input benchmarks is new",))
    assert RunFolder(nano).states(journey, run.recipe())["report"].state == "fresh"


def test_both_models_stand_in_the_report_with_intervals_and_what_the_corpus_holds(run: RunFolder):
    html = chapter(run)
    assert "<td>base model</td>" in html and "<td>after fine-tuning</td>" in html
    assert html.count("ARC-Easy</td>") >= 4 and re.search(r"\d\.\d{2} \(\d\.\d{2} to \d\.\d{2}\)", html)
    assert html.count("<td>1 of 6</td><td>0 of 6</td>") == html.count("<td>1 of 6</td><td>-</td>") == 1
    assert "in sft/conversations.jsonl)" in html and "trained again" not in html
    [row] = read_benchmarks(run.path / BENCHMARKS / "sft" / SUMMARY)
    assert row.contamination is not None and row.clean["acc"].n == 5
    [example] = row.contamination.examples
    assert example.overlap.url in html and example.question == "0"


def test_a_question_that_fine_tuning_learned_is_told_apart_from_one_of_the_corpus(run: RunFolder):
    told = json.loads((run.path / "sft" / "conversations.jsonl").read_text().splitlines()[0])
    planted = f"Which of the many questions is it that a conversation of {run.path.name} has to teach?"
    told["messages"][0]["content"] = f"Please: {planted}"
    path, data = run.path / "sft" / "conversations.jsonl", run.path.parent / "tuned.jsonl"
    before = path.read_text()
    path.write_text(before + json.dumps(told) + "\n")
    texts = [planted, *(f"{'What is it that nobody knows of ' * 2}{i}?" for i in range(5))]
    rows = [{"question": text, "choices": ["a", "the"], "answer": 0} for text in texts]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for model in (run.path, run.path / "pretrain"):
        asked = ["eval", str(model), "--tasks", "arc_challenge", "--data", str(data)]
        assert main([*asked, "--out", str(run.path.parent / "tuned" / model.name)]) == 0
    path.write_text(before)
    [row] = read_benchmarks(run.path.parent / "tuned" / run.path.name / SUMMARY)
    lines = before.count("\n") + 1
    assert row.contamination is not None and row.contamination.contaminated == 0
    assert row.tuning is not None and row.tuning.searched == {"sft/conversations.jsonl": lines}
    [example] = row.tuning.examples
    assert (example.question, example.overlap.id) == ("0", f"sft/conversations.jsonl, line {lines}")
    assert row.clean["acc"].n == 5
    [base] = read_benchmarks(run.path.parent / "tuned" / "pretrain" / SUMMARY)
    assert base.tuning is None and base.clean == {}


def test_what_has_no_scores_is_left_out_with_its_reason(run: RunFolder):
    paths = [run.path / BENCHMARKS / name / SUMMARY for name in ("sft", "pretrain")]
    before = [path.read_text() for path in paths]
    said = "ARC-Easy of “after fine-tuning” is left out: what crawltalk wrote has no scores"
    for path, rows in zip(paths, before, strict=True):
        path.write_text(json.dumps([row | {"scores": {}} for row in json.loads(rows)]))
        html = chapter(run)
        assert said in html and "<td>after fine-tuning</td>" not in html
        assert ("<td>base model</td>" in html) == (path == paths[0])
    assert "benchmarks that their models took has a score.</p></section>" in comparison(run, run)
    paths[0].write_text(before[0])
    page = comparison(run, run)
    assert "has a score" not in page and "ARC-Easy</td>" in page and ": base model</td>" not in page
    for path, rows in zip(paths, before, strict=True):
        path.write_text(rows)


def test_two_runs_have_their_benchmarks_beside_each_other(run: RunFolder, nano: Path):
    page = comparison(RunFolder(nano), run)
    assert "<h2>Standard benchmarks</h2>" in page and f"<td>{run.path}: base model</td>" in page
    assert "Standard benchmarks" not in comparison(RunFolder(nano), RunFolder(nano))


def test_what_was_measured_before_a_model_was_trained_again_says_so(run: RunFolder):
    path = run.path / "sft" / "manifest.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"fingerprint": "another"}))
    html = chapter(run)
    path.write_text(before)
    assert "<td>after fine-tuning *</td>" in html and f"crawltalk eval {run.path}/sft" in html
    assert "<td>base model</td>" in html
