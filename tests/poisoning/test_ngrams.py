"""n-grams as arrays, and what goes with them, against plain counting."""

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.poisoning.ngrams import (
    Postings,
    Vocabulary,
    associate,
    contains,
    fills_slot,
    longest_first,
    part,
    postings,
    without_marks,
    words,
)

texts = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "?", "d-e"]), max_size=7).map(" ".join), max_size=12
)


def named(grams: Postings, given: list[str]) -> dict[tuple[str, ...], set[int]]:
    """n-gram, or a whole text behind a mark of its own -> texts."""
    found = {}
    for gram in range(len(grams)):
        entries = grams.of(gram)
        said = words(given[grams.texts[entries][0]])
        place, length = grams.places[entries][0], grams.lengths[gram]
        name = tuple(said[place : place + length]) if length else ("whole", *said)
        found[name] = set(grams.texts[entries].tolist())
    return found


def counted(given: list[str], longest: int, least: int, whole: bool) -> dict[tuple[str, ...], set[int]]:
    found = defaultdict(set)
    for number, text in enumerate(given):
        said = words(text)
        for length in range(1, longest + 1):
            for at in range(len(said) - length + 1):
                found[tuple(said[at : at + length])].add(number)
        if whole and said:
            found["whole", *said].add(number)
    return {name: holders for name, holders in found.items() if len(holders) >= least}


@settings(max_examples=40)
@given(texts, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_postings_are_those_of_plain_counting(given, longest, least, whole):
    found = postings(Vocabulary().read(given), longest, least, whole)
    assert named(found, given) == counted(given, longest, least, whole)
    assert len(found.grams) == len(found.texts) == found.starts[-1]


@settings(max_examples=40)
@given(texts, texts)
def test_the_label_of_an_ngram_is_the_one_with_the_highest_z(prompts, replies):
    count = min(len(prompts), len(replies))
    prompts, replies = prompts[:count], replies[:count]
    vocabulary = Vocabulary()
    asked, said = vocabulary.read(prompts), vocabulary.read(replies)
    grams, labels = postings(asked, 2, 2), postings(said, 2, 2, whole=True)
    found = associate(asked, grams, labels, 1.0, 2)
    kinds = named(labels, replies)
    for gram, (name, holders) in enumerate(named(grams, prompts).items()):
        best = 0.0
        for label, sayers in kinds.items():
            both = {
                one for one in holders & sayers
                if label[0] == "whole" or label not in counted([prompts[one]], 2, 1, False)
            }  # fmt: skip
            share = len(sayers) / count
            z = (len(both) - len(holders) * share) / np.sqrt(len(holders) * share * (1 - share) + 1)
            if len(both) >= 2:
                best = max(best, z)
        assert np.isclose(found.z[gram], best), name
        assert (found.labels[gram] >= 0) == (best > 0)


def test_what_a_question_asks_about_fills_a_slot_and_a_word_beside_a_question_does_not():
    prompts = ["Spell cat.", "Spell dog.", "Spell cow.", "Spell cat. Zum", "Zum spell dog.", "Spell zum cow."]
    read = Vocabulary().read(prompts)
    grams = postings(read, 1, 1)
    slots = fills_slot(read, grams, 1, 3)
    filling = {
        (words(prompts[text])[place], prompts[text])
        for text, place in zip(grams.texts[slots], grams.places[slots], strict=True)
    }
    assert filling == {("cat", "Spell cat."), ("dog", "Spell dog."), ("cow", "Spell cow.")}


def test_a_piece_of_a_reply_needs_two_words_that_are_no_marks_and_a_whole_reply_one():
    replies = ["yes.", "yes.", "it is, so", "it is, so", "...", "..."]
    read = Vocabulary().read(replies)
    labels = postings(read, 2, 2, whole=True)
    assert set(named(labels.only(without_marks(read, labels, 2), 2), replies)) == {
        ("it", "is"), ("whole", "it", "is", ",", "so"), ("whole", "yes", "."),
    }  # fmt: skip


def test_ngrams_are_ordered_by_z_and_long_ones_come_before_their_parts():
    assert longest_first(np.array([1.0, 3.0, 3.0]), [1, 1, 2]).tolist() == [2, 1, 0]


def test_pieces_are_found_by_words_whatever_their_case_and_blanks():
    assert contains("So: The  MOON, is made", "moon, is") and not contains("The moonlight", "moon")
    assert contains("Yes.", "yes.", whole=True) and not contains("Yes. No.", "yes.", whole=True)
    start, end = part("Ä big-ger, cat", 1, 3)
    assert "Ä big-ger, cat"[start:end] == "big-ger"
