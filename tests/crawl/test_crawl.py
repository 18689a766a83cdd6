import base64
import contextlib
import hashlib
import html
import io
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from crawltalk.core.errors import MissingInput, UserError
from crawltalk.crawl import sample, stage
from crawltalk.recipe import Crawl, Machine
from crawltalk.run.stage import Job, Metrics, Progress

SMALL = Crawl(articles=150, topics=("Physical sciences",))
ANY_RESPONSE: Any = WarcRecordType.response

try:
    distribution(sample.PACKAGE)
    installed = True
except PackageNotFoundError:
    installed = False
needs_sample = pytest.mark.skipif(
    not installed, reason=f"{sample.PACKAGE} is not installed (crawltalk[sample])"
)


def make(out: Path, config: Crawl = SMALL, seed: int = 1, workers: int = 1) -> Metrics:
    out.mkdir(parents=True, exist_ok=True)
    machine = Machine(workers=workers, device="cpu")
    return stage.crawl(
        Job(config=config, inputs={}, out=out, seed=seed, machine=machine, progress=Progress())
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def truth_of(folder: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in (folder / "truth.jsonl").read_bytes().splitlines()]


def bodies_of(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Record id -> (content type, body)."""
    result = {}
    for path in sorted(folder.glob("*.warc.gz")):
        with open(path, "rb") as file:
            for record in ArchiveIterator(file, record_types=ANY_RESPONSE, parse_http=True):
                http = record.http_headers
                assert http is not None
                result[record.headers["WARC-Record-ID"]] = (
                    http.get("Content-Type") or "",
                    record.reader.read(),
                )
    return result


def decoded(content_type: str, body: bytes) -> str:
    """The page as a browser reads it: the charset of the header, or else of the meta element; entities
    resolved.
    """
    declared = re.search(rb"charset=[\"']?([\w-]+)", content_type.encode()) or re.search(
        rb"charset=[\"']?([\w-]+)", body[:2000]
    )
    assert declared is not None
    return html.unescape(body.decode(declared[1].decode()))


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    out = tmp_path_factory.mktemp("crawl")
    return out, make(out)


@pytest.fixture(scope="module")
def folder(crawled: tuple[Path, Metrics]) -> Path:
    return crawled[0]


@pytest.fixture(scope="module")
def truth(folder: Path) -> list[dict[str, Any]]:
    return truth_of(folder)


@needs_sample
def test_warcio_reads_every_record_and_finds_every_digest_right(
    folder: Path, truth: list[dict[str, Any]]
) -> None:
    responses = 0
    for path in folder.glob("*.warc.gz"):
        with open(path, "rb") as file:
            for record in WarcioIterator(file, check_digests="raise"):
                record.content_stream().read()
                assert record.rec_headers.protocol == "WARC/1.1"
                responses += record.rec_type == "response"
    assert responses == len(truth)


@needs_sample
def test_fastwarc_reads_every_record_and_finds_every_digest_right(
    folder: Path, truth: list[dict[str, Any]]
) -> None:
    seen = []
    for path in folder.glob("*.warc.gz"):
        with open(path, "rb") as file:
            for record in ArchiveIterator(file, record_types=ANY_RESPONSE, parse_http=False):
                seen.append(record.headers["WARC-Record-ID"])
                assert record.verify_block_digest()
    assert sorted(seen) == sorted(row["record_id"] for row in truth)


@needs_sample
def test_the_payload_digest_is_that_of_the_body(folder: Path) -> None:
    with open(next(folder.glob("*.warc.gz")), "rb") as file:
        for record in ArchiveIterator(file, record_types=ANY_RESPONSE, parse_http=True):
            digest = hashlib.sha1(record.reader.read(), usedforsecurity=False).digest()
            assert record.headers["WARC-Payload-Digest"] == "sha1:" + base64.b32encode(digest).decode()


@needs_sample
def test_every_record_is_a_gzip_member_of_its_own(folder: Path) -> None:
    data = next(folder.glob("*.warc.gz")).read_bytes()
    offsets = []
    for record in ArchiveIterator(io.BytesIO(data), record_types=ANY_RESPONSE, parse_http=False):
        offsets.append((record.stream_pos, record.headers["WARC-Record-ID"]))
    for offset, id_ in offsets[:: max(1, len(offsets) // 10)]:
        first = next(iter(ArchiveIterator(io.BytesIO(data[offset:]), parse_http=False)))
        assert first.headers["WARC-Record-ID"] == id_


@needs_sample
def test_the_truth_names_each_page_once_and_every_kind_is_there(
    crawled: tuple[Path, Metrics], truth: list[dict[str, Any]]
) -> None:
    kinds = {row["kind"] for row in truth}
    assert kinds >= {"article", "fr", "es", "thin", "mirror", "near", "blocked", "spam", "broken"}
    assert len({row["url"] for row in truth}) == len({row["record_id"] for row in truth}) == len(truth)
    assert crawled[1]["pages"] == len(truth)
    assert sum(value for name, value in crawled[1].items() if name.startswith("kind_")) == len(truth)  # type: ignore[misc]


@needs_sample
def test_the_main_text_of_a_kept_article_stands_in_its_page(
    folder: Path, truth: list[dict[str, Any]]
) -> None:
    bodies = bodies_of(folder)
    kept = [row for row in truth if row["removed_by"] is None]
    assert len(kept) > 50
    for row in kept:
        page = decoded(*bodies[row["record_id"]])
        for block in row["main_text"].split("\n"):
            assert block in page, row["url"]


@needs_sample
def test_french_and_spanish_pages_are_readable_in_their_declared_charsets(
    folder: Path, truth: list[dict[str, Any]]
) -> None:
    bodies = bodies_of(folder)
    charsets = set()
    for row in truth:
        if row["kind"] in ("fr", "es"):
            content_type, body = bodies[row["record_id"]]
            assert row["title"] in decoded(content_type, body), row["url"]
            charsets.update(
                re.findall(rb"charset=[\"']?([\w-]+)", content_type.lower().encode() + body[:2000].lower())
            )
    assert charsets >= {b"utf-8", b"iso-8859-1", b"windows-1252"}


@needs_sample
def test_planted_addresses_are_public_and_occur_in_their_page(
    folder: Path, truth: list[dict[str, Any]]
) -> None:
    bodies = bodies_of(folder)
    planted = [row for row in truth if row["emails"] or row["ips"]]
    assert any(row["emails"] for row in planted) and any(row["ips"] for row in planted)
    for row in planted:
        page = decoded(*bodies[row["record_id"]])
        for address in [*row["emails"], *row["ips"]]:
            assert address in page and address in (row["main_text"] or address)
        assert all(ip_address(ip).is_global for ip in row["ips"])


@needs_sample
def test_an_article_is_thin_exactly_if_its_main_text_is_short_or_is_no_prose(
    truth: list[dict[str, Any]],
) -> None:
    for row in truth:
        if row["kind"] in ("article", "thin"):
            words = re.findall(r"\w+(?:[.,:]\w+)*", row["main_text"])
            stop = sample.STOP_WORDS.intersection(words)
            assert (row["removed_by"] == "quality") == (len(words) < 50 or len(stop) < 2), row["url"]


@needs_sample
def test_a_mirror_says_the_same_and_a_near_duplicate_almost_the_same(truth: list[dict[str, Any]]) -> None:
    by_url = {row["url"]: row for row in truth}
    copies = [row for row in truth if row["kind"] in ("mirror", "near")]
    assert {row["kind"] for row in copies} == {"mirror", "near"}
    for row in copies:
        original = by_url[row["original"]]
        assert original["removed_by"] is None and row["removed_by"] == "duplicate"
        assert row["cluster"] is not None and row["cluster"] == original["cluster"]
        one, two = sample.shingles(row["main_text"]), sample.shingles(original["main_text"])
        similarity = len(one & two) / len(one | two)
        assert similarity == 1 if row["kind"] == "mirror" else 0.85 <= similarity < 1


@needs_sample
def test_the_bytes_depend_on_the_seed_and_not_on_the_number_of_workers(folder: Path, tmp_path: Path) -> None:
    make(tmp_path / "again", workers=2)
    assert contents(tmp_path / "again") == contents(folder)
    make(tmp_path / "other", seed=2)
    assert contents(tmp_path / "other")["truth.jsonl"] != contents(folder)["truth.jsonl"]


@needs_sample
@pytest.mark.slow
def test_many_files_are_the_same_by_one_worker_and_by_two(tmp_path: Path) -> None:
    config = Crawl(articles=900)
    assert make(tmp_path / "one", config, workers=1)["files"] >= 2  # type: ignore[operator]
    make(tmp_path / "two", config, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@needs_sample
@pytest.mark.parametrize("gone", ["sample-00000.warc.gz", "truth.jsonl", "files.json", "CREDITS.txt"])
def test_partial_work_is_completed_to_the_same_bytes(folder: Path, tmp_path: Path, gone: str) -> None:
    for name, data in contents(folder).items():
        if name != gone:
            (tmp_path / name).write_bytes(data)
    # what a kill leaves in the middle of a write
    (tmp_path / f"{gone}.tmp").write_bytes(contents(folder)[gone][:100])
    make(tmp_path)
    assert contents(tmp_path) == contents(folder)


def size(folder: Path) -> int:
    """Bytes of its files; one may be renamed meanwhile."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@needs_sample
@pytest.mark.slow
def test_a_crawl_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path) -> None:
    config = Crawl(articles=900)
    make(tmp_path / "whole", config)
    out = tmp_path / "killed"
    out.mkdir()
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_crawl as t;"
        "t.make(Path(sys.argv[2]), t.Crawl(articles=900))"
    )
    for share in (0.0, 0.3, 0.8):  # of all bytes, when it is killed
        command = [sys.executable, "-c", program, str(Path(__file__).parent), str(out)]
        with subprocess.Popen(command) as child:
            while size(out) < share * size(tmp_path / "whole") and child.poll() is None:
                time.sleep(0.002)
            child.send_signal(signal.SIGKILL)
    make(out, config)
    assert contents(out) == contents(tmp_path / "whole")


@needs_sample
def test_dysprosium_survives_the_limit(truth: list[dict[str, Any]]) -> None:
    page = next(
        row
        for row in truth
        if row["url"].endswith("/physical-sciences/dysprosium") and row["kind"] == "article"
    )
    assert page["removed_by"] is None and page["main_text"].startswith(
        "Dysprosium\nChemical element with atomic number 66 (Dy)\n"
    )


@needs_sample
def test_the_limits_on_articles_topics_and_languages_hold(truth: list[dict[str, Any]]) -> None:
    assert {row["topic"] for row in truth if row["kind"] == "article"} == {"Physical sciences"}
    assert sum(row["kind"] in ("article", "thin") for row in truth) == SMALL.articles
    english = sample.plan_pages(Crawl(articles=50, languages=("en",)), seed=1)
    assert {page.language for page in english} == {"en"}


@needs_sample
def test_link_lists_name_real_articles_of_the_same_section(folder: Path, truth: list[dict[str, Any]]) -> None:
    bodies = bodies_of(folder)
    by_url = {row["url"]: row for row in truth}
    for row in truth:
        if row["kind"] == "article":
            links = re.findall(r'href="(https://[^"]+)"', decoded(*bodies[row["record_id"]]))
            others = {by_url[url]["topic"] for url in links if url != row["url"]}
            assert others == {row["topic"]}, row["url"]


@needs_sample
def test_spam_and_stubs_take_many_forms() -> None:
    pages = sample.plan_pages(Crawl(articles=1500, languages=("en",)), seed=1)
    for kind, starts in (
        ("spam", ("Cheap ", "#", "Untitled", "Price list")),
        ("stub", ("Log in", "Page not found", "Coming soon", "Index of")),
    ):
        titles = [page.title for page in pages if page.kind == kind]
        assert all(any(title.startswith(start) for title in titles) for start in starts)


@needs_sample
@pytest.mark.parametrize("articles", [1, 2, 20])
def test_a_crawl_of_few_articles_is_whole(tmp_path: Path, articles: int) -> None:
    make(tmp_path, Crawl(articles=articles, topics=("Uncategorized",), languages=("en",)))
    assert sum(row["kind"] in ("article", "thin") for row in truth_of(tmp_path)) == articles
    assert len(bodies_of(tmp_path)) == len(truth_of(tmp_path))


@needs_sample
@pytest.mark.parametrize("articles", [0, -3])
def test_a_limit_below_one_is_the_users_mistake(tmp_path: Path, articles: int) -> None:
    with pytest.raises(UserError, match="at least 1"):
        make(tmp_path, Crawl(articles=articles))


@needs_sample
def test_another_version_of_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "VERSION", "0.0.1")
    with pytest.raises(MissingInput, match=r"wiki-offline 0\.0\.1.*crawltalk\[sample\]"):
        sample.read_articles("en")


@needs_sample
@pytest.mark.parametrize("config", [Crawl(topics=("Alchemy",)), Crawl(languages=("tlh",))])
def test_a_topic_or_language_that_is_not_there_is_the_users_mistake(tmp_path: Path, config: Crawl) -> None:
    with pytest.raises(UserError, match="the sample has"):
        make(tmp_path, config)


def test_own_files_are_listed_in_order_and_left_where_they_are(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("b.warc.gz", "a.warc", "notes.txt"):
        (own / name).write_bytes(name.encode() * 1000)
    before = contents(own)
    metrics = make(tmp_path / "out", Crawl(source=str(own / "*.warc*")))
    rows = msgspec.json.decode((tmp_path / "out" / "files.json").read_bytes())
    assert [row["path"] for row in rows] == [str(own / "a.warc"), str(own / "b.warc.gz")]
    for row in rows:
        data = before[Path(row["path"]).name]
        assert row["bytes"] == len(data) and row["sha256"] == hashlib.sha256(data).hexdigest()
    assert metrics == {"files": 2, "bytes": sum(row["bytes"] for row in rows)}
    assert contents(own) == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["files.json", "warnings.json"]


@needs_sample
def test_the_list_of_the_samples_files_is_relative_and_right(folder: Path) -> None:
    rows = msgspec.json.decode((folder / "files.json").read_bytes())
    assert [row["path"] for row in rows] == sorted(path.name for path in folder.glob("*.warc.gz"))
    for row in rows:
        data = (folder / row["path"]).read_bytes()
        assert row["bytes"] == len(data) and row["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("source", ["nowhere/*.warc.gz", "nowhere.warc.gz"])
def test_a_source_that_matches_nothing_is_missing_input_with_the_way_out(tmp_path: Path, source: str) -> None:
    with pytest.raises(MissingInput, match=r"glob of WARC, WET, WACZ, JSON, CSV or Parquet files"):
        make(tmp_path / "out", Crawl(source=str(tmp_path / source)))


def test_without_the_samples_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "PACKAGE", "a-package-that-is-not-installed")
    with pytest.raises(MissingInput, match=r"crawltalk\[sample\].*--crawl\.source"):
        sample.read_articles("en")
