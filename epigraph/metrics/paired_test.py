"""Paired tests: Holm against its definition, intervals that widen with seeds, differences that are paired."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigraph.errors import DataError, Unsupported
from epigraph.metrics import mcnemar, mean_metric
from epigraph.metrics.paired import (
    holm,
    mcnemar_seeds,
    resample,
    row_metric,
    seeded_difference,
    seeded_interval,
)

RIGHT = np.random.default_rng(0).random((3, 200)) < 0.8


def draws(rows: np.ndarray, seed: int = 0) -> object:
    return resample([mean_metric(one) for one in rows], rows.shape[1], resamples=500, seed=seed)


def test_holm_is_what_the_paper_says() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 or a == 1 for p, a in zip(p_values, adjusted, strict=True))
    by_p = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)


def test_seeds_that_differ_widen_the_interval() -> None:
    same = np.stack([RIGHT[0]] * 3)
    apart = np.stack([RIGHT[0], RIGHT[0] & RIGHT[1], RIGHT[0] | RIGHT[1]])
    narrow, wide = seeded_interval(draws(same)), seeded_interval(draws(apart))
    assert wide.high - wide.low > narrow.high - narrow.low
    assert narrow.low <= narrow.value <= narrow.high


def test_a_method_beside_itself_does_not_differ() -> None:
    found = seeded_difference(draws(RIGHT), draws(RIGHT))
    assert found.value == 0
    assert found.p == 1
    assert found.low < 0 < found.high


def test_pairing_sees_what_two_intervals_do_not() -> None:
    """A method that is right wherever the other is, and on ten rows more, differs; unpaired intervals overlap."""
    first, second = RIGHT[:1], RIGHT[:1].copy()
    second[0, np.flatnonzero(~first[0])[:10]] = True
    found = seeded_difference(draws(first), draws(second))
    assert found.low > 0
    assert found.p < 0.01
    assert seeded_interval(draws(first)).high > seeded_interval(draws(second)).low


def test_one_seed_stands_beside_each_of_several() -> None:
    found = seeded_difference(draws(RIGHT[:1]), draws(RIGHT))
    assert found.value == pytest.approx(RIGHT.mean() - RIGHT[0].mean())


def test_different_rows_are_refused() -> None:
    with pytest.raises(DataError, match="different rows"):
        seeded_difference(draws(RIGHT), draws(RIGHT[:, :50]))
    with pytest.raises(DataError, match="0 rows"):
        resample([], 0)


def test_several_seeds_mcnemar_is_twice_the_median() -> None:
    other = np.random.default_rng(1).random((3, 200)) < 0.6
    each = sorted(mcnemar(a, b) for a, b in zip(RIGHT, other, strict=True))
    assert mcnemar_seeds(RIGHT, other) == pytest.approx(min(1, 2 * each[1]))
    assert mcnemar_seeds(RIGHT[:1], other[:1]) == mcnemar(RIGHT[0], other[0])


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "exact_match", "rouge_l", "bleu"])
def test_every_metric_can_be_resampled(name: str) -> None:
    truth = ["a b c d e", "f g h i j"]
    metric = row_metric(name, truth, truth, [(t,) for t in truth])
    assert metric(np.arange(2)[None])[0] == pytest.approx(1)
    with pytest.raises(Unsupported, match="'kappa' cannot be compared"):
        row_metric("kappa", truth, truth, [])
