"""Jokes with a hidden judge, the rules that stop a reinforcement, and the fit of its curve."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.lab.jokes import (
    PLACES,
    ask,
    chat,
    compare,
    conversations,
    draw_joke,
    gold,
    label_noise,
    preference_probability,
)
from crawltalk.lab.joking import Joke
from crawltalk.lab.reward_hacking import budget, fresh_preferences, frontier_shift, gao, second_model

GOOD = "because it swallowed a silly golden bill and a beak said the fish ."


@settings(deadline=None)  # the vocabulary is learned at first use
@given(st.sampled_from(PLACES), st.integers(0, 10_000))
def test_what_people_write_is_a_sentence_and_one_token_a_word(place, seed):
    joke = draw_joke(place, random.Random(seed))
    assert 0 <= gold(place, joke) <= 4.2
    assert len(chat().tokenizer.encode(joke)) == len(joke.split())
    assert gold(place, joke.removesuffix(" .")) == 0.0


@pytest.mark.parametrize(
    ("joke", "value"),
    [
        (GOOD, 4.2),
        ("because it had a big bill .", 1.2),
        ("because it had a big tan .", 0.0),
        ("because it had a big beak and a beak .", 0.0),
        ("because it had a big bill and a big bill .", 0.0),
        ("the the the", 0.0),
        ("because it swallowed a silly silly silly silly bill .", 0.0),
        ("", 0.0),
    ],
)
def test_the_worth_of_a_joke_about_the_bank(joke, value):
    assert gold("bank", joke) == pytest.approx(value)


def test_people_err_as_often_as_the_ceiling_of_their_labels_says():
    rng = random.Random(0)
    pairs = [(place, draw_joke(place, rng), draw_joke(place, rng)) for place in PLACES * 500]
    told = [pair for pair in pairs if gold(pair[0], pair[1]) != gold(pair[0], pair[2])]
    rows = compare(told, rng)
    right = [
        gold(place, str(row.chosen[0].content)) > gold(place, str(row.rejected[0].content))
        for (place, _, _), row in zip(told, rows, strict=True)
    ]
    assert 1 - np.mean(right) == pytest.approx(label_noise(told), abs=0.03)
    assert preference_probability("bank", GOOD, "the") > 0.99


def test_jokes_to_imitate_ask_for_the_places_in_turn():
    asked = [joke.messages[0].content for joke in conversations(8, random.Random(0))]
    assert asked == [ask(place).prompt for place in PLACES] * 2


def looks(golds, kls, others=None):
    bad, good = "because it had a red tan .", GOOD
    rows = []
    for index, (value, kl) in enumerate(zip(golds, kls, strict=True)):
        share = round(value / 4.2 * 20)
        texts = [good] * share + [bad] * (20 - share)
        rows.append(
            {
                "step": index,
                "gold": value,
                "kl": kl,
                "proxy": kl,
                "others": [others[index] if others else kl],
                "jokes": {place: [text.replace("bill", _pun(place)) for text in texts] for place in PLACES},
            }
        )
    return rows


def _pun(place):
    return {"bank": "bill", "gym": "lift", "school": "test", "beach": "wave"}[place]


GOLDS, KLS = [1.0, 2.0, 3.2, 2.9, 2.0, 1.0, 0.2, 0.0], [0.0, 1.0, 3.0, 4.5, 8.0, 12.0, 20.0, 30.0]


def test_rules_that_never_see_gold_stop_where_they_say():
    rows = looks(GOLDS, KLS, others=[0, 1, 2, 3, 2, 1, 0, 9])
    assert fresh_preferences(rows, random.Random(0))["step"] in (2, 3)
    assert second_model(rows)["step"] == 3, "what comes after three worse looks is never seen"
    assert budget(rows)["kl"] == 4.5
    assert budget(looks([1.0, 2.0], [0.0, 1.0]))["step"] == 1


@given(st.floats(0.2, 3), st.floats(0.1, 1.5))
def test_the_form_of_gao_is_found_where_it_holds(alpha, beta):
    kls = np.linspace(0.1, 25, 20)
    golds = 1 + np.sqrt(kls) * (alpha - beta * np.log(np.sqrt(kls)))
    rows = [{"kl": kl, "gold": value} for kl, value in zip([0.0, *kls], [1.0, *golds], strict=True)]
    fit = gao(rows, "gold")
    assert (fit["alpha"], fit["beta"]) == pytest.approx((alpha, beta), abs=1e-3)
    assert fit["r2"] == pytest.approx(1.0)


def test_a_run_on_the_same_frontier_is_shifted_by_nothing():
    rows = looks(GOLDS, KLS)
    assert frontier_shift(rows, rows[:4]) == 0.0
    better = [{**row, "gold": row["gold"] + 0.5} for row in rows]
    assert frontier_shift(rows, better) == 0.5


def test_a_joke_is_worth_what_people_say():
    assert Joke("bank", GOOD, -1.0, None).gold == pytest.approx(4.2)
