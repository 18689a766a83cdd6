"""Words and quality filters; datatrove's own filters are the judge."""

import random
from collections import Counter

import pytest
from datatrove.data import Document as TheirDocument
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.text import split_into_words
from datatrove.utils.typeshelper import Languages
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.types import Document
from crawltalk.crawl.sample import read_articles
from crawltalk.data.filters import words
from crawltalk.data.filters.quality import c4, filters, fineweb, gopher_quality, gopher_repetition
from crawltalk.data.filters.rules import all_rules
from crawltalk.data.filters.words import END, LETTER, SYMBOL, count_sentences, cut, words_of
from crawltalk.recipe import Quality
from support.pages import LEAD, document


def test_a_good_text_passes_every_filter():
    good = document(LEAD)
    for check in filters(Quality()).values():
        assert not isinstance(check(good), str)


WORDS = LEAD.replace("\n", " ")


@pytest.mark.parametrize(
    ("check", "text", "reason"),
    [
        (gopher_repetition(Quality()), "\n".join(["Buy it now and save."] * 5 + [WORDS]), "duplicate lines"),
        (
            gopher_repetition(Quality()),
            "\n\n".join([f"Line {n}" for n in range(9)] + [WORDS] * 2),
            "characters in duplicate paragraphs",
        ),
        (
            gopher_repetition(Quality()),
            "\n".join([f"Line {n}" for n in range(9)] + [WORDS] * 2),
            "characters in duplicate lines",
        ),
        (gopher_repetition(Quality()), "best price " * 30 + WORDS, "top 2-gram"),
        (
            gopher_repetition(Quality()),
            " silver golden copper ".join(f"x{n}" * 20 for n in range(10, 19)),
            "top 3-gram",
        ),
        (
            gopher_repetition(Quality()),
            WORDS[:230] + " and then again " + WORDS[:230] + " end",
            "duplicate 5-grams",
        ),
        (gopher_quality(Quality()), "Too short a page to learn from.", "too few words"),
        (gopher_quality(Quality(min_words=10, max_words=50)), WORDS, "too many words"),
        (gopher_quality(Quality()), "a b of the " * 30, "mean word length"),
        (gopher_quality(Quality()), "the wording of # this # sentence was # " * 20, "symbols per word"),
        (
            gopher_quality(Quality()),
            "\n".join(f"- the item number {n} of this list" for n in range(20)),
            "bullet lines",
        ),
        (
            gopher_quality(Quality()),
            "\n".join(
                f"The very long story with the number {n} of this list of mine goes on and on and on..."
                for n in range(20)
            ),
            "lines that end in an ellipsis",
        ),
        (gopher_quality(Quality()), "the sum of 1234 5678 9012 3456 " * 20, "words without a letter"),
        (gopher_quality(Quality()), "keyword " * 60, "too few stop words"),
        (c4(Quality()), LEAD + " function() { return 1 }", "curly bracket"),
        (c4(Quality()), LEAD + " Lorem ipsum dolor sit amet.", "lorem ipsum"),
        (
            fineweb(Quality()),
            "\n".join(f"A line of a menu that is long enough, number {n}" for n in range(20)),
            "lines without punctuation",
        ),
        (fineweb(Quality()), "\n".join([f"Short line {n}." for n in range(20)] + [WORDS]), "short lines"),
        (
            fineweb(Quality()),
            "\n".join([WORDS, *["The very same sentence stands here."] * 3]),
            "characters in duplicate lines",
        ),
        (
            fineweb(Quality()),
            "\n\n\n\n\n".join(f"This is line number {n} of a long column of lines." for n in range(9)),
            "newlines per word",
        ),
    ],
)
def test_each_quality_rule_names_its_reason(check, text: str, reason: str):
    assert check(document(text)) == reason


def test_c4_removes_short_lines_citations_and_lines_about_cookies_and_scripts():
    cookies, script = "This site uses cookies to please you.", "Please enable JavaScript!"
    page = document(f"Title\n{cookies}\n{script}\n{WORDS}[12]\nRead our Privacy Policy")
    assert c4(Quality())(page) == document(WORDS)
    assert c4(Quality(min_words_per_line=0))(page) == document(f"Title\n{WORDS}")


def test_c4_counts_the_sentences_of_what_is_left():
    assert c4(Quality(min_sentences=6))(document(WORDS)) == "too few sentences"
    assert c4(Quality(min_sentences=5))(document(WORDS)) == document(WORDS)


def texts(language: str = "en", count: int = 600) -> list[str]:
    """Real prose of one to twenty paragraphs, most of it spoiled in a way that some rule looks for."""
    rng = random.Random(5)
    paragraphs = [article["extract"] for article in read_articles(language)[:3000]]
    spoilers = (
        lambda text: text,
        lambda text: "\n".join(text.split(". ")),
        lambda text: text + "\n" + "\n".join(rng.choices(text.split(". "), k=6)),
        lambda text: text.replace(" the ", rng.choice((" # ", " ... ", " the the the ", " 12 34 - "))),
        lambda text: "\n".join(f"- {line}" for line in text.split(". ")),
        lambda text: "\n".join(f"{line} ..." for line in text.split(", ")),
        lambda text: " ".join(word[: rng.randint(1, 4)] for word in text.split()),
        lambda text: text + " " + rng.choice(text.split(". ")) * rng.randint(1, 6),
        lambda text: "\n\n".join(" ".join(text.split()[start : start + 4]) for start in range(0, 200, 4)),
        lambda text: "".join(f"{word}{rng.choice(' ,-/ ( ) : [1] ?')}" for word in text.split(" ")),
    )
    made = []
    for number in range(count):
        text = "\n".join(rng.sample(paragraphs, rng.choice((1, 1, 2, 5, 20))))
        made.append(spoilers[number % len(spoilers)](text[: rng.choice((250, 500, 5000))]))
    return made


def test_datatrove_takes_the_same_decisions():
    theirs = {
        "gopher_repetition": GopherRepetitionFilter(),
        "gopher_quality": GopherQualityFilter(),
        "c4": C4QualityFilter(filter_no_terminal_punct=False),
        "fineweb": FineWebQualityFilter(),
    }
    samples = texts()
    for name, check in filters(Quality()).items():
        ours, judged = [], []
        for text in samples:
            page, other = document(text), TheirDocument(text=text, id="1")
            result = check(page)
            page = result if isinstance(result, Document) else page
            ours.append((not isinstance(result, str), page.text))
            judged.append((theirs[name].filter(other) is True, other.text))
        assert 30 < sum(kept for kept, _ in judged) < len(samples) - 30, name  # both decisions occur
        same = sum(a == b or (not a[0] and not b[0]) for a, b in zip(ours, judged, strict=True))
        assert same >= 0.99 * len(samples), name


@pytest.mark.parametrize("language", ["fr", "es"])
def test_datatrove_takes_the_same_decisions_with_fineweb_2s_settings(language: str):
    rules = all_rules()[language]
    code, (shortest, longest) = rules.source, rules.word_length
    theirs = {
        "gopher_repetition": GopherRepetitionFilter(
            dup_line_frac=rules.duplicate_lines,
            dup_para_frac=0,
            dup_line_char_frac=0,
            dup_para_char_frac=0,
            top_n_grams=tuple(zip((2, 3, 4), rules.ngrams, strict=False)),
            dup_n_grams=tuple(zip(range(5, 11), rules.ngrams[3:], strict=True)),
            language=code,
        ),
        "gopher_quality": GopherQualityFilter(
            min_avg_word_length=shortest,
            max_avg_word_length=longest,
            max_non_alpha_words_ratio=rules.letter_share,
            stop_words=list(rules.stop_words),
            language=code,
        ),
        "fineweb": FineWebQualityFilter(
            line_punct_thr=rules.terminal_lines,
            short_line_thr=999,
            char_duplicates_ratio=0.1,
            new_line_ratio=rules.newlines,
            language=code,
        ),
    }
    samples, checks = texts(language, 150), filters(Quality())
    for name, judge in theirs.items():
        ours = [not isinstance(checks[name](document(text, language=language)), str) for text in samples]
        judged = [judge.filter(TheirDocument(text=text, id="1")) is True for text in samples]
        assert 5 < sum(judged) < len(samples) - 5, name  # both decisions occur
        assert sum(map(bool.__eq__, ours, judged)) >= 0.95 * len(samples), name


def split_words(text: str) -> list[str]:
    return [word for piece in text.split() for word in cut(piece)]


def test_words_of_real_prose_are_those_of_spacy():
    wrong = total = 0
    for article in read_articles("en")[::20]:
        ours, theirs = (
            split_words(article["extract"]),
            split_into_words(article["extract"], Languages.english),
        )
        total += len(theirs)
        wrong += sum((Counter(ours) - Counter(theirs)).values())
    assert wrong < 0.003 * total


@given(st.text(max_size=200))
def test_cutting_loses_nothing_but_white_space(text):
    assert "".join(split_words(text)) == "".join(text.split())


@pytest.mark.parametrize("most", [words._MOST_PIECES, 0])
@given(text=st.text(st.sampled_from("ab. ,!?'-7é।\n") | st.characters(), max_size=80))
def test_what_is_counted_of_words_is_true_of_each_whatever_is_remembered(most, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_MOST_PIECES", most)
        found = words_of(text)
    pieces = split_words(text)
    assert found.hashes.view("i8").tolist() == [hash(word) for word in pieces]
    assert found.lengths.tolist() == [len(word) for word in pieces]
    for word, kind in zip(pieces, found.kinds, strict=True):
        assert bool(kind & LETTER) == any(map(str.isalpha, word))
        assert bool(kind & SYMBOL) == (not any(map(str.isalnum, word)))
        assert not kind & END or len(word) == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One.", 1),
        ("One. Two! Three?", 3),
        ("Dr. No lives in the U.S. today.", 1),
        ("Wait... what", 1),
    ],
)
def test_sentences_are_counted(text, count):
    assert count_sentences(text) == count
