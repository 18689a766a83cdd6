"""A crawl of one's own, from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crawltalk.cli import main
from support.pages import page_html, sentences

SMALLEST = {
    "pretrain.flop": "3e10",
    "sft.tasks.arithmetic": "0",
    "sft.tasks.spelling": "0",
    "sft.tasks.identity": "5",
    "sft.epochs": "0.3",
    "evals.problems": "2",
    "evals.max_tokens": "8",
    "machine.device": "cpu",
}
"""What shrinks the journey to seconds; nothing that has to do with the pages."""


def write_site(folder: Path, pages: int, language: str = "en") -> Path:
    folder.mkdir()
    for number in range(pages):
        text = [sentences(number), sentences(100 + number)]
        if language == "de":
            text = ["Der Fluss macht zwei Bögen, bevor er die alte Mühle am Rand des Dorfes erreicht. " * 8]
        (folder / f"page-{number}.html").write_bytes(page_html(f"The story of place {number}", text))
    return folder


def run(*words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "crawltalk", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_eight_pages_become_an_assistant(tmp_path):
    source, out = write_site(tmp_path / "site", 8), tmp_path / "run"
    flags = [word for key, value in SMALLEST.items() for word in (f"--{key}", value)]
    text = run("run", "own", "--crawl.source", str(source), "--out", str(out), *flags)
    assert f"crawltalk chat --model {out}" in text
    rows = [json.loads(line) for line in (out / "tokens" / "documents.jsonl").read_text().splitlines()]
    roles = [row["role"] for row in rows]
    assert len(rows) == 8
    assert (roles.count("flagship"), roles.count("validation")) == (1, 1)
    flagship = next(row for row in rows if row["role"] == "flagship")
    assert flagship["title"].startswith("The story of place")
    manifest = json.loads((out / "pretrain" / "manifest.json").read_text())
    assert manifest["metrics"]["depth"] == 2
    assert json.loads((out / "tokenizer" / "manifest.json").read_text())["metrics"]["vocab_size"] <= 512
    report = (out / "report" / "report.html").read_text()
    assert flagship["title"] in report
    assert "Wikipedia" not in report
    assert "Dysprosium" not in report
    again = run("run", "own", "--crawl.source", str(source), "--out", str(out), *flags)
    assert '"event": "start"' not in again  # the sizes that were derived make nothing stale
    assert '"stale"' not in run("status", str(out), "--json")


def test_small_refuses_other_pages_before_it_builds_anything_and_names_own(tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--crawl.source", f"{tmp_path}/my pages/*.warc.gz", "--out", str(out)]
    for preset in ("small", "nano"):
        assert main(["run", preset, *flags]) == 2
        error = capsys.readouterr().err
        assert f"crawltalk run own --crawl.source '{tmp_path}/my pages/*.warc.gz' --out {out}" in error
        assert not out.exists()
    assert main(["run", "small", *flags, "--tokenizer.include=", "--tokens.include=/a/"]) == 2
    assert "no file matches" in capsys.readouterr().err  # patterns of one's own are one's own business


def test_own_without_pages_says_that_it_needs_some(capsys):
    for verb in ("run", "crawl", "pretrain"):
        assert main([verb, "own"]) == 2
        assert "--crawl.source" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pages", "language", "said"),
    [
        (3, "de", "3 were dropped by language (de); keep another language with --data.languages de"),
        (1, "en", "1 of the crawl's pages became a document, and at least 2 are needed"),
    ],
)
def test_too_few_pages_end_with_one_line_that_says_what_is_missing(tmp_path, pages, language, said):
    source, out = write_site(tmp_path / "site", pages, language), tmp_path / "run"
    text = run("run", "own", "--crawl.source", str(source), "--out", str(out), code=2)
    assert said in text.splitlines()[-1]
    assert "Traceback" not in text


def test_a_size_that_follows_from_the_corpus_has_no_price_yet(capsys):
    assert main(["plan", "own"]) == 2
    assert "follows from your pages" in capsys.readouterr().err
    assert main(["presets"]) == 0
    assert "by corpus" in capsys.readouterr().out
