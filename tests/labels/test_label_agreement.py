"""How far labelers agree, against values worked by hand and those of scikit-learn 1.7 and SciPy 1.16."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.labels import Ranking
from crawltalk.labels.agreement import agreements, cohen_kappa, kendall_tau
from support.labels import asked, replied, store_with


def test_kappa_is_that_of_the_textbook_and_of_scikit_learn():
    both, first, second, neither = [("y", "y")] * 20, [("y", "n")] * 5, [("n", "y")] * 10, [("n", "n")] * 15
    # agreed 0.7; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5; (0.7 - 0.5) / (1 - 0.5)
    assert cohen_kappa(both + first + second + neither) == pytest.approx(0.4)
    ones, others = [1, 1, 0, 1, 0, 0, 1, 0, 1, 1], [1, 0, 0, 1, 0, 1, 1, 0, 1, 1]
    assert cohen_kappa(list(zip(ones, others, strict=True))) == pytest.approx(0.5833333333333333)
    assert cohen_kappa(list(zip("aabbccabcabc", "abbbccaacabb", strict=True))) == pytest.approx(0.625)
    assert cohen_kappa([(1, 0), (0, 1)]) == -1
    assert cohen_kappa([]) is None
    assert cohen_kappa([("y", "y")] * 3) is None  # chance alone agrees always


@pytest.mark.parametrize(
    ("ones", "others", "tau"),
    [
        ([1, 2, 3, 4], [1, 3, 2, 4], 4 / 6),
        ([1, 1, 2, 3], [1, 2, 2, 3], 0.8),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1),
        ([1, 2, 2, 3, 3], [2, 1, 2, 3, 1], 0),
        ([1, 1], [1, 2], None),
    ],
)
def test_tau_is_that_of_scipy(ones, others, tau):
    assert kendall_tau(ones, others) == (None if tau is None else pytest.approx(tau))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_figures_do_not_depend_on_who_is_first(judgements):
    turned = [(other, one) for one, other in judgements]
    assert cohen_kappa(judgements) == cohen_kappa(turned)
    ones, others = [one for one, _ in judgements], [other for _, other in judgements]
    assert kendall_tau(ones, others) == kendall_tau(others, ones)
    assert kendall_tau(ones, ones) in (None, pytest.approx(1))


def test_people_and_a_judge_are_compared_over_what_both_judged(tmp_path):
    store, prompts, ids = store_with(tmp_path, {"one": ["a", "b", "c", "d"], "two": ["e", "f"]})
    for labeler, ranks in (
        ("anna", {"a": 1, "b": 2, "c": 3, "d": 4}),
        ("ben", {"a": 1, "b": 3, "c": 2, "d": 4}),
        ("judge:big", {"a": 2, "b": 2, "c": 1}),  # a tie, one other pair than anna's, and no d
    ):
        store.add_label(prompts["one"], labeler, Ranking({ids[name]: rank for name, rank in ranks.items()}))
    store.add_label(prompts["two"], "anna", Ranking({ids["e"]: 1, ids["f"]: 2}))
    for labeler, up in (("anna", True), ("ben", False)):
        store.thumb(asked("one"), replied("a"), labeler, up=up, model="tiny")
    rows = {row.who: row for row in agreements(store.snapshot())}
    assert list(rows) == ["people", "judge:big", "anna, ben", "anna, judge:big", "ben, judge:big"]
    people = rows["people"]
    assert (people.pairs.count, people.pairs.agreed, people.rankings) == (6, pytest.approx(5 / 6), 1)
    assert people.tau == pytest.approx(4 / 6)
    assert (people.thumbs.count, people.thumbs.agreed, people.thumbs.kappa) == (1, 0.0, 0.0)
    judge = rows["judge:big"]
    # anna: a-b is no tie, a-c and b-c are the other way round; ben: a-b is no tie, a-c, and b-c agrees
    assert (judge.pairs.count, judge.pairs.agreed, judge.thumbs.count) == (6, pytest.approx(1 / 6), 0)
    assert rows["ben, judge:big"].pairs.agreed == pytest.approx(1 / 3)
