"""The verbs that look at the data stage, and the files that it leaves for other tools."""

import json
from pathlib import Path

import duckdb
import polars
import pytest

from crawltalk.cli import main
from crawltalk.core.documents import COLUMNS, read_documents, read_table
from crawltalk.recipe import Data
from crawltalk.run.folder import RunFolder
from support.pages import build_data, crawl_folder, removed_rows, run, sentences


def texts(folder: Path, name: str, rows: list[tuple[str, str, str]]) -> Path:
    """A JSONL file of (url, date, text)."""
    path = folder / f"{name}.jsonl"
    path.write_text(
        "".join(
            json.dumps({"url": url, "date": date, "text": text, "id": f"<{n}>"}) + "\n"
            for n, (url, date, text) in enumerate(rows)
        )
    )
    return path


PAGES = [
    ("http://a.example/1", "2024-01-01", sentences(1)),
    ("http://a.example/2", "2024-01-02", sentences(2)),
    ("http://b.example/1", "2024-02-01", sentences(1) + " It was so."),
    ("http://a.example/2", "2024-03-01", sentences(3)),
    ("http://a.example/short", "2024-01-01", sentences(9, 2)),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with its crawl and data stages; nobody writes into it."""
    folder = tmp_path_factory.mktemp("corpus")
    return build_data(folder / "run", str(texts(folder, "pages", PAGES)))


def test_the_funnel_is_shown(done, capsys):
    assert main(["funnel", str(done.path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "gopher_quality: too few words",
        "same URL as another document",
        "hosts of documents: a.example 1",
        "languages: en 5",
    ):
        assert words in shown
    assert main(["funnel", str(done.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["documents"] == 2


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (
            "http://a.example/short",
            ["quality | dropped: gopher_quality: too few words", "gopher_repetition | passes"],
        ),
        ("http://b.example/1", ["duplicate | passed", "gopher_repetition | passes", "It was so."]),
        (
            "http://a.example/1",
            ["detail: http://b.example/1", "duplicate | dropped: near-duplicate of another document"],
        ),
    ],
)
def test_a_pages_way_through_the_filters_is_shown(done, page, words, capsys):
    assert main(["show", str(done.path / "data"), "--page", page]) == 0
    shown = capsys.readouterr().out
    table = [" | ".join(line.split(None, 1)) for line in shown.splitlines()]
    for word in words:
        assert word in shown or any(word in " ".join(row.split()) for row in table), shown


def test_a_page_that_is_not_there_is_said_so(done, capsys):
    assert main(["show", str(done.path / "data"), "--page", "http://nowhere.example/"]) == 2
    assert "no page of" in capsys.readouterr().err


def test_two_runs_are_compared_document_by_document(done, tmp_path, capsys):
    source = str(texts(tmp_path, "pages", PAGES))
    other = build_data(
        tmp_path / "other",
        source,
        **{
            "data.quality.min_words": "5",
            "data.quality.min_sentences": "0",
            "data.quality.min_words_per_line": "0",
        },
    )
    assert main(["data", "diff", str(done.path), str(other.path)]) == 0
    assert "quality: gopher_quality: too few words -> " in " ".join(capsys.readouterr().out.split())
    assert main(["data", "diff", str(done.path)]) == 2


def test_a_bigger_crawl_is_priced_from_measured_costs(done, capsys):
    assert main(["plan", str(done.path), "--pages", "1e9", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    small, big = plan["totals"][0], plan["totals"][-1]
    assert (small["pages"], big["pages"]) == (5, 10**9)
    assert 1.9e8 < big["documents"] / max(1, small["documents"]) < 2.1e8
    assert {"read", "extraction", "language", "quality", "signature", "cluster", "write"} <= {
        step["step"] for step in plan["steps"]
    }
    growth = {
        step["step"]: step["core_hours"][-1] / max(1e-12, step["core_hours"][0]) for step in plan["steps"]
    }
    assert growth["cluster"] > growth["read"] * 2  # n log n
    assert main(["plan", str(done.path)]) == 0


def test_the_newest_page_stays_if_the_recipe_says_so(tmp_path):
    run(
        crawl_folder(tmp_path / "crawl", [texts(tmp_path, "pages", PAGES)]),
        tmp_path / "out",
        config=Data(keep="newest"),
    )
    assert {page.date for page in read_documents(tmp_path / "out")} == {"2024-02-01", "2024-03-01"}
    assert removed_rows(tmp_path / "out")["http://a.example/2"] == (
        "duplicate",
        "same URL as another document",
    )
    rows = list(read_table(tmp_path / "out" / "clusters-00000.parquet", ["url", "cluster", "kept"]))
    assert (
        len(rows) == 4
        and sum(row["kept"] for row in rows) == 2
        and len({row["cluster"] for row in rows}) == 2
    )


def test_other_tools_open_the_documents(done):
    files = str(done.path / "data" / "documents-*.parquet")
    assert list(polars.read_parquet(files).columns) == list(COLUMNS)
    assert duckdb.sql(f"select count(*) from '{files}' where language = 'en'").fetchall() == [(2,)]
    card = (done.path / "data" / "README.md").read_text()
    assert (
        card.startswith("---\nlanguage:\n- en\n")
        and "data_files: documents-*.parquet" in card
        and "\n# 2 documents" in card
    )


def test_a_classifier_is_trained_on_the_users_labels(tmp_path, capsys):
    path = tmp_path / "labels.jsonl"
    rows = [
        {"text": sentences(n) if n % 2 else "Buy shoes now, cheap shoes today.", "label": n % 2}
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["classifier", str(path), "--out", str(tmp_path / "c.safetensors")]) == 0
    assert "accuracy 1.000" in capsys.readouterr().out
    assert main(["classifier", str(tmp_path / "absent")]) == 2
