"""Texts that come as JSONL, Parquet or WET instead of web pages."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawltalk.core.documents import read_documents, read_table
from crawltalk.core.errors import BadInput
from crawltalk.data.inputs import dump_name, read_input
from test_data import crawl_folder, run, sentences, write_warc

TEXTS = [sentences(number) for number in range(6)]


def rows() -> list[dict]:
    return [
        {"text": text, "id": f"<{number}>", "url": f"https://a.example/{number}", "date": "2024-01-01", "extra": number}
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
    bad = ("not a JSON object", "not a JSON object", "no text", "no text", "empty text", "not a JSON object")
    assert [page.fault for page in pages] == [None, *bad, None]
    assert pages[1].id == "<texts.jsonl:2>"
    assert next(read_input(path, 100, print)).fault == "more than 100 bytes"
    run(crawl_folder(tmp_path / "crawl", [path]), tmp_path / "out")
    assert len(list(read_table(tmp_path / "out" / "removed-00000.parquet", ["reason"]))) == 7  # six, and a duplicate


def test_a_cut_file_gives_what_it_has_and_a_warning(tmp_path):
    path = tmp_path / "texts.jsonl.gz"
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows()).encode(), mtime=0)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    warnings: list[str] = []
    pages = list(read_input(path, 10_000, warnings.append))
    assert 0 < len(pages) < 6
    assert len(warnings) == 1 and "rows before that are kept" in warnings[0]


def test_a_parquet_file_without_texts_says_what_it_has(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"]}), path)
    with pytest.raises(BadInput, match=r"no column 'text'; it has: body"):
        list(read_input(path, 100, print))
    path.write_bytes(b"no parquet")
    with pytest.raises(BadInput, match="not a Parquet file"):
        list(read_input(path, 100, print))


def test_wet_records_are_texts(tmp_path):
    path = tmp_path / "CC-MAIN-1.warc.wet.gz"
    records = b""
    for number, text in enumerate(TEXTS):
        head = (
            f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:{number}>\r\nWARC-Target-URI: https://a.example/{number}\r\n"
            f"WARC-Date: 2024-05-01T12:00:00Z\r\nContent-Type: text/plain\r\nContent-Length: {len(text.encode())}\r\n\r\n"
        )
        records += gzip.compress(head.encode() + text.encode() + b"\r\n\r\n", mtime=0)
    path.write_bytes(records)
    assert kept(tmp_path, path) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("name", "dump"), [("a.warc.gz", "a"), ("a.b.warc", "a.b"), ("a.jsonl", "a"), ("x.parquet", "x"), ("odd", "odd")]
)
def test_a_dump_is_named_after_its_file(name, dump):
    assert dump_name(name) == dump


def test_pages_and_texts_may_come_together(tmp_path):
    write_warc(tmp_path / "a.warc.gz", [("http://a.example/1", f"<h1>T</h1><p>{TEXTS[0]}</p>".encode())])
    (tmp_path / "b.jsonl").write_text(json.dumps(rows()[1]) + "\n")
    metrics = run(crawl_folder(tmp_path / "crawl", [tmp_path / "a.warc.gz", tmp_path / "b.jsonl"]), tmp_path / "out")
    assert metrics["pages"] == metrics["documents"] == 2
