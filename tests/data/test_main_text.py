"""The main text of pages whose markup is odd, or whose text stands elsewhere."""

import json
import random
import re
import tarfile
from pathlib import Path

import pytest
from resiliparse.extract.html2text import extract_plain_text

from crawltalk.core.types import Document
from crawltalk.data.code_lines import in_lines
from crawltalk.data.extract.main_text import extract, extract_utf8
from crawltalk.data.filters.quality import filters
from crawltalk.data.read.charset import to_utf8
from crawltalk.recipe import Quality
from support.pages import LEAD

REAL_PAGES = Path(__file__).parents[3] / "shared" / "data" / "html_trafilatura.tar.gz"
TEXT = " ".join(LEAD.splitlines()[2:])
CHROME = "<div class=fps>FPS: 60</div>{}<footer>Imprint</footer>"
CODE = """import os

def area(width, height):
    if width < 0:
        raise ValueError(width)
    else:
        return x[0]"""


def article(paragraphs: int = 2) -> str:
    return "<h1>Letter</h1>" + "".join(f"<p>{number}. {TEXT}</p>" for number in range(paragraphs))


@pytest.mark.parametrize(
    "html",
    [
        f"<div class=overlay aria-hidden=true>{article()}</div>",
        f"<div hidden>{article()}</div>",
        f"<div style='visibility: hidden'>{article()}</div>",
        f"<main style='display:none !important'>{article()}</main>",
        f"<noscript><div>{article()}</div></noscript>",
        f"<dialog>{article()}</dialog>",
        f"<template>{article()}</template>",
        f"<button>Menu<div>{article()}</div>",
    ],
)
def test_an_article_that_only_a_script_shows_is_read(html):
    page = CHROME.format(html).encode()
    assert TEXT in (extract(page) or "")


def test_what_is_hidden_stays_out_where_there_is_an_article():
    other = "Nobody should ever get to see this sentence, which is hidden. " * 40
    page = f"<main>{article(4)}</main><div hidden><p>{other}</p></div>".encode()
    assert TEXT in (extract(page) or "") and "Nobody" not in (extract(page) or "")


BODY = f"{TEXT}\n{TEXT} Again."


@pytest.mark.parametrize(
    "value",
    [
        {"@type": "NewsArticle", "articleBody": BODY},
        [{"@type": "WebSite"}, {"@graph": [{"@type": "Article", "schema:articleBody": BODY}]}],
        {"mainEntity": {"articleBody": f"<p>{TEXT}</p><p>{TEXT} Again.</p>"}},
        {"mainEntity": {"articleBody": f"&lt;p&gt;{TEXT}&lt;/p&gt;&lt;p&gt;{TEXT} Again.&lt;/p&gt;"}},
    ],
)
@pytest.mark.parametrize("wrap", ["{}", "//<![CDATA[\n{}\n//]]>", "<!-- {} -->"])
def test_an_article_in_json_ld_alone_is_read(value, wrap):
    script = wrap.format(json.dumps(value).replace(r"\n", "\n"))  # as many templates write strings
    page = f"<script type='application/ld+json'>{script}</script><div id=root></div>"
    assert extract(page.encode()) == BODY


@pytest.mark.parametrize(
    "script", ['{"articleBody": 5}', '{"articleBody": "cut', "[" * 100_000, '{"articleBody": []}']
)
def test_json_ld_without_an_article_gives_none(script):
    page = f"<script type=application/ld+json>{script}</script><p>articleBody</p>"
    assert extract(page.encode()) is None


def test_code_passes_the_filters_line_by_line():
    page = f"<main><h1>Areas</h1>{article(3)}<pre>{CODE.replace('<', '&lt;')}</pre><p>{TEXT}</p></main>"
    assert CODE in (extract(page.encode()) or "")
    text = extract_utf8(page.encode()) or ""
    facts = dict.fromkeys(("id", "dump", "url", "date", "file_path", "language"), "")
    document = Document(text=text, **facts, language_score=1.0, token_count=0)
    filtered = filters(Quality())["c4"](document)
    assert isinstance(filtered, Document) and CODE in in_lines(filtered.text)


def test_line_numbers_beside_code_are_left_out():
    page = f"<main>{article(3)}<table><tr><td><pre>1\n2\n3</pre><td><pre>a = 1\nb = 2\n</pre></table></main>"
    assert "\n1\n2" not in (extract(page.encode()) or "")


INSERTED = (
    """
<svg/> | <math/> | <a name=top> | <a id=x /> | <a href=/> | <button>Menu | <select><option>x | <!-- x --!> | <!-->
<!x> | </x> | <?x?> | </br> | </p> | <p> | <b> | <font> | </div> | </span> | </a> | </table> | <div/> | <div hidden/>
<script src=a.js /> | <title/> | <textarea/> | <iframe src=x /> | <template/> | <select/> | <form> | <map name=m>
<svg><path> | <svg><title/> | <li> | <td> | <option> | <h2> | <p hidden> | <p hidden><b> | <dialog open> | <object>
<head> | <body hidden> | <template-x> | <details>
""".strip()
    .replace("\n", " | ")
    .split(" | ")
)
TAG = re.compile(rb"<[a-zA-Z/][^>]*>")


def mutated(html: bytes, rng: random.Random) -> bytes:
    """A page with one odd tag more, or one end tag less, somewhere in its body."""
    tags = list(TAG.finditer(html, max(0, html.lower().find(b"<body"))))
    if not tags:
        return html
    tag = rng.choice(tags)
    if tag[0].startswith((b"</p", b"</d", b"</l", b"</a", b"</b")):
        return html[: tag.start()] + html[tag.end() :]
    inserted = rng.choice(INSERTED).encode()
    return html[: tag.end()] + inserted + html[tag.end() :]


@pytest.mark.skipif(not REAL_PAGES.exists(), reason="the real pages are not here")
def test_no_markup_loses_a_page_that_a_parser_of_the_standard_reads():
    """Lexbor builds the tree, by way of resiliparse."""
    rng = random.Random(0)
    lost, pages = [], 0
    with tarfile.open(REAL_PAGES) as archive:
        for number, member in enumerate(archive):
            if number % 25 or not member.name.endswith(".html"):
                continue
            file = archive.extractfile(member)
            assert file
            html = to_utf8(file.read())
            pages += 1
            for page in (html, mutated(html, rng), mutated(html, rng)):
                if not extract_utf8(page) and len(extract_plain_text(page.decode(), main_content=True)) > 500:
                    lost.append(member.name)
    assert pages > 30 and not lost
