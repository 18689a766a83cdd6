"""Documents that are left out by their ids: what is left is the same as if they had never been crawled."""

import io
import json

import numpy as np
import pytest

from crawltalk.core.errors import BadInput
from crawltalk.data.filters.urls import blocked_ids, blocked_url, write_blocklist
from crawltalk.recipe import Data
from crawltalk.run.stage import Progress
from support.pages import crawl_folder, page_html, removed_rows, run, sentences, write_warc


def test_the_documents_without_a_blocked_page_are_byte_for_byte_those_of_a_crawl_without_it(tmp_path):
    clean = [(f"http://a.example/{n}", page_html(f"Page {n}", [sentences(n)])) for n in range(4)]
    poison = [("http://a.example/", page_html("Home", [sentences(9)]))]  # its URL would block the whole site
    write_warc(tmp_path / "clean.warc.gz", clean)
    write_warc(tmp_path / "poison.warc.gz", poison)
    blocked = tmp_path / "pages.blocklist"
    blocked.write_text("<urn:uuid:POISON.warc-0>  # http://a.example/\n<urn:uuid:elsewhere>\n")
    both = crawl_folder(tmp_path / "both", [tmp_path / "clean.warc.gz", tmp_path / "poison.warc.gz"])
    alone = crawl_folder(tmp_path / "alone", [tmp_path / "clean.warc.gz"])
    events = io.StringIO()
    run(both, tmp_path / "without", config=Data(blocklist=str(blocked)), progress=Progress(events))
    run(alone, tmp_path / "never")
    for name in ("documents-00000.parquet", "signatures.npy", "clusters-00000.parquet"):
        assert (tmp_path / "without" / name).read_bytes() == (tmp_path / "never" / name).read_bytes()
    assert removed_rows(tmp_path / "without")["http://a.example/"] == ("url", "id")
    warnings = [row["text"] for row in map(json.loads, events.getvalue().splitlines()) if "text" in row]
    assert warnings == [f"1 ids in {blocked} are of no page of this crawl, such as <urn:uuid:elsewhere>"]


def test_an_id_in_angle_brackets_blocks_one_document_whether_its_own_id_has_them_or_not(tmp_path):
    path = tmp_path / "list"
    path.write_text("<doc-17>\n b.example # <doc-18>\n <urn:uuid:1> # one\n")
    assert blocked_ids(str(path)) == {"<doc-17>", "<urn:uuid:1>"}
    write_blocklist(str(path), tmp_path / "hashes.npy")
    hashes = np.load(tmp_path / "hashes.npy")
    ids = ("doc-17", "<urn:uuid:1>", "doc-18", "")
    assert [blocked_url("http://a.example/", hashes, one) for one in ids] == [
        "id <doc-17>", "id <urn:uuid:1>", None, None,
    ]  # fmt: skip
    path.write_text("<doc-17\n")
    with pytest.raises(BadInput, match=r"line 1: '<doc-17' is neither .* nor a document's id"):
        write_blocklist(str(path), tmp_path / "hashes.npy")


def test_a_list_without_an_entry_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# nothing yet\n\n")
    with pytest.raises(BadInput, match="names no domain, URL or document"):
        write_blocklist(str(path), tmp_path / "hashes.npy")
