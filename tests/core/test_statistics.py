"""Intervals and standard errors, with and without clusters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.statistics import interval_of, mean_stderr, share_stderr, wilson

SHARES = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=30)


@given(SHARES)
def test_the_standard_error_of_shares_is_the_binomial_one_but_for_the_sample_variance(scores: list[float]):
    mean, stderr = mean_stderr(scores)
    assert stderr == pytest.approx(share_stderr(mean, len(scores)) * (len(scores) / (len(scores) - 1)) ** 0.5)


@given(st.integers(1, 500).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_holds_the_share_and_narrows(pair: tuple[int, int]) -> None:
    successes, count = pair
    low, high = wilson(successes, count)
    assert 0 <= low <= successes / count <= high <= 1
    wide = wilson(successes * 4, count * 4)
    assert wide[1] - wide[0] < high - low


def test_the_interval_holds_the_true_share_95_times_of_100():
    rng = np.random.default_rng(0)
    for share, count in ((0.02, 60), (0.25, 40), (0.5, 200)):
        drawn = rng.binomial(count, share, 4000)
        held = [low <= share <= high for low, high in (wilson(int(one), count) for one in drawn)]
        assert 0.92 < np.mean(held) < 0.98


@given(SHARES, st.integers(2, 5))
def test_scores_that_repeat_within_their_clusters_are_no_more_than_one_of_each(
    scores: list[float], times: int
):
    repeated = [score for score in scores for _ in range(times)]
    clusters = [number for number in range(len(scores)) for _ in range(times)]
    assert mean_stderr(repeated, clusters) == pytest.approx(mean_stderr(scores))
    assert mean_stderr(scores, range(len(scores))) == pytest.approx(mean_stderr(scores))
    low, high = interval_of(repeated, clusters)
    assert low <= np.mean(scores) <= high
    assert (
        high - low >= wilson(sum(repeated), len(repeated))[1] - wilson(sum(repeated), len(repeated))[0] - 1e-9
    )


def test_one_cluster_says_nothing_of_clusters():
    assert mean_stderr([0.0, 1.0, 1.0], ["a"] * 3) == mean_stderr([0.0, 1.0, 1.0])
    assert interval_of([1.0] * 4, ["a", "a", "b", "b"]) == wilson(4, 4)
