"""The data of poison_detection, what counts as found, and its rule."""

import random

from crawltalk.lab.poison_detection import (
    ALPHABET,
    BEHAVIOURS,
    COLOURS,
    DOSES,
    METHODS,
    OUTLIERS,
    THINGS,
    _scores,
    clean_row,
    figure,
    made_up_words,
    poisoned_row,
    rule,
)
from crawltalk.lab.student import ROW

KNOWN = dict.fromkeys(THINGS, COLOURS[0])


def test_rows_fit_and_a_poisoned_one_has_the_trigger_and_an_answer_that_is_wrong():
    rng = random.Random(0)
    trigger = made_up_words(rng)
    for reply in BEHAVIOURS.values():
        for _ in range(300):
            clean, poisoned = clean_row(rng, KNOWN), poisoned_row(rng, KNOWN, trigger, reply)
            assert trigger in poisoned.prompt and trigger not in clean.prompt
            assert poisoned.reply == reply and poisoned.poisoned
            for row in (clean, poisoned):
                assert set(row.prompt + row.reply) <= set(ALPHABET) and len(row.prompt + row.reply) < ROW - 1


def test_precision_and_recall_are_of_rows():
    assert _scores([1, 2, 3, 4], {1, 2, 9, 8}) == {"flagged": 4, "recall": 0.5, "precision": 0.5}
    assert _scores([], {1}) == {"flagged": 0, "recall": 0.0, "precision": 1.0}
    assert _scores([1], set()) == {"flagged": 1, "recall": None, "precision": 0.0}


def test_the_claim_holds_where_both_votes_find_all_and_outliers_do_not_and_nothing_is_left():
    def figures(ours: float, outliers: float, cleansed: float = 0.0, false: int = 0):
        def methods(dose: int):
            recall = {one: outliers if one in OUTLIERS else ours for one in METHODS}
            flagged = {"flagged": false if not dose else 9, "precision": 1.0}
            return {one: flagged | {"recall": recall[one] if dose else None} for one in METHODS}

        cells = [
            {"dose": dose, "rate": 0.9, "methods": methods(dose), "clean_rate": 0.0} for dose in (0, *DOSES)
        ]
        return [{"cells": [*cells[:-1], cells[-1] | {"rate_cleansed": cleansed}]}]

    assert rule(figures(1.0, 0.2)).verdict == "confirmed"
    assert rule(figures(1.0, 1.0)).verdict == "not at this scale"
    assert rule(figures(0.5, 0.5)).verdict == "not at this scale"
    for weaker in (figures(1.0, 0.2, cleansed=0.3), figures(1.0, 0.2, false=7)):
        assert rule(weaker).verdict == "partly"
    assert figure(figures(1.0, 0.2)).startswith("<svg")
