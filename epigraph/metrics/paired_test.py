"""Paired tests: Holm against its definition, intervals that widen with seeds, differences that are paired."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigraph.errors import DataError, Unsupported
from epigraph.metrics import mcnemar, mean_absolute_error, mean_metric, micro_f1, quadratic_kappa, sets_metric, token_f1
from epigraph.metrics.paired import (
    RESAMPLED,
    bounds,
    check_metric,
    holm,
    mcnemar_seeds,
    mean_difference,
    resample,
    resamples_for,
    row_metric,
    seeded_difference,
    seeded_interval,
)
from epigraph.tasks.kinds import KINDS_OF_TASK

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


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "exact_match", "rouge_l", "bleu", "token_f1"])
def test_every_metric_of_labels_and_texts_can_be_resampled(name: str) -> None:
    truth = ["a b c d e", "f g h i j"]
    metric = row_metric(name, truth, truth, [(t,) for t in truth])
    assert metric(np.arange(2)[None])[0] == pytest.approx(1)
    with pytest.raises(Unsupported, match="'kappa' cannot be compared"):
        row_metric("kappa", truth, truth, [])


def test_no_metric_that_a_task_can_have_loses_the_report() -> None:
    """token_f1, micro_f1, subset_accuracy, mae and quadratic_kappa were found missing after all cells had run."""
    for kind in KINDS_OF_TASK.values():
        for name in kind.metrics:
            check_metric(name)
    assert "expected_calibration_error" not in RESAMPLED
    with pytest.raises(Unsupported, match="'perplexity' cannot be compared"):
        check_metric("perplexity")


def test_resampled_metrics_are_those_that_scores_have() -> None:
    scale, truth, given = ["low", "mid", "high"], ["low", "high", "mid", "low"], ["mid", "high", "low", "low"]
    every = np.arange(4)[None]
    for name, slow in (("mae", mean_absolute_error), ("quadratic_kappa", quadratic_kappa)):
        assert row_metric(name, truth, given, [], scale)(every)[0] == pytest.approx(slow(truth, given, scale))
    said, wanted = ["a cat sat", "no"], [("the cat",), ("yes", "no way")]
    assert row_metric("token_f1", [], said, wanted)(np.arange(2)[None])[0] == pytest.approx(token_f1(said, wanted))
    sets, predicted = [("a", "b"), (), ("b",)], [("b", "a"), ("a",), ("b",)]
    assert sets_metric("micro_f1", sets, predicted)(np.arange(3)[None])[0] == pytest.approx(micro_f1(sets, predicted))
    assert sets_metric("subset_accuracy", sets, predicted)(np.arange(3)[None])[0] == pytest.approx(2 / 3)


def test_an_error_in_ranks_is_not_cut_off_at_one() -> None:
    far = resample([mean_metric(np.array([3.0, 4.0, 2.0, 4.0]))], 4, resamples=200)
    least, most = bounds("mae", 5)
    found = seeded_interval(far, least=least, most=most)
    assert (found.value, most) == (3.25, 4.0)
    assert 2 <= found.low < 3.25 < found.high <= 4
    never = seeded_interval(resample([mean_metric(np.full(8, 4.0))], 8, resamples=50), least=least, most=most)
    assert never.low < never.value == never.high == 4


def test_many_methods_can_still_differ_significantly() -> None:
    """The least p of 4,000 resamples, times 105 pairs of 15 methods, was .0525: nothing could ever be significant."""
    assert resamples_for(3) == 4000
    for methods in (11, 15, 40):
        pairs = methods * (methods - 1) // 2
        assert holm([2 / (resamples_for(pairs) + 1)] * pairs)[0] < 0.05


def test_the_mean_over_several_sets_is_surer_than_each() -> None:
    """Every set's rows are drawn by themselves, so that what is chance in one averages out over several."""
    pairs = [(draws(RIGHT[:1], seed=n), draws(RIGHT[1:2], seed=n)) for n in range(4)]
    one, all_of_them = mean_difference(pairs[:1]), mean_difference(pairs)
    assert one == seeded_difference(*pairs[0])
    assert all_of_them.value == pytest.approx(one.value)
    assert all_of_them.high - all_of_them.low < 0.7 * (one.high - one.low)
    with pytest.raises(DataError, match="different rows"):
        mean_difference([(draws(RIGHT), draws(RIGHT[:, :100]))])
