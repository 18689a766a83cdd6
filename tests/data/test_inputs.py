"""Texts that come as JSONL, Parquet or WET instead of web pages."""

import gzip
import itertools
import json
import random
import re
import threading
import zlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawltalk.core.documents import read_documents, read_table
from crawltalk.core.errors import BadInput, UserError
from crawltalk.data.read.inputs import dump_name, read_input
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
    bad = ("not a JSON object", "not a JSON object", "no text", "no text", "empty text", "not a JSON object")
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
