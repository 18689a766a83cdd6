"""Files that are no WARC with web pages: texts as rows, WET, archives, folders, lists."""

import bz2
import csv
import gzip
import io
import itertools
import json
import random
import re
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.documents import read_documents, read_table
from crawltalk.core.errors import BadInput, UserError
from crawltalk.data.read.inputs import dump_name, read_input, unpacked
from crawltalk.pipeline import STAGES
from crawltalk.recipe import Data
from crawltalk.run.folder import RunFolder
from support.pages import (
    SAMPLES,
    build_data,
    crawl_folder,
    page_html,
    removed_rows,
    run,
    sentences,
    write_warc,
)

TEXTS = [sentences(number) for number in range(6)]


def rows() -> list[dict]:
    return [
        {
            "text": text,
            "id": f"<{number}>",
            "url": f"https://a.example/{number}",
            "date": "2024-01-01",
            "extra": number,
        }
        for number, text in enumerate(TEXTS)
    ]


def kept(folder: Path, path: Path) -> list[str]:
    run(crawl_folder(folder / "crawl", [path]), folder / "out")
    return sorted(document.text for document in read_documents(folder / "out"))


@pytest.mark.parametrize("name", ["texts.jsonl", "texts.jsonl.gz", "texts.ndjson", "texts.parquet"])
def test_texts_go_straight_to_the_filters(name, tmp_path):
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows()), path)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows()).encode()
        path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    assert kept(tmp_path, path) == sorted(TEXTS)
    first = next(iter(read_documents(tmp_path / "out")))
    assert (first.dump, first.file_path, first.date) == ("texts", name, "2024-01-01")


def test_the_stages_own_parquet_is_an_input_that_passes_unchanged(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    once = kept(tmp_path, path)
    (tmp_path / "again").mkdir()
    assert kept(tmp_path / "again", tmp_path / "out" / "documents-00000.parquet") == once


def test_bad_rows_are_set_aside_with_their_reason_and_their_neighbours_kept(tmp_path):
    good = json.dumps(rows()[0]).encode()
    lines = [
        good,
        b"{not json",
        b'"a string"',
        b'{"url": "x"}',
        b'{"text": 3}',
        b'{"text": "  "}',
        b'{"text": "\xff"}',
        b"",
        good,
    ]
    path = tmp_path / "texts.jsonl"
    path.write_bytes(b"\n".join(lines))
    pages = list(read_input(path, 10_000, print))
    bad = (
        "not a JSON object",
        "not a JSON object",
        "no text",
        "the text is a number",
        "empty text",
        "not UTF-8",
    )
    assert [page.fault for page in pages] == [None, *bad, None]
    assert pages[1].id == "<texts.jsonl:2>"
    assert next(read_input(path, 100, print)).fault == "more than 100 bytes"
    run(crawl_folder(tmp_path / "crawl", [path]), tmp_path / "out")
    # six, and a duplicate
    assert len(list(read_table(tmp_path / "out" / "removed-00000.parquet", ["reason"]))) == 7


def test_a_cut_file_gives_what_it_has_and_a_warning(tmp_path):
    path = tmp_path / "texts.jsonl.gz"
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows()).encode(), mtime=0)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    warnings: list[str] = []
    pages = list(read_input(path, 10_000, warnings.append))
    assert 0 < len(pages) < 6
    assert len(warnings) == 1 and "rows before that are kept" in warnings[0]


def test_a_file_that_cannot_be_read_is_set_aside_as_one_page_with_a_warning(tmp_path):
    path = tmp_path / "a.parquet"
    for table in (None, {"count": [1]}):
        if table is None:
            path.write_bytes(b"no parquet")
        else:
            pq.write_table(pa.table(table), path)
        warnings: list[str] = []
        assert [page.fault for page in read_input(path, 100, warnings.append)] == ["file that cannot be read"]
        assert re.search(
            "not a Parquet file" if table is None else "no column of texts; it has: count", warnings[0]
        )
    with pytest.raises(
        BadInput, match=r"no file of the crawl can be read: a\.parquet has no column of texts"
    ):
        run(crawl_folder(tmp_path / "crawl", [path]), tmp_path / "out")


def test_wet_records_are_texts(tmp_path):
    path = tmp_path / "CC-MAIN-1.warc.wet.gz"
    records = b""
    for number, text in enumerate(TEXTS):
        head = (
            f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:{number}>\r\n"
            f"WARC-Target-URI: https://a.example/{number}\r\nWARC-Date: 2024-05-01T12:00:00Z\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(text.encode())}\r\n\r\n"
        )
        records += gzip.compress(head.encode() + text.encode() + b"\r\n\r\n", mtime=0)
    path.write_bytes(records)
    assert kept(tmp_path, path) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("name", "dump"),
    [("a.warc.gz", "a"), ("a.b.warc", "a.b"), ("a.jsonl", "a"), ("x.parquet", "x"), ("odd", "odd")],
)
def test_a_dump_is_named_after_its_file(name, dump):
    assert dump_name(name) == dump


def test_pages_and_texts_may_come_together(tmp_path):
    write_warc(tmp_path / "a.warc.gz", [("http://a.example/1", f"<h1>T</h1><p>{TEXTS[0]}</p>".encode())])
    (tmp_path / "b.jsonl").write_text(json.dumps(rows()[1]) + "\n")
    metrics = run(
        crawl_folder(tmp_path / "crawl", [tmp_path / "a.warc.gz", tmp_path / "b.jsonl"]), tmp_path / "out"
    )
    assert metrics["pages"] == metrics["documents"] == 2


# --- rows in other forms ---


def read_texts(path: Path, **settings) -> tuple[list[str | None], list[str]]:
    """Texts or faults of a file, and the warnings."""
    warnings: list[str] = []
    pages = list(read_input(path, 100_000, warnings.append, **settings))
    return [page.text or page.body.decode() or page.fault for page in pages], warnings


def forms() -> dict[str, bytes]:
    lines = [json.dumps(row) for row in rows()]
    plain = "\n".join(lines).encode()
    columns = [list(rows()[0]), *([str(value) for value in row.values()] for row in rows())]
    table = io.StringIO()
    csv.writer(table).writerows(columns)
    return {
        "a.json": plain,
        "a.json.gz": gzip.compress(plain),
        "a.jsonl.zst": zstandard.compress(plain),
        "a.jsonl.bz2": bz2.compress(plain),
        "wrong-name.jsonl.gz": plain,
        "mark.jsonl": b"\xef\xbb\xbf" + plain,
        "windows.jsonl": plain.decode().replace("\n", "\r\n").encode("utf-16"),
        "sequence.jsonl": b"".join(b"\x1e" + line.encode() + b"\n" for line in lines),
        "array.jsonl": json.dumps(rows()).encode(),
        "pretty.json": json.dumps(rows(), indent=2).encode(),
        "one-after-the-other.json": "\n".join(json.dumps(row, indent=1) for row in rows()).encode(),
        "lines-in-an-array.json": ("[\n" + ",\n".join(lines) + "\n]\n").encode(),
        "a.csv": table.getvalue().encode(),
        "a.tsv": table.getvalue().encode("utf-16"),
        "part-00000": plain,
    }


@pytest.mark.parametrize("name", forms())
def test_rows_are_read_whatever_their_form(name, tmp_path):
    (tmp_path / name).write_bytes(forms()[name])
    pages = list(read_input(tmp_path / name, 100_000, pytest.fail))
    assert [page.text for page in pages] == TEXTS
    assert [(page.id, page.url) for page in pages] == [(row["id"], row["url"]) for row in rows()]


@given(
    st.lists(
        st.fixed_dictionaries({"text": st.text(min_size=1).filter(str.strip), "more": st.text()}), min_size=1
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_any_json_that_python_writes_is_read(tmp_path_factory, table, indent, ascii_):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(table, indent=indent, ensure_ascii=ascii_), newline="", encoding="utf-8")
    control = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
    pages = list(read_input(path, 10**6, pytest.fail))
    assert len(pages) == len(table)
    for page, row in zip(pages, table, strict=True):
        if not control.search(row["text"]):
            assert page.text == row["text"]


POISON = {
    b'{"text": NaN}': "the text is a number",
    b'{"text": "half \\ud83d of it"}': "half a surrogate pair in the text",
    b'{"text": "\\u0000\\u0001\\u0002"}': "binary data that calls itself text",
    b'{"text": ["a", 1]}': "the text is a list",
    b'{"text": {"a": "b"}}': "the text is a nested object",
    b'{"text": "' + b"x" * 200_000 + b'"}': "more than 100,000 bytes",
    b'{"text": "caf\xe9"}': "not UTF-8",
    b"[" * 100_000: "not a JSON object",
    b"\0" * 50: "not a JSON object",
    b'{"text": "cut': "not a JSON object",
}


def test_poison_rows_are_set_aside_with_a_short_reason_and_the_others_kept(tmp_path):
    good = [
        b'{"text": "good", "score": NaN, "rank": -Infinity}',
        b'{"text": "good", "n": ' + b"9" * 5000 + b"}",
        b'{"text": "go\\u0000od and with enough words for a control character to be rare"}',
        b'{"text": "good", "url": "https://a.example/\\ud83d", "id": 0}',
    ]
    lines = [good[0]]
    for number, bad in enumerate(POISON):
        lines += [bad, good[number % len(good)]]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    pages = list(read_input(tmp_path / "a.jsonl", 100_000, pytest.fail))
    assert [page.fault for page in pages[1::2]] == list(POISON.values())
    assert all(page.fault is None and page.text.startswith("go") for page in pages[::2])
    assert "\0" not in "".join(page.text for page in pages[::2])
    assert (pages[8].id, pages[8].url) == ("0", "https://a.example/?")


def test_a_broken_object_of_an_array_costs_itself_only(tmp_path):
    path = tmp_path / "a.json"
    for array in (
        b'[{"text": "a"}, {"text": b"}, {"text": "c"}]',
        b'[\n{"text": "a"},\n{"text": "b},\n{"text": "c"}\n]',
        b'[{"text": "a"}, {"text": "b"x"}, {"text": "c"}]',
    ):
        path.write_bytes(array)
        texts, _ = read_texts(path)
        assert texts[0] == "a" and texts[-1] == "c" and "not a JSON object" in texts, array


def test_the_column_of_texts_is_found_if_only_one_can_be_it(tmp_path):
    path = tmp_path / "a.jsonl"
    page = "<!DOCTYPE html><p>x"
    for fields, text in (
        ({"content": "x", "title": "t"}, "x"),
        ({"raw_content": "x", "url": "https://a.example/", "digest": "d"}, "x"),
        ({"html": page, "url": "https://a.example/"}, page),
        ({"summary": "x", "id": "1"}, "x"),
        ({"text": "x", "content": "y"}, "x"),
        ({"text": None, "content": "y"}, "y"),
        ({"content": ["x", "y"]}, "x\ny"),
    ):
        path.write_text(json.dumps(fields) + "\n" + json.dumps(fields) + "\n")
        texts, warnings = read_texts(path)
        assert texts == [text, text], fields
        assert len(warnings) == (text != "x" or "text" not in fields)
    path.write_text('{"content": "x", "body": "y"}\n' * 2)
    with pytest.raises(BadInput, match=r"not clear which column.*content, body.*--data\.text_column"):
        read_texts(path)
    assert read_texts(path, text_column="body") == (["y", "y"], [])
    path.write_text('{"a": {"b": "x"}}\n' * 2)
    assert read_texts(path, text_column="a.b") == (["x", "x"], [])
    texts, warnings = read_texts(path, text_column="c")
    assert texts == ["file that cannot be read"] and "has no column 'c'; it has: a" in warnings[0]


def test_columns_of_parquet_may_have_any_type_of_text(tmp_path):
    path = tmp_path / "a.parquet"
    for column in (
        pa.array(["x", "y"], pa.large_string()),
        pa.array(["x", "y"]).dictionary_encode(),
        pa.array([b"x", b"y"]),
        pa.array([["x"], ["y"]]),
        pa.array(["x", "y"], pa.string_view()),
    ):
        pq.write_table(pa.table({"text": column, "url": [{"raw": "u"}] * 2, "id": [7, None]}), path)
        pages = list(read_input(path, 1000, pytest.fail))
        assert [page.text for page in pages] == ["x", "y"], column.type
        assert [(page.id, page.url) for page in pages] == [("7", ""), ("<a.parquet:2>", "")]
    pq.write_table(pa.table({"text": [b"x", b"\xff\xfe", None]}), path)
    assert read_texts(path)[0] == ["x", "bytes that are not UTF-8", "no text"]
    pq.write_table(pa.table({"meta": [{"body": "x", "url": "https://a.example/"}]}), path)
    (page,) = read_input(path, 1000, pytest.fail, "meta.body")
    assert (page.text, page.url) == ("x", "https://a.example/")


def test_a_damaged_row_group_of_parquet_costs_its_own_rows(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"{number} {sentences(number)}" for number in range(30)]})
    pq.write_table(table, path, row_group_size=10, write_page_checksum=True)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    whole = bytearray(path.read_bytes())
    whole[start + 60 : start + 160] = bytes(100)
    path.write_bytes(whole)
    texts, warnings = read_texts(path)
    assert texts == [
        *table["text"].to_pylist()[:10],
        *["damaged row group of a Parquet file"] * 10,
        *table["text"].to_pylist()[20:],
    ]
    assert len(warnings) == 1 and "10 of its 10 rows are set aside" in warnings[0]


def test_rows_with_the_same_id_and_no_url_are_not_one_page(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"id": "b", "text": text}) + "\n" for text in TEXTS))
    assert kept(tmp_path, path) == sorted(TEXTS)


# --- archives ---


def test_wacz_and_other_archives_are_read_with_what_is_in_them(tmp_path):
    warc = warc_with(tmp_path / "a.warc.gz", [1, 2]).read_bytes()
    page = page_html("Page", [sentences(3), sentences(4, 2)])
    line = json.dumps({"text": sentences(5), "url": "https://a.example/5"}).encode()
    with zipfile.ZipFile(tmp_path / "crawl.wacz", "w") as file:
        file.writestr("archive/data.warc.gz", warc)
        file.writestr(
            "pages/pages.jsonl", '{"format": "json-pages-1.0", "text": "not a text of the crawl"}\n'
        )
    members = {
        "www.example.org/a.html": page,
        "rows.jsonl": line,
        "picture.png": b"\x89PNG",
        "page.php?id=1": page.replace(b"Page", b"Another page"),
        "__MACOSX/._a.html": b"\0",
    }
    with zipfile.ZipFile(tmp_path / "mixed.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {**members, "crawl.wacz": (tmp_path / "crawl.wacz").read_bytes()}.items():
            file.writestr(name, content)
    with tarfile.open(tmp_path / "mixed.tar.gz", "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    crawled = {"http://a.example/1", "http://a.example/2"}
    mixed = {"https://a.example/5", "https://www.example.org/a.html", "file:///page.php%3Fid%3D1"}
    for name, expected in (
        ("crawl.wacz", crawled),
        ("mixed.zip", mixed | crawled),
        ("mixed.tar.gz", mixed),
    ):
        warnings: list[str] = []
        with unpacked(tmp_path / name, tmp_path, warnings.append) as files:
            found = [page for file in files for page in read_input(file, 10**6, warnings.append)]
        assert {page.url for page in found if not page.fault} == expected, name
        if name == "crawl.wacz":
            assert not warnings
        else:
            assert any("2 files in it are not read" in warning for warning in warnings)
        assert not list(tmp_path.glob("unpacked-*"))
    assert urls(build_data(tmp_path / "run", str(tmp_path / "crawl.wacz"))) == crawled


def test_a_damaged_archive_gives_what_it_has_and_is_named(tmp_path):
    page = page_html("Page", [sentences(3), sentences(4, 2)])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(3):
            file.writestr(f"{number}.html", page)
    whole = bytearray(buffer.getvalue())
    whole[whole.index(page, 1000) + 20] ^= 1
    path = tmp_path / "a.zip"
    for content, faults in (
        (bytes(whole), [None, "file that cannot be read", None]),
        (bytes(whole[:-30]), ["file that cannot be read"]),
        (b"", []),
    ):
        path.write_bytes(content)
        warnings: list[str] = []
        with unpacked(path, tmp_path, warnings.append) as files:
            found = [page.fault for file in files for page in read_input(file, 10**6, warnings.append)]
        assert found[: len(faults)] == faults and (warnings or found), found


# --- folders and globs ---


def test_a_folder_may_mix_formats_and_what_is_left_out_is_named(tmp_path):
    site = tmp_path / "site"
    (site / "www.example.org" / "deep").mkdir(parents=True)
    (site / "www.example.org" / "deep" / "page.php?id=3").write_bytes(
        page_html("P", [sentences(1), sentences(2, 2)])
    )
    (site / "www.example.org" / "a.html.gz").write_bytes(
        gzip.compress(page_html("Q", [sentences(3), sentences(4, 2)]))
    )
    (site / "rows.jsonl.zst").write_bytes(zstandard.compress(json.dumps(rows()[5]).encode()))
    warc_with(site / "a.warc.gz", [7])
    for name in ("logo.png", "style.css", ".hidden", "LICENSE"):
        (site / name).write_bytes(b"nothing to read")
    (site / "gone").symlink_to(tmp_path / "nowhere")
    (site / "loop").symlink_to(site)
    done = build_data(tmp_path / "run", str(site))
    expected = {
        "https://www.example.org/deep/page.php%3Fid%3D3",
        "https://www.example.org/a.html.gz",
        "https://a.example/5",
        "http://a.example/7",
    }
    assert urls(done) == expected
    manifest = done.manifest("crawl")
    assert manifest is not None and manifest.metrics["left_out"] == 5
    warnings = json.loads((done.folder("data") / "funnel.json").read_text())["poison"]["warnings"]
    for kind in (".png files: 1", ".css files: 1", "hidden files: 1", "files without an ending: 1"):
        assert kind in warnings[0]
    some = build_data(tmp_path / "glob", str(site / "*"))
    assert urls(some) == {"https://a.example/5", "http://a.example/7"}
    assert "folders: 2" in (some.folder("crawl") / "warnings.json").read_text()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "logo.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"no file matches.*left out: \.png files: 1"):
        build_data(tmp_path / "none", str(tmp_path / "empty"))


def test_a_list_whose_files_change_makes_the_crawl_stale(tmp_path):
    warc_with(tmp_path / "a.warc.gz", [1])
    (tmp_path / "my.paths").write_text("\ufeffa.warc.gz\n\ngone.warc.gz\n")
    done = build_data(tmp_path / "run", str(tmp_path / "my.paths"))
    assert urls(done) == {"http://a.example/1"}
    warnings = json.loads((done.folder("data") / "funnel.json").read_text())["poison"]["warnings"]
    assert "that do not exist: 1, such as" in warnings[0] and "gone.warc.gz" in warnings[0]
    warc_with(tmp_path / "gone.warc.gz", [2])
    assert done.states(STAGES, done.recipe())["crawl"].state == "stale"


def test_twenty_pages_of_menus_keep_their_own_text_only(tmp_path):
    """Without the survey, these pages are near-duplicates of each other."""
    menu = "\n".join(sentences(1000 + number)[:110] for number in range(60))
    own = [sentences(number) for number in range(20)]
    path = tmp_path / "a.jsonl"
    table = [
        {"url": f"https://a.example/{n}", "text": f"{menu}\n{text}\nImprint"} for n, text in enumerate(own)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    crawl = crawl_folder(tmp_path / "crawl", [path])
    assert run(crawl, tmp_path / "without")["documents"] <= 1
    run(crawl, tmp_path / "out", config=Data(site_lines=0.3))
    assert sorted(document.text for document in read_documents(tmp_path / "out")) == sorted(own)
    record = json.loads((tmp_path / "out" / "funnel.json").read_text())
    assert record["boilerplate"]["share_before"] > 0.89 and record["boilerplate"]["share_after"] == 0
    with pytest.raises(UserError, match="is a share"):
        run(crawl, tmp_path / "wrong", config=Data(site_lines=10))


# --- compressed otherwise, elsewhere, or not packed at all ---


def warc_with(path: Path, seeds: list[int]) -> Path:
    """A WARC file with a page for each seed; zstd, each record a frame of its own, if its name says so."""
    pages = [
        (f"http://a.example/{seed}", page_html(f"Page {seed}", [sentences(seed), sentences(-seed - 1, 2)]))
        for seed in seeds
    ]
    write_warc(path.with_suffix("") if path.suffix == ".zst" else path, pages)
    if path.suffix == ".zst":
        plain = path.with_suffix("").read_bytes()
        starts = [match.start() for match in re.finditer(rb"WARC/1\.0\r\n", plain)] + [len(plain)]
        codec = pa.Codec("zstd")
        path.write_bytes(
            b"".join(
                codec.compress(plain[start:end], asbytes=True) for start, end in itertools.pairwise(starts)
            )
        )
    return path


def urls(run_: RunFolder) -> set[str]:
    return {document.url for document in read_documents(run_.folder("data"))}


def test_warc_in_zstd_is_read_and_damage_costs_its_own_record_only(tmp_path):
    path = warc_with(tmp_path / "a.warc.zst", [0, 1, 2, 3])
    whole = path.read_bytes()
    assert urls(build_data(tmp_path / "run", str(path))) == {f"http://a.example/{n}" for n in range(4)}
    frames = [match.start() for match in re.finditer(re.escape(whole[:4]), whole)]
    path.write_bytes(whole[: frames[1] + 40] + bytes(60) + whole[frames[1] + 100 :])
    warnings: list[str] = []
    pages = list(read_input(path, 10**6, warnings.append))
    assert [page.url[-1:] for page in pages if not page.fault] == ["0", "2", "3"]
    assert len(pages) == 4 and len(warnings) == 1


def test_a_folder_of_pages_and_texts_is_packed_and_read(tmp_path):
    site = tmp_path / "site" / "deep"
    site.mkdir(parents=True)
    (site / "a b.html").write_bytes(page_html("Page", [sentences(1), sentences(2, 2)]))
    (site.parent / "note.txt").write_text(sentences(3))
    (site.parent / "picture.png").write_bytes(b"\x89PNG")
    done = build_data(tmp_path / "run", str(tmp_path / "site"))
    assert urls(done) == {"file:///deep/a%20b.html", "file:///note.txt"}
    assert done.states(STAGES, done.recipe())["data"].state == "fresh"
    (site.parent / "note.txt").write_text(sentences(4))
    assert done.states(STAGES, done.recipe())["crawl"].state == "stale"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments) -> None:
        pass


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    (tmp_path / "www").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_files_behind_a_url_and_lists_of_them_are_fetched_one_by_one(server, tmp_path):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    (tmp_path / "www" / "crawl").mkdir()
    for number in range(3):
        warc_with(tmp_path / "www" / "crawl" / f"{number}.warc.gz", [number])
    one = build_data(tmp_path / "one", f"{server}/crawl/0.warc.gz")
    assert urls(one) == {"http://a.example/0"} and next(iter(read_documents(one.folder("data")))).dump == "0"
    listing = "".join(f"crawl/{number}.warc.gz\n" for number in range(3))
    (tmp_path / "www" / "warc.paths.gz").write_bytes(gzip.compress(listing.encode()))
    assert urls(build_data(tmp_path / "two", f"{server}/warc.paths.gz", **{"crawl.files": "2"})) == {
        "http://a.example/0",
        "http://a.example/1",
    }
    assert not list((tmp_path / "one").rglob("fetched-*"))
    with pytest.raises(UserError, match="cannot be read"):
        build_data(tmp_path / "three", f"{server}/absent.warc.gz")


def test_a_local_list_names_files_beside_it(tmp_path):
    warc_with(tmp_path / "a.warc.gz", [1])
    (tmp_path / "my.paths").write_text("a.warc.gz\n")
    assert urls(build_data(tmp_path / "run", str(tmp_path / "my.paths"))) == {"http://a.example/1"}
    (tmp_path / "my.paths").write_text("gone.warc.gz\n")
    with pytest.raises(UserError, match="named in"):
        build_data(tmp_path / "other", str(tmp_path / "my.paths"))


# --- poison ---


def test_a_line_as_long_as_a_bomb_is_set_aside(tmp_path):
    path = tmp_path / "texts.jsonl"
    good = json.dumps({"text": sentences(1)})
    path.write_text(good + "\n" + '{"text": "' + "x" * 5_000_000 + '"}\n' + good.replace("1", "2") + "\n")
    assert [page.fault for page in read_input(path, 1_000_000, lambda warning: None)] == [
        None,
        "more than 1,000,000 bytes",
        None,
    ]


def bombs() -> list[tuple[str, bytes, str]]:
    """Pages that hang, crash or swell other programs."""
    deep = b"<html><body>" + b"<div>" * 200_000 + b"deep"
    table = b"<table>" + b"<tr><td>cell</td><td>1</td></tr>" * 150_000 + b"</table>"
    zeros = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(zeros.compress(bytes(1 << 20)) for _ in range(300)), zeros.flush()])
    return [
        ("deep", deep, ""),
        ("table", table, ""),
        ("big", b"<p>" + b"word " * 10_000_000, ""),
        ("bomb", bomb, "gzip"),
        ("nuls", b"\0" * 100_000 + b"<p>" + sentences(2).encode(), ""),
        ("attributes", b"<p " + b"a=1 " * 500_000 + b">" + sentences(3).encode(), ""),
        ("entities", b"<p>" + b"&amp" * 500_000, ""),
        ("comment", b"<!--" + b"-" * 2_000_000, ""),
        ("tables", b"<table>" * 5_000 + b"x", ""),
        ("inline", b"<b><i>" * 5_000 + sentences(4).encode(), ""),
        ("charset", b"<meta charset=utf-7><p>\xff\xfe\x80" + "\u00e9".encode("utf-16"), ""),
    ]


@pytest.mark.parametrize("extractor", ["crawltalk", "resiliparse"])
def test_bombs_are_set_aside_or_read_and_their_neighbours_kept(tmp_path, extractor):
    pages = [("http://a.example/first", page_html("First", [sentences(10), sentences(11, 2)]))]
    headers = {}
    for name, body, encoding in bombs():
        pages.append((f"http://bomb.example/{name}", body))
        if encoding:
            headers[pages[-1][0]] = [("Content-Type", "text/html"), ("Content-Encoding", encoding)]
    pages.append(("http://a.example/last", page_html("Last", [sentences(20), sentences(21, 2)])))
    write_warc(tmp_path / "a.warc.gz", pages, headers)
    config = Data(extractor=extractor, page_seconds=5)
    metrics = run(crawl_folder(tmp_path / "crawl", [tmp_path / "a.warc.gz"]), tmp_path / "out", config=config)
    kept = {document.url for document in read_documents(tmp_path / "out")}
    assert metrics["pages"] == len(pages) and kept >= {"http://a.example/first", "http://a.example/last"}
    reasons = removed_rows(tmp_path / "out")
    assert (
        reasons["http://bomb.example/bomb"]
        == reasons["http://bomb.example/big"]
        == ("broken", "more than 10,000,000 bytes")
    )
    assert len(kept) + len(reasons) == len(pages)


@pytest.mark.slow
def test_a_thousand_mutated_files_never_crash_the_reader_and_every_page_is_accounted_for(tmp_path):
    """Mutations of the odd WARC files, where they are at hand, and of our own."""
    rng = random.Random(0)
    seeds = [
        warc_with(tmp_path / name, [1, 2, 3]).read_bytes() for name in ("a.warc", "a.warc.gz", "a.warc.zst")
    ]
    seeds += [
        path.read_bytes()
        for path in sorted(SAMPLES.rglob("*"))
        if ".warc" in path.name and path.stat().st_size < 200_000
    ]
    folder = tmp_path / "fuzz"
    folder.mkdir()
    for number in range(1000):
        content = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            position = rng.randrange(len(content) or 1)
            match rng.randrange(5):
                case 0:
                    content[position : position + 1] = rng.randbytes(1)
                case 1:
                    del content[position : position + rng.randrange(200)]
                case 2:
                    content[position:position] = rng.randbytes(rng.randrange(100))
                case 3:
                    content[position:position] = content[: rng.randrange(1000)]
                case 4:
                    content[position : position + 8] = rng.choice(
                        [b"99999999", b"-1\r\n", b"\0" * 8, b"\r\n\r\nWARC", b"chunked\r"]
                    )
        (folder / f"{number:04d}.{rng.choice(['warc', 'warc.gz', 'warc.zst'])}").write_bytes(content)
    files = sorted(folder.iterdir())
    metrics = run(crawl_folder(tmp_path / "crawl", files), tmp_path / "out", 2)
    removed = sum(value for name, value in metrics.items() if name.startswith("removed_"))
    assert (
        metrics["pages"] == metrics["documents"] + removed
        and metrics["pages"] > 1000
        and metrics["warnings"] > 100
    )
