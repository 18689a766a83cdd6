"""Reading a page into blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.data.extract.blocks import FEATURES, features
from crawltalk.data.extract.main_text import plain
from crawltalk.data.extract.scan import (
    ANNOUNCED,
    ARTICLE,
    ASIDE,
    BR,
    COLUMNS,
    LIST,
    PRE,
    TABLE,
    scan,
    word_hash,
)

NAMES = (
    np.array(sorted([word_hash(b"nav"), word_hash(b"story")]), np.uint64),
    np.array([-1.5, 2.0], np.float32),
)


def read(html: str) -> list[tuple[str, dict[str, int]]]:
    page = scan(html.encode())
    return [
        (plain(page.text, block), dict(zip(COLUMNS, block.tolist(), strict=True))) for block in page.blocks
    ]


def texts(html: str) -> list[str]:
    return [text for text, _ in read(html)]


@pytest.mark.parametrize(
    ("html", "blocks"),
    [
        ("<p>One<p>Two", ["One", "Two"]),
        ("<p>One <b>and</b> a <i>half</i></p>tail", ["One and a half", "tail"]),
        ("<ul><li>a<li>b<ul><li>c</ul></ul>d", ["a", "b", "c", "d"]),
        ("<table><tr><td>1<td>2<tr><td>3</table>", ["1", "2", "3"]),
        ("a<br>b<BR/>c", ["a", "b", "c"]),
        ("5 < 6 <3 </ nothing> x", ["5 < 6 <3 x"]),
        ("Tom &amp; J&eacute;r&ocirc;me &#8211; 3 &lt; 4", ["Tom & Jérôme – 3 < 4"]),
        ("<title>T</title><head><style>p{}</style></head><p>x", ["x"]),
        ("<head><title>T</title><p>x", ["x"]),
        ("<script>if (a<b) '</p>'</script><p>x", ["x"]),
        ("<SCRIPT>a</ScRiPt ><p>x", ["x"]),
        ("<!-- <p>no</p> --><p>x<!doctype html><?php ?>", ["x"]),
        ("<!-- <script> --><p>x</p><script>no</script>", ["x"]),
        (
            "<div hidden>no</div><div style='color:red; display : none'>no</div><div aria-hidden=true>no</div>x",
            ["x"],
        ),
        ("<select><option>no<option>no</select><button>no</button><svg><text>no</text></svg>x", ["x"]),
        ("<div title='a > b' data-x=\"<p>no</p>\">x</div>", ["x"]),
        ("<p class=x / >x</p", ["x"]),
        ("<p", []),
        ("<p class='x", []),
        ("<textarea><p>no", []),
        ("", []),
    ],
)
def test_a_page_becomes_blocks(html, blocks):
    assert texts(html) == blocks


def test_blocks_know_where_they_stand():
    rows = read(
        "<nav><a href=/>Home</a></nav><div class=mainSidebar-Nav>x</div><article>"
        "<h2>A <a href=#>link</a></h2><p>text</p><ul><li>item</ul>"
        "<table><tr><td>cell</table><pre>one\ntwo</pre></article><p>after<br>end"
    )
    by_text = dict(rows)
    assert by_text["Home"]["flags"] & ASIDE and by_text["Home"]["linked"] == 4
    assert by_text["x"]["flags"] & ANNOUNCED
    assert by_text["A link"]["kind"] == 2 and by_text["A link"]["linked"] == 4
    assert all(by_text[text]["flags"] & ARTICLE for text in ("A link", "text", "item", "cell", "one two"))
    assert (
        by_text["item"]["flags"] & LIST
        and by_text["cell"]["flags"] & TABLE
        and by_text["one two"]["flags"] & PRE
    )
    assert not by_text["after"]["flags"] & ARTICLE
    assert by_text["after"]["kind"] == BR
    assert by_text["text"]["content"] == by_text["item"]["content"] > 0 == by_text["after"]["content"]


def test_a_link_may_hold_several_blocks():
    rows = read("<a href=/><div>Title</div><div>More</div></a><p>text")
    assert [(text, row["linked"] > 0) for text, row in rows] == [
        ("Title", True),
        ("More", True),
        ("text", False),
    ]


def test_elements_carry_the_words_of_their_classes_and_ids():
    page = scan(
        b"<div id=story-Body class='x mainText'><hr class=no><p>one</p><span class=by>two</span></div><p class=y2>three"
    )
    words = [word_hash(word) for word in (b"story", b"body", b"main", b"text", b"by")]
    assert page.words.tolist() == words
    assert page.elements[:, 0].tolist() == [0, 0, 1, 1, 0] and page.elements[:, 3].tolist() == [0, 4, 4, 5, 5]
    assert page.blocks[:, COLUMNS.index("within")].tolist() == [2, 1, 4]


PIECES = st.sampled_from(
    (
        *(
            "<p>",
            "</p>",
            "<div class=nav>",
            "</div>",
            "<a href='x'>",
            "</a>",
            "<li>",
            "<ul>",
            "</ul>",
            "<br>",
            "<h1>",
        ),
        *(
            "</h1>",
            "<script>",
            "</script>",
            "<!--",
            "-->",
            "<table>",
            "<td>",
            "text ",
            "é & <",
            "\n",
            "<svg/>",
            "<b",
        ),
        *("='", '"', ">", "</"),
    )
)


@given(st.lists(PIECES, max_size=60))
def test_no_page_is_misread_badly(pieces):
    html = "".join(pieces)
    page = scan(html.encode())
    text, blocks = page.text, page.blocks
    assert len(text) <= len(html.encode())
    position = 0
    for block in blocks:
        assert position <= block[0] < block[1] <= len(text)
        assert 0 <= block[2] <= block[1] - block[0]
        position = block[1]
    if len(blocks):
        rows = features(page, NAMES)
        assert rows.shape == (len(blocks), FEATURES) and np.isfinite(rows).all()


@pytest.mark.parametrize(
    "html",
    [b"<div>" * 200_000 + b"deep", b"<table>" + b"<tr><td>1" * 150_000, b"<" * 1_000_000, b"<a " * 300_000],
)
def test_monstrous_pages_take_no_longer_than_their_size(html):
    page = scan(html)
    assert len(page.text) <= len(html)
    assert len(page.blocks) <= 150_000
    assert len(features(page, NAMES)) == len(page.blocks)
