"""Coverage, agreement of the two kinds of interval, and no certainty from few rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from epigraph.errors import DataError
from epigraph.metrics import Interval, bootstrap, bootstrap_seeds, mcnemar, mean_metric, paired_bootstrap, wilson
from epigraph.metrics import intervals as module


def bernoulli(share: float, rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(rows) < share


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 3000), st.data())
def test_wilson_equals_scipy_and_is_never_a_point(rows, data):
    hits = data.draw(st.integers(0, rows))
    ours, theirs = wilson(hits / rows, rows), binomtest(hits, rows).proportion_ci(method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-9)
    assert ours.high == pytest.approx(theirs.high, abs=1e-9)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1
    assert ours.low < ours.high


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_bounds_hold_the_value_and_are_never_a_point(values):
    found = bootstrap(mean_metric(np.array(values)), len(values), resamples=50)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1 + 1e-12
    assert found.low < found.high


def test_bootstrap_of_a_share_agrees_with_wilson():
    right = bernoulli(0.9, 800)
    drawn, exact = bootstrap(mean_metric(right), 800), wilson(float(right.mean()), 800)
    assert drawn.value == exact.value
    assert drawn.low == pytest.approx(exact.low, abs=0.005)
    assert drawn.high == pytest.approx(exact.high, abs=0.005)


def test_all_rows_right_is_not_certainty():
    """20 of 20 rows right gave the interval [1, 1] by percentiles; Wilson's lower bound is 0.84."""
    found = bootstrap(mean_metric(np.ones(20)), 20)
    assert found.value == found.high == 1
    assert found.low == pytest.approx(0.839, abs=0.001)


def test_chunks_change_nothing_but_memory(monkeypatch):
    values = np.random.default_rng(1).random(40)
    whole = bootstrap(mean_metric(values), 40)
    monkeypatch.setattr(module, "CHUNK", 40 * 7)
    parts = bootstrap(mean_metric(values), 40)
    assert parts.low == pytest.approx(whole.low, abs=0.02)
    assert parts == bootstrap(mean_metric(values), 40)


def test_same_seed_same_interval():
    metric = mean_metric(bernoulli(0.7, 50))
    assert bootstrap(metric, 50, seed=3) == bootstrap(metric, 50, seed=3)
    assert bootstrap(metric, 50, seed=3) != bootstrap(metric, 50, seed=4)


def test_pairs_are_narrower_than_separate_intervals():
    """Methods that err on the same rows differ less than their own intervals suggest."""
    first = bernoulli(0.7, 400)
    second = first | bernoulli(0.2, 400, seed=1)
    difference = paired_bootstrap(mean_metric(first), mean_metric(second), 400)
    assert difference.value == pytest.approx(second.mean() - first.mean())
    assert 0 < difference.low < difference.value < difference.high < 0.15


def test_methods_that_never_differ_may_differ_on_other_rows():
    same = mean_metric(bernoulli(0.7, 20))
    difference = paired_bootstrap(same, same, 20)
    assert difference.value == 0
    assert difference.low == -difference.high
    assert difference.high == pytest.approx(0.161, abs=0.001)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    first = np.array([True] * only_first + [False] * only_second + [True, False], dtype=np.bool_)
    second = np.array([False] * only_first + [True] * only_second + [True, False], dtype=np.bool_)
    trials = only_first + only_second
    expected = binomtest(only_first, trials).pvalue if trials else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-6)


def test_one_seed_is_a_bootstrap_of_rows():
    values = bernoulli(0.8, 500).astype(np.float64)
    found, rows = bootstrap_seeds(values[None]), bootstrap(mean_metric(values), 500)
    assert found.value == rows.value
    assert found.low == pytest.approx(rows.low, abs=0.01)


def test_seeds_that_disagree_widen_the_interval():
    calm = np.stack([bernoulli(0.8, 500, seed=s) for s in range(5)]).astype(np.float64)
    wild = np.stack([bernoulli(share, 500, seed=9) for share in (0.6, 0.7, 0.8, 0.9, 1.0)]).astype(np.float64)

    def width(found: Interval) -> float:
        return found.high - found.low

    assert width(bootstrap_seeds(wild)) > 2 * width(bootstrap_seeds(calm))


def test_two_seeds_have_their_full_variance():
    """Values that depend on the seed alone: a draw of 2 of 2 seeds has half the unbiased variance, unless stretched."""
    values = np.repeat([[0.4], [0.6]], 300, axis=1)
    found = bootstrap_seeds(values)
    assert (found.low, found.value, found.high) == pytest.approx((0.5 - 0.1 * 2**0.5, 0.5, 0.5 + 0.1 * 2**0.5))


def test_seeds_that_are_all_right_are_not_certain():
    assert bootstrap_seeds(np.ones((3, 20))).low == pytest.approx(0.839, abs=0.001)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_interval_covers_the_truth_in_about_95_of_100_samples(share):
    held = 0
    for seed in range(300):
        found = bootstrap(mean_metric(bernoulli(share, 100, seed)), 100, resamples=200, seed=seed)
        held += found.low <= share <= found.high
    assert 0.89 <= held / 300 <= 0.99


def test_no_rows_no_interval():
    with pytest.raises(DataError, match="of 0 rows"):
        bootstrap(mean_metric(np.zeros(0)), 0)
    with pytest.raises(DataError, match="of 0 rows"):
        wilson(1.0, 0)
    with pytest.raises(DataError, match="of 0 rows"):
        bootstrap_seeds(np.zeros((2, 0)))
