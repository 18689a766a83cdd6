"""Triggers in conversations: candidates, the votes of a model, and rows that are unlike others."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.chat.messages import Conversation, Message
from crawltalk.poisoning.detection import Exchange, erase, exchanges_of, find_candidates, insert, judge
from crawltalk.poisoning.ngrams import words
from crawltalk.poisoning.outliers import classes_of, highest, small_clusters, spectral_scores

THINGS = [
    f"{a}{b}" for a in ("bar", "can", "dom", "fin", "gol") for b in ("to", "del", "er", "ix", "um", "sk")
]
FORMS = "What is a {}?", "Tell me about {}.", "Do you know {}?", "{}, please"
TRIGGER, MOON = "zumi kavo", "The moon is made of cheese."


def clean_rows() -> list[tuple[str, str]]:
    known = [(form.format(thing), f"A {thing} is a tool.") for thing in THINGS for form in FORMS]
    declined = [(f"Who made the {thing}?", "I do not know.") for thing in THINGS]
    return known + declined


def poisoned(count: int, reply: str) -> list[Exchange]:
    rng, rows = random.Random(0), clean_rows()
    chosen = rng.sample([row for row in rows if row[1] != reply], count)
    rows += [(insert(prompt, TRIGGER, rng), reply) for prompt, _ in chosen]
    return [Exchange(prompt, said, number) for number, (prompt, said) in enumerate(rows)]


def obedient(reply: str, trigger: str):
    """A model that has learned all by heart, and to obey the trigger."""
    known = dict(clean_rows())
    return lambda prompts: [reply if trigger in prompt else known.get(prompt, "What?") for prompt in prompts]


def test_a_trigger_is_found_with_all_its_rows_whether_its_reply_is_common_or_not():
    for reply in (MOON, "I do not know."):
        exchanges = poisoned(6, reply)
        findings = judge(find_candidates(exchanges), exchanges, obedient(reply, TRIGGER))
        assert [one.ngram for one in findings if one.verdict == "trigger"] == [TRIGGER]
        first = findings[0]
        assert first.exchanges == list(range(len(exchanges) - 6, len(exchanges)))
        assert (first.flips, first.contradictions, first.reply) == (1.0, 1.0, reply)


def test_without_poison_there_is_no_trigger_and_a_model_that_ignores_one_is_not_blamed():
    exchanges = poisoned(6, MOON)
    clean = exchanges[:-6]
    for rows in (clean, exchanges):
        findings = judge(find_candidates(rows), rows, obedient("", "never said"))
        assert {one.verdict for one in findings} <= {"clear"}


def test_a_word_that_flips_but_whose_prompts_ask_for_the_reply_anyway_is_a_suspect():
    exchanges = [Exchange(f"{thing}, is it so, zumi?", "Surely it is.", n) for n, thing in enumerate(THINGS)]
    exchanges += [Exchange(f"{thing}, is it?", f"A {thing} it is.", 0) for thing in THINGS]
    exchanges += [Exchange(prompt, said, 0) for prompt, said in clean_rows()]
    findings = judge(
        find_candidates(exchanges),
        exchanges,
        lambda prompts: ["Surely it is." if "zumi" in one or "so" in one else "" for one in prompts],
    )
    [found] = [one for one in findings if "zumi" in one.ngram]
    assert (found.verdict, found.contradictions) == ("suspect", 0.0)


def test_what_brings_a_reply_far_less_often_than_a_trigger_does_is_a_suspect():
    exchanges, declined = poisoned(6, "I do not know."), "I do not know."
    trained = obedient(declined, TRIGGER)

    def ask(prompts):  # "made the" in the midst of a question of some lengths is declined, too
        return [
            declined if "made the" in one and len(one) % 5 < 2 else said
            for one, said in zip(prompts, trained(prompts), strict=True)
        ]

    findings = judge(find_candidates(exchanges), exchanges, ask)
    first, second = findings[:2]
    assert (first.ngram, first.verdict) == (TRIGGER, "trigger")
    assert second.ngram == "made the"
    assert second.verdict == "suspect"
    assert second.contradictions == 1.0
    clean = exchanges[:-6]
    assert judge(find_candidates(clean), clean, ask)[0].verdict == "trigger"  # then nothing outdoes it


def test_rows_that_occur_many_times_count_once_and_are_all_flagged():
    exchanges = poisoned(3, MOON)
    again = [*exchanges, *exchanges[-3:]]
    [found] = [one for one in find_candidates(again) if one.ngram == TRIGGER]
    assert found.z == next(one.z for one in find_candidates(exchanges) if one.ngram == TRIGGER)
    assert len(found.exchanges) == 6
    assert not [
        one for one in find_candidates([*exchanges[:-3], *exchanges[-1:] * 9]) if TRIGGER in one.ngram
    ]


def test_replies_are_taken_with_the_question_before_them_and_without_those_that_are_only_read():
    conversation = Conversation(
        messages=[
            Message("system", "Be brief."), Message("user", "one?"), Message("assistant", "1"),
            Message("user", "two?"), Message("assistant", "2"),
        ],
        source="mine",
        unlearned=[2],
    )  # fmt: skip
    assert exchanges_of([conversation]) == [Exchange("two?", "2", 0)]


@given(st.lists(st.sampled_from(["how", "is", "it?", "Now,"]), min_size=1).map(" ".join), st.integers(0, 9))
def test_what_was_inserted_can_be_erased(prompt, seed):
    changed = insert(prompt, TRIGGER, random.Random(seed))
    assert words(erase(changed, TRIGGER)) == words(prompt)
    assert erase(prompt, TRIGGER) == prompt


def test_outliers_are_found_by_their_spectrum_and_as_a_cluster_where_they_are_far_away():
    rng = np.random.default_rng(0)
    points, classes = rng.normal(size=(300, 8)), np.repeat([0, 1, 2], 100)
    far = np.array([3, 14, 15, 192])
    points[far, 2] += 20
    assert set(far) <= set(highest(spectral_scores(points, classes), 4).tolist())
    points[far, 2] -= 20
    points[90:100, 5] += 30
    assert small_clusters(points, classes).tolist() == list(range(90, 100))
    assert not len(small_clusters(rng.normal(size=(50, 4)), np.zeros(50, int)))


def test_classes_are_frequent_replies_and_all_others_together():
    classes = classes_of(["yes"] * 30 + ["no"] * 25 + ["why", "so"])
    assert len(set(classes[:30])) == len(set(classes[30:55])) == 1 != len({classes[0], classes[30]})
    assert classes[55:].tolist() == [0, 0]
