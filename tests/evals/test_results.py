"""Means, standard errors and the paired comparison."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.statistics import mean_stderr
from crawltalk.evals.results import (
    Result,
    compare,
    means,
    read_means,
    read_results,
    sign_test,
    write_results,
)

SHARES = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=30)


def results(scores: list[float], task: str = "a", **group: str) -> list[Result]:
    return [
        Result(task=task, id=str(i), prompt="", answer="", reply="", scores={"acc": score}, group=group)
        for i, score in enumerate(scores)
    ]


@given(SHARES, st.randoms())
def test_the_difference_of_two_models_is_that_of_their_means_whatever_the_order_of_rows(scores, rng):
    other = [1.0 - score if rng.random() < 0.3 else score for score in scores]
    first, second = results(scores), results(other)
    rng.shuffle(second)
    [row] = compare(first, second)
    assert row.difference == pytest.approx(mean_stderr(other)[0] - mean_stderr(scores)[0], abs=1e-4)
    assert row.better - row.worse == pytest.approx(row.difference * row.n, abs=0.01)


def test_items_that_only_one_model_was_asked_are_not_compared():
    assert compare(results([1.0, 1.0]), results([0.0]))[0].n == 1
    assert compare(results([1.0], way="direct"), results([0.0], way="steps")) == []


@given(st.integers(0, 12), st.integers(0, 12))
def test_the_sign_test_sums_the_coins_that_are_at_least_so_uneven(better: int, worse: int):
    trials = better + worse
    uneven = [k for k in range(trials + 1) if abs(2 * k - trials) >= abs(better - worse)]
    assert sign_test(better, worse) == pytest.approx(sum(comb(trials, k) for k in uneven) / 2**trials)


def test_scores_of_several_tasks_stand_in_one_file_and_a_task_replaces_only_its_own(tmp_path):
    write_results(tmp_path, "a", results([1.0]))
    write_results(tmp_path, "b", results([0.0, 1.0], task="b", way="direct"))
    write_results(tmp_path, "a", results([0.0]))
    assert [(row.task, row.score, row.n) for row in read_means(tmp_path)] == [("b", 0.5, 2), ("a", 0.0, 1)]
    assert read_results(tmp_path, "b") == results([0.0, 1.0], task="b", way="direct")
    assert means(read_results(tmp_path, "b"))[0].group == {"way": "direct"}


def test_a_folder_without_the_task_or_with_a_strange_file_is_said_to_be_so(tmp_path):
    with pytest.raises(MissingInput, match="crawltalk eval"):
        read_results(tmp_path, "a")
    (tmp_path / "scores.json").write_text('{"bits_per_byte": {}}')
    with pytest.raises(BadInput, match="--out"):
        write_results(tmp_path, "a", results([1.0]))
