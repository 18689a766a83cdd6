"""What a page calls itself."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.data.extract.headline import headline, with_headline
from crawltalk.data.filters.quality import filters
from crawltalk.data.pipeline import check_quality
from crawltalk.recipe import Quality
from support.pages import document, sentences


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<title>grp — Groups — Manual 3.11</title><h1>grp — Groups<a href=#>¶</a></h1>", "grp — Groups"),
        ("<title>Rain | The Site</title><h1>The Site</h1>", "Rain"),
        ("<title>A - B - Site</title>", "A - B"),
        ("<title>C# in depth</title>", "C# in depth"),
        ("<h1 class=x>Only <b>this</b> #</h1>", "Only this"),
        ("<TITLE lang=en>\nA &amp; B\n</TITLE>", "A & B"),
        ("<header><h1>Another</h1></header><title>The page</title>", "The page"),
        ("<titlebar>No</titlebar><title>Yes</title>", "Yes"),
        ("<title>Cut", ""),
        ("<title", ""),
        ("", ""),
        (f"<title>{'long ' * 60}</title>", ""),
    ],
)
def test_a_headline_is_the_heading_that_the_title_has_too_or_the_title_without_its_site(html, expected):
    assert headline(html.encode()) == expected


def test_a_text_gets_its_headline_once():
    html = b"<title>The Old Mill | Site</title><h1>The Old Mill</h1>"
    for text in ("It stands.", "The old mill\nIt stands.", "Home\nThe Old Mill.\nIt stands."):
        lines = with_headline(text, html).split("\n")
        assert lines[0] == "The Old Mill"
        assert lines[-1] == "It stands."
        assert sum("mill" in line.lower() for line in lines) == 1
    assert with_headline("It stands.", b"<p>It stands.</p>") == "It stands."


@given(st.binary(max_size=200), st.text(max_size=100))
def test_any_bytes_are_a_page_whose_text_stays(html, text):
    for page in (html, b"<title>" + html, b"<h1>" + html + b"</h1>"):
        lines = with_headline(f"{text}\nThe end.", page).split("\n")
        assert lines[-1] == "The end."
        assert lines[0] == headline(page) or not headline(page)


def test_filters_of_lines_leave_the_headline():
    page = document(f"adminpack\n{sentences(1)}")
    checks = filters(Quality(min_words_per_line=3))
    kept = check_quality(checks, True, page)
    assert kept.text.startswith("adminpack\n")
    assert not check_quality(checks, False, page).text.startswith("adminpack")


def test_pages_about_code_pass_only_where_the_recipe_keeps_them():
    text = sentences(1) + "\nfor (item in items) { print(item); }\n" + sentences(2)
    code = dataclasses.replace(Quality(), curly_brackets=True)
    assert "curly bracket" in str(check_quality(filters(Quality()), False, document(text)))
    assert "{ print" in check_quality(filters(code), False, document(text)).text
    repeated = "\n".join(
        [sentences(1), "This was new in version 3.", sentences(2), "This was new in version 3."]
    )
    lenient = dataclasses.replace(Quality(), duplicate_lines=0.1)
    assert "duplicate lines" in str(check_quality(filters(Quality()), False, document(repeated)))
    assert check_quality(filters(lenient), False, document(repeated)).text == repeated
