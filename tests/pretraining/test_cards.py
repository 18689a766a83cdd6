"""Cards: what a page is called, and what it says in one sentence."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.pretraining.cards import SENTENCE, TITLE, page_cards, split_sentences, title_of_url
from support.pages import document


def cards(*pages: tuple[str, str]) -> list[tuple[str, str]]:
    return page_cards([document(text, url=url) for url, text in pages])


def test_a_card_is_the_headline_and_the_first_sentence_of_the_page():
    (card,) = cards(("http://a.example/x", "Tides¶\nTides rise twice a day. They are caused by the moon."))
    assert card == ("Tides", "Tides rise twice a day.")


@pytest.mark.parametrize(
    ("headline", "title"),
    [
        ("73.4. Visibility Map", "Visibility Map"),
        ("Chapter 5. Data Definition", "Data Definition"),
        ("F.41.1. refint", "refint"),
        ("IV. Client Interfaces", "Client Interfaces"),
        ("21 things we learned", "21 things we learned"),
        ("C#", "C#"),
        ("Downloads #", "Downloads"),
        ("2024", "2024"),
    ],
)
def test_the_number_of_a_section_is_not_part_of_its_title(headline, title):
    assert cards(("http://a.example/x", f"{headline}\nText of a page that has no end"))[0][0] == title


def test_what_many_pages_share_is_no_card_of_any():
    notice = "This document is kept for readers of old versions only."
    found = cards(
        (
            "http://a.example/guide/copy-files.html",
            f"User Guide\n{notice}\nFiles are copied by the command below.",
        ),
        (
            "http://a.example/guide/index.html",
            f"User Guide\n{notice}\nThe guide has chapters for all of the commands.",
        ),
    )
    assert found == [
        ("copy files", "Files are copied by the command below."),
        ("guide", "The guide has chapters for all of the commands."),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Last updated on: October 07, 2026.",
        "the equivalent for lists of numbers and names.",
        "Too short here.",
        "A line of words that never comes to an end",
        "Words " * 60 + "end.",
    ],
)
def test_what_says_nothing_or_is_cut_is_no_description(line):
    assert cards(("http://a.example/x", f"A page\n{line}"))[0] == ("A page", "")


def test_a_small_letter_begins_a_sentence_if_it_is_the_titles():
    text = "grep — search a file\ngrep prints the lines that match a pattern."
    assert cards(("http://a.example/x", text))[0][1] == "grep prints the lines that match a pattern."


def test_sentences_without_spaces_are_sentences():
    sentence = "潮汐每天上涨两次并由月亮的引力引起。"
    assert cards(("http://a.example/x", f"潮汐\n{sentence}还有别的。"))[0] == ("潮汐", sentence)


def test_an_abbreviation_ends_no_sentence():
    line = "Use a tool, e.g. Make, as Dr. J. Doe does. Then stop."
    assert split_sentences(line) == ["Use a tool, e.g. Make, as Dr. J. Doe does.", "Then stop."]


@pytest.mark.parametrize(
    ("url", "title"),
    [
        ("http://www.a.example/", "a.example"),
        ("http://a.example/library/how-to_copy.html?x=1", "how to copy"),
        ("file:///docs/index.html", "docs"),
        ("http://a.example/caf%C3%A9", "café"),
        ("http://[half", ""),
        ("", ""),
    ],
)
def test_a_url_says_what_a_page_is_called_if_nothing_else_does(url, title):
    assert title_of_url(url) == title


@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=300)), max_size=6))
def test_any_pages_get_cards_and_no_two_of_them_are_the_same(pages):
    found = cards(*pages)
    assert len(found) == len(pages)
    assert all(len(title) <= TITLE and len(sentence) <= SENTENCE for title, sentence in found)
    assert all(count == 1 for title, count in Counter(title.lower() for title, _ in found).items() if title)
    assert all(
        count == 1 for sentence, count in Counter(sentence for _, sentence in found).items() if sentence
    )
