"""Reading a page into blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.data.extract.blocks import FEATURES, features
from crawltalk.data.extract.main_text import plain
from crawltalk.data.extract.scan import (
    ANNOUNCED,
    ARTICLE,
    ASIDE,
    BR,
    COLUMNS,
    LINK,
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
        ("<textarea>no</textarea><p>x", ["x"]),
        ("<textarea><p>x", ["x"]),
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
    assert all(by_text[text]["flags"] & ARTICLE for text in ("A link", "text", "item", "cell", "one\ntwo"))
    assert (
        by_text["item"]["flags"] & LIST
        and by_text["cell"]["flags"] & TABLE
        and by_text["one\ntwo"]["flags"] & PRE
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


@pytest.mark.parametrize(
    "html",
    [
        # SVG and MathML: a slash closes, HTML ends them, and nothing in them is raw text
        "<svg class=icon />",
        "<p>x <math/> y</p>",
        "<svg><path d=M0><p>y</p>",
        "<svg><title/><style/></svg>",
        "<svg><style><![CDATA[ a > b </svg> ]]></style></svg>",
        "<svg><foreignObject><div>y</svg>",
        # elements without their ends
        "<a name=top>",
        '<a id="top"/>',
        "<a href=/>Home",
        "<ul><li><a href=/>Home<li><a href=/a>About</ul>",
        "<div><button>Menu</div>",
        "<button>Menu",
        "<select><option>One",
        "<p hidden><b>y",
        "<table><tr><td hidden>y<th>y</table>",
        "<dl><dt hidden>y<dd>y</dl>",
        "<map name=m><area>",
        "<head><title>t</title>",
        "<title>t",
        "<p title='y>",
        # what XHTML closes by a slash
        "<script src=a.js /><script>y</script>",
        "<textarea/>",
        "<title/>",
        "<iframe src=x />",
        "<div class=nav style='display:none' />",
        "<nav/>",
        "<select/>",
        "<template/>",
        # comments, and what only looks like one
        "<!-- y --!>",
        "<!-->",
        "<!--->",
        "<!y>",
        "</ y>",
        "<?y?>",
        "<![CDATA[y]]>",
        "<script><!-- document.write('<script>y</script>'); --></script>",
        # names that begin like others
        "<template-view>",
        "<textarea-autosize rows=1>",
        # what is shown
        "<body style='visibility: hidden'>",
        "<html hidden><body aria-hidden=true>",
        "<dialog open>",
        "<div hidden=until-found>",
        "<details><summary>More</summary>",
        "<my-page><template shadowrootmode=open>",
    ],
)
def test_markup_before_a_text_neither_hides_it_nor_makes_it_a_link(html):
    text = "The river turns twice before it reaches the old mill."
    rows = read(f"{html}<main><h1>Mill</h1><p>{text}</p></main>")
    assert {row["linked"] for found, row in rows if found == text} == {0}
    assert not any("var" in found or "document.write" in found for found, _ in rows)


@pytest.mark.parametrize(
    ("html", "blocks"),
    [
        ("<plaintext>a <b> & c</plaintext>", ["a <b> & c</plaintext>"]),
        ("<xmp>if (a<b)</xmp>x", ["if (a<b)", "x"]),
        ("a<hr>b", ["a", "b"]),
        ("<h2><button>What is it?</button></h2><p>x", ["What is it?", "x"]),
        ("<h2><span><button>What is it?<svg/></button></span> </h2>x", ["What is it?", "x"]),
        ("<dl><dt><button>What?</button><dd>x</dl>", ["What?", "x"]),
        ("<div role=heading><button>What?</button></div>x", ["What?", "x"]),
        ("<button><h3>What?</h3></button>x", ["What?", "x"]),
        ("<h2><button>#</button>Title</h2>x", ["Title", "x"]),
        ("<h2>Title <button>edit</button></h2>x", ["Title", "x"]),
        ("<b><p>a</b> b</p>c", ["a b", "c"]),
        ("<h2>a</h3>b<p>c", ["a", "b", "c"]),
        ("<table><tr><td>a</div>b</td></tr></table>", ["a", "b"]),
    ],
)
def test_elements_close_as_the_standard_says(html, blocks):
    assert texts(html) == blocks


def test_a_link_without_its_end_ends_with_its_block():
    rows = dict(read("<a href=/>Home<h1>Title</h1><p>A paragraph with <a href=/x>a link</a> in it.</p>"))
    assert rows["Home"]["linked"] == 4 and rows["Home"]["flags"] & LINK
    assert rows["Title"]["linked"] == 0 and rows["A paragraph with a link in it."]["linked"] == 6
    assert not rows["Title"]["flags"] & LINK


def test_a_link_goes_on_in_the_blocks_that_it_overlaps_with():
    rows = dict(read("<p><a href=/><div>One</div><p>Two</p></a>three"))
    assert [rows[text]["linked"] for text in ("One", "Two", "three")] == [3, 3, 0]


@pytest.mark.parametrize(
    ("html", "code"),
    [
        ("<pre>\ndef f(x):\n    return x\n</pre>", "def f(x):\n    return x"),
        ("<pre>a\r\n\tb\rc</pre>", "a\n\tb\nc"),
        ("<pre>a<br>  b<br/>c</pre>", "a\n  b\nc"),
        ("<pre><div>a</div><div>  b</div></pre>", "a\n  b"),
        ("<pre><ol><li>a<li>  b</ol></pre>", "a\n  b"),
        ("<pre>a\n\n<span>  b</span></pre>", "a\n\n  b"),
        ("<pre>if x:\n&nbsp;&nbsp;y</pre>", "if x:\n  y"),
        ("<pre>x[0] &lt; 1</pre>", "x[0] < 1"),
    ],
)
def test_code_keeps_its_lines(html, code):
    assert texts(f"<p>Above.</p>{html}<p>Below.</p>") == ["Above.", code, "Below."]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("图书馆的\n新阅览室，\n 窗边", "图书馆的新阅览室，窗边"),
        ("图书馆 的\nnew room\n新", "图书馆 的 new room 新"),
        ("한국어\n문장", "한국어 문장"),
        ("かな<b>\nカナ</b>\n々", "かなカナ々"),
        ("vil&shy;lage vis&#173;itors", "village visitors"),
        ("long\u200bword ไทย\u200bคำ", "longword ไทย\u200bคำ"),
        ("5&nbsp;000&nbsp;&nbsp;euros", "5 000 euros"),
    ],
)
def test_text_has_no_traces_of_its_typesetting(html, text):
    assert texts(f"<p>{html}</p>") == [text]


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
        *(
            "<pre>",
            "</pre>",
            "<h2><button>",
            "</button>",
            "<svg>",
            "<p><a href=x>",
            "<b>",
            "</b>",
            "<form>",
            "</form>",
        ),
        *("<select>", "<xmp>", "<td>", "<foreignObject>", "<title>", "<div hidden>", "<template>"),
        *("='", '"', ">", "</"),
    )
)


@given(st.lists(PIECES, max_size=60))
@settings(deadline=None)
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
