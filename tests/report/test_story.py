"""The report as a story: its chapters, the graph of the stages, the lab's claims, and two runs side by side."""

import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.lab import EXPERIMENTS
from crawltalk.report.chapter import Chapter, render
from crawltalk.report.claims import CLAIMS, Claim, Judged, claims_of, claims_page, read_claims
from crawltalk.report.compare import comparison
from crawltalk.report.lineage import graph
from crawltalk.report.stage import CHAPTERS
from crawltalk.report.words import METRICS
from crawltalk.run.folder import RunFolder


def result(folder: Path, name: str, verdict: str = "confirmed", claim: str = "A claim.") -> None:
    row = Claim(
        experiment=name,
        claim=claim,
        source="somebody",
        prediction="it holds",
        method="looking",
        seeds=[0, 1, 2],
        judgement=Judged(verdict=verdict, summary="It does.", effect={"effect": 0.5}),
        cpu_seconds=[1.0, 2.0, 3.0],
    )
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_bytes(msgspec.json.encode(row))
    (folder / name / "figure.svg").write_text("<svg></svg>")


def test_every_chapter_opens_with_a_sentence_that_has_figures_of_the_run(nano):
    page = (nano / "report" / "report.html").read_text()
    chapters = re.findall(r'<section id="[^"]+"><h2>([^<]+)</h2><p class="lead">(.*?)</p>', page)
    assert len(chapters) >= 10 and {title for title, _ in chapters} <= set(CHAPTERS)
    without = {"Assistant", "Origin", "Tokens to think", "Jagged intelligence"}  # texts, the graph, or "none"
    assert all(re.search(r"\d", sentence) for title, sentence in chapters if title not in without)
    assert page.count("<section") == len(chapters) == page.split("</nav>")[0].count("<a href")


def test_figures_have_names_in_words(nano):
    page = (nano / "report" / "report.html").read_text()
    named = [name for name in METRICS if "_" in name and re.search(rf"<td>{name}</td>", page)]
    assert named == []


def test_the_models_of_a_run_answer_the_same_questions_beside_each_other(nano):
    rows = [json.loads(line) for line in (nano / "evals" / "models.jsonl").read_text().splitlines()]
    assert 4 <= len(rows) <= 8 and len({row["task"] for row in rows}) == len(rows)
    assert all(list(row["replies"]) == ["pretrain", "sft"] for row in rows)
    page = (nano / "report" / "report.html").read_text()
    assert "<th>base model</th><th>after fine-tuning</th>" in page


def test_the_chapter_on_the_assistant_says_who_it_says_it_is(nano):
    page = (nano / "report" / "report.html").read_text()
    assert re.search(r"<h3>Who it says it is</h3><p>.* [0-9]+&nbsp;%", page)


def test_a_chapter_folds_its_tables_and_escapes_its_titles():
    html = render("A < B", Chapter("It went well.", details=[("More & more", "<p>all</p>"), ("Nothing", "")]))
    assert '<section id="a---b"><h2>A &lt; B</h2>' in html
    assert "<summary>More &amp; more</summary><p>all</p>" in html and "Nothing" not in html


def test_the_documents_call_chapters_of_the_report_by_their_titles():
    root = Path(__file__).parents[2]
    pages = [*(root / "docs").rglob("*.md"), root / "README.md", root / "CONTRIBUTING.md"]
    text = " ".join(" ".join(page.read_text(encoding="utf-8") for page in pages).split())
    titles = re.findall(r'(?:chapter|section) "([^"]+)"', text)
    assert len(titles) >= 5 and [title for title in titles if title not in CHAPTERS] == []


def test_the_graph_shows_each_stage_once_and_no_arrow_that_others_imply():
    made_from = {"a": [], "b": ["a"], "aside": ["a"], "c": ["a", "b"], "d": ["c", "aside", "not in the run"]}
    svg = graph(made_from)
    assert re.findall(r"<text[^>]*>([^<]*)</text>", svg) == list(made_from)
    assert svg.count("<path") == 5  # a to b, a to aside, b to c, c to d, aside to d
    first_line = set(re.findall(r'<rect x="\d+" y="(\d+)"', svg))
    assert len(first_line) == 2


def test_claims_of_the_lab_stand_in_the_chapter_on_their_subject(tmp_path):
    result(tmp_path, "rl_selects")
    result(tmp_path, "reads_images", "partly", claim="Text in <b> is read.")
    result(tmp_path, "one_of_my_own", "not at this scale")
    found = read_claims(tmp_path)
    assert "A claim." in claims_of("Reinforcement", found) and "read" not in claims_of("Reinforcement", found)
    assert claims_of("Crawl", found) == ""
    page = claims_page(found)
    assert "1 confirmed, 1 partly, 1 not at this scale" in page and "6 CPU seconds for 3 seeds" in page
    assert "Text in &lt;b&gt; is read." in page and page.count("<svg>") == 3
    (tmp_path / "rl_selects" / "result.json").write_text("{")
    with pytest.raises(BadInput, match="run the experiment again"):
        read_claims(tmp_path)
    with pytest.raises(MissingInput, match="has no results of the lab; make some with: crawltalk lab NAME"):
        read_claims(tmp_path / "mistyped")


def test_every_experiment_of_the_lab_has_a_subject():
    placed = [name for names in CLAIMS.values() for name in names]
    assert sorted(placed) == sorted(experiment.name for experiment in EXPERIMENTS)


def test_two_runs_are_compared_by_settings_scores_and_cost(nano, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(nano, other)
    scores = json.loads((other / "evals" / "scores.json").read_text())
    scores["heldout"] |= {"score": 0.1, "stderr": 0.02}
    (other / "evals" / "scores.json").write_text(json.dumps(scores))
    manifest = json.loads((other / "sft" / "manifest.json").read_text())
    manifest["config"]["epochs"] = 77
    manifest["metrics"]["conversations"] = 7
    manifest["fingerprint"] = "another"
    (other / "sft" / "manifest.json").write_text(json.dumps(manifest))
    page = comparison(RunFolder(nano), RunFolder(other))
    assert "nano and other differ in 1 setting." in page and "<td>sft: epochs</td>" in page
    assert re.search(
        r'<td>sft</td><td>[^<]+</td><td class="number">[\d,]+</td><td class="number">7</td>', page
    )
    assert re.search(r"1 differ by more than chance explains \(95 %\): heldout \(-0\.\d\d\)\.", page)
    assert "crawl, data, tokenizer, tokens, index, pretrain" in page and page.count("<svg") == 2
    (other / "evals" / "scores.json").write_text("")
    with pytest.raises(BadInput, match=r"is damaged .*; remove .*evals and build it again: crawltalk evals"):
        comparison(RunFolder(nano), RunFolder(other))
    (other / "evals" / "scores.json").unlink()
    with pytest.raises(MissingInput, match="has no scores yet; make them with: crawltalk evals"):
        comparison(RunFolder(nano), RunFolder(other))
