"""The optional parts of the data stage: classifier, decontamination, boilerplate, substrings."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.documents import read_documents
from crawltalk.core.errors import BadInput, BadRecipe, MissingInput
from crawltalk.core.types import Document
from crawltalk.data.filters import boilerplate, classifier, decontamination
from crawltalk.recipe import Data
from crawltalk.retrieval.suffixes import find, repeated_spans, suffix_array
from support.pages import LEAD, crawl_folder, document, removed_rows, run, sentences

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=30).map(" ".join)


def wares(seed: int) -> str:
    """What a poor page says."""
    rng = random.Random(seed)
    return " ".join(
        rng.choice(["Buy", "Get", "Order"]) + rng.choice([" cheap", " now", " best"]) + " shoes today."
        for _ in range(20)
    )


def labels(count: int) -> list[tuple[str, float]]:
    return [(sentences(n), 1.0) if n % 2 else (wares(n), 0.0) for n in range(count)]


# --- classifier ---


def test_a_classifier_learns_what_its_labels_say_and_survives_saving(tmp_path: Path):
    model = classifier.train(labels(60))
    assert model.score(sentences(1001)) > 0.8 and model.score(wares(1000)) < 0.2
    model.save(tmp_path / "c.safetensors")
    again = classifier.Classifier.load(tmp_path / "c.safetensors")
    assert again.score(sentences(7)) == model.score(sentences(7))
    assert (classifier.train(labels(60)).weights == model.weights).all()
    result = classifier.evaluate(labels(100))
    assert result.texts == 10 and result.accuracy > 0.9 and result.auc > 0.9


def test_labels_that_say_nothing_teach_nothing():
    rng = random.Random(0)
    rows = [(sentences(n), float(rng.random() < 0.5)) for n in range(200)]
    assert 0.2 < classifier.evaluate(rows, 0.3).auc < 0.8


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ('{"text": "x"}', "line 2"),
        ('{"text": "x", "label": 3}', "not between"),
        ('{"text": "x", "label": true}', "both kinds"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, line: str, message: str):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"text": "a", "label": 1}\n' + line + "\n")
    with pytest.raises(BadInput, match=message):
        classifier.read_labels(path)
    with pytest.raises(BadInput, match="not a classifier"):
        classifier.Classifier.load(path)
    with pytest.raises(MissingInput, match="LABELS"):
        classifier.Classifier.load(tmp_path / "absent")


# --- decontamination ---


@given(st.lists(WORDS, max_size=5), WORDS, st.integers(2, 5))
@settings(max_examples=100, deadline=None)
def test_a_document_is_contaminated_if_it_shares_an_ngram(
    tmp_path_factory, benchmark: list[str], text: str, n: int
):
    path = tmp_path_factory.mktemp("sets") / "set.jsonl"
    path.write_text(
        "".join(json.dumps({"nested": [{"question": question}]}) + "\n" for question in benchmark)
    )

    def ngrams(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[position : position + n]) for position in range(len(words) - n + 1)}

    known = set().union(*(ngrams(question.split()) for question in benchmark))
    check = decontamination.filter_by(decontamination.read_benchmarks([str(path)], n), n)
    assert bool(check(document(text))) == bool(known & ngrams(text.split()))


def test_the_reason_quotes_what_was_found(tmp_path: Path):
    (tmp_path / "a.txt").write_text(
        "Which river, asked he, crosses the old northern town of Vinbrad twice a day in 1900?"
    )
    check = decontamination.filter_by(decontamination.read_benchmarks([str(tmp_path / "a.txt")], 5), 5)
    assert (
        check(document("So: CROSSES the old, northern town!"))
        == "text of an evaluation set: crosses the old northern town"
    )
    with pytest.raises(MissingInput, match="benchmarks"):
        decontamination.read_benchmarks([str(tmp_path / "absent.json")], 5)
    (tmp_path / "set.jsonl.gz").write_bytes(b"")
    with pytest.raises(BadInput, match="is none of"):
        decontamination.read_benchmarks([str(tmp_path / "set.jsonl.gz")], 5)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(BadInput, match=r"bad\.json"):
        decontamination.read_benchmarks([str(tmp_path / "bad.json")], 5)


# --- boilerplate ---


def survey(texts: list[str], host: str = "a.example", slice_: int = 1 << 20) -> boilerplate.Boilerplate:
    pages = [boilerplate.survey_lines(host, text) for text in texts]
    table = np.array([(page.text, page.host, len(page.hashes)) for page in pages], boilerplate.TEXTS)
    hashes = np.concatenate([np.zeros(0, np.uint64), *(page.hashes for page in pages)])
    return boilerplate.Boilerplate(*boilerplate.count_lines([(table, hashes)], slice_), 0.3)


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=6), min_size=1, max_size=30), st.integers(1, 1000)
)
def test_only_lines_that_a_site_repeats_go_whatever_the_slices(pages: list[list[str]], slice_: int):
    texts = ["\n".join(lines) for lines in pages]
    found = survey(texts, slice_=slice_)
    distinct = {text: set(text.split("\n")) for text in texts}
    at_least = max(boilerplate.FEWEST, 0.3 * len(distinct))
    gone = {line for line in "abcdef" if sum(line in lines for lines in distinct.values()) >= at_least}
    for text, lines in zip(texts, pages, strict=True):
        left = found.remove("a.example", text).split("\n")
        assert [line for line in left if line not in gone] == (
            [line for line in lines if line not in gone] or [""]
        )
        assert found.remove("b.example", text) == text


def test_headings_stay_and_lines_with_other_numbers_go_with_the_boilerplate_around_them():
    menu, footer = ["Home", "Guide", "Log in"], ["Terms of use", "Privacy"]
    texts = [
        "\n".join(
            [
                *menu,
                f"Title {sentences(n)[:30]}",
                sentences(n),
                "See also",
                sentences(n + 100),
                *footer,
                f"Page {n} of 40",
            ]
        )
        for n in range(40)
    ]
    found = survey(texts)
    for n, text in enumerate(texts):
        assert found.remove("a.example", text) == "\n".join(text.split("\n")[3:7]), n
    towns = [
        "\n".join([*menu, f"Town {sentences(n)[:20]}", f"People: {n * 37}", f"Height: {n + 9}"])
        for n in range(40)
    ]
    assert "People: 37" in survey(towns).remove("a.example", towns[1])  # facts are not boilerplate


def test_copies_of_a_page_do_not_make_its_text_boilerplate():
    texts = [sentences(1)] * 20 + [sentences(n) for n in range(2, 12)]
    found = survey(texts)
    assert [found.remove("a.example", text) for text in texts] == texts


@given(st.binary(max_size=60))
def test_a_suffix_array_sorts_all_suffixes_and_finds_all_places(data: bytes):
    text = np.frombuffer(data, np.uint8)
    suffixes = suffix_array(text)
    assert suffixes.tolist() == sorted(range(len(data)), key=lambda position: data[position:])
    for pattern in {data[position : position + 2] for position in range(len(data))} | {b"xyz"}:
        positions = [position for position in range(len(data)) if data.startswith(pattern, position)]
        assert find(text, suffixes, pattern).tolist() == positions


@given(st.lists(st.text(alphabet="abé", max_size=25), min_size=1, max_size=5), st.integers(2, 6))
@settings(max_examples=200, deadline=None)
def test_repeated_spans_are_those_of_a_plain_search(texts: list[str], length: int):
    documents = [text.encode() for text in texts]
    for number, (content, spans) in enumerate(zip(documents, repeated_spans(documents, length), strict=True)):
        covered = set()
        for start in range(len(content)):
            for end in range(start + length, len(content) + 1):
                piece = content[start:end]
                if any(piece in other for other in documents[:number]) or 0 <= content.find(piece) < start:
                    covered |= set(range(start, end))
        mine = {position for start, end in spans for position in range(start, end)}
        assert mine <= covered
        assert all(
            content[position] & 0x80 for position in covered - mine
        )  # parts of characters at the edges
        for start, end in spans:
            content[start:end].decode()


def test_a_document_that_repeats_itself_millions_of_times_is_read_in_linear_time():
    assert repeated_spans([b"a" * 10_000_000], 50) == [[(1, 10_000_000)]]  # ten minutes if it were quadratic


# --- in the stage ---


def test_the_recipe_adds_these_filters(tmp_path: Path):
    shared = "This line stands below every article of this site, whoever wrote it and whatever it says."
    quoted, element = sentences(500, 3), LEAD.split("\n")[2]
    texts = [f"{sentences(n)}\n{shared}" for n in range(5)]
    texts += [sentences(50) + "\n" + quoted, sentences(51) + "\n" + element, sentences(52) + "\n" + element]
    path = tmp_path / "texts.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": text, "url": f"http://a.example/{n}", "id": f"{n:03d}"}) + "\n"
            for n, text in enumerate(texts)
        )
    )
    (tmp_path / "set.txt").write_text(quoted)
    classifier.train(labels(60)).save(tmp_path / "c.safetensors")
    config = Data(
        benchmarks=(str(tmp_path / "set.txt"),),
        site_lines=0.5,
        substrings=200,
        classifier=str(tmp_path / "c.safetensors"),
        keep="classifier",
    )
    run(crawl_folder(tmp_path / "crawl", [path]), tmp_path / "out", config=config)
    rows = removed_rows(tmp_path / "out")
    assert (
        rows.pop("http://a.example/5") == ("quality", "decontamination: text of an evaluation set")
        and not rows
    )
    left = {page.url[-1]: page.text for page in read_documents(tmp_path / "out")}
    assert [left[str(n)] for n in range(5)] == [sentences(n) for n in range(5)]
    assert left["6"] == sentences(51) + "\n" + element
    assert left["7"] == sentences(52).rstrip(".")  # the full stop is part of what is repeated


def no_rivers(page: Document) -> str | None:
    """A filter of the user's."""
    return "rivers" if "river" in page.text else None


def test_the_users_filters_come_last_and_give_their_own_reasons(tmp_path: Path):
    path = tmp_path / "texts.jsonl"
    rows = [{"text": sentences(n), "url": f"http://a.example/{n}", "id": str(n)} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    crawl = crawl_folder(tmp_path / "crawl", [path])
    run(crawl, tmp_path / "out", config=Data(filters=(f"{__name__}:no_rivers",)))
    kept = [page.text for page in read_documents(tmp_path / "out")]
    assert 0 < len(kept) < 12 and not any("river" in text for text in kept)
    assert set(removed_rows(tmp_path / "out").values()) == {("quality", f"{__name__}:no_rivers: rivers")}
    with pytest.raises(BadRecipe, match=r"data\.filters"):
        run(crawl, tmp_path / "bad", config=Data(filters=("no_such:thing",)))


def test_an_earlier_crawls_documents_are_not_taken_again(tmp_path: Path):
    from crawltalk.run.manifest import read_manifest

    def crawl(name: str, seeds: list[int]) -> Path:
        path = tmp_path / f"{name}.jsonl"
        rows = [
            {"text": sentences(seed), "url": f"http://{name}.example/{seed}", "id": f"{name}{seed}"}
            for seed in seeds
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return crawl_folder(tmp_path / f"crawl-{name}", [path])

    first = tmp_path / "first" / "data"
    run(crawl("old", [1, 2, 3]), first)
    (first / "manifest.json").write_text(
        json.dumps(
            {
                **dict.fromkeys(("stage", "fingerprint", "started", "host"), "x"),
                **dict.fromkeys(("version", "seconds", "cpu_seconds", "peak_memory_bytes", "attempts"), 1),
                **{name: {} for name in ("inputs", "metrics", "versions")},
                "config": {"ngram": 5, "bands": 14, "rows": 8},
                "files": [],
            }
        )
    )
    assert read_manifest(first)
    metrics = run(
        crawl("new", [3, 4, 1, 5]), tmp_path / "out", config=Data(earlier=(str(tmp_path / "first"),))
    )
    assert {page.url for page in read_documents(tmp_path / "out")} == {
        "http://new.example/4",
        "http://new.example/5",
    }
    assert metrics["removed_duplicate"] == 2
    assert removed_rows(tmp_path / "out")["http://new.example/3"] == (
        "duplicate",
        "near-duplicate of a document of an earlier crawl",
    )
    assert np.load(tmp_path / "out" / "signatures.npy").shape == (15, 2)
    with pytest.raises(MissingInput, match="no finished data stage"):
        run(tmp_path / "crawl-new", tmp_path / "out2", config=Data(earlier=(str(tmp_path / "nothing"),)))
