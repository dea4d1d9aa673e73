"""95% intervals of scores, and tests of differences.

    bootstrap   draw N of the N rows with replacement, R times; low, high = the 2.5th and 97.5th percentile of metric(draw)
    Wilson      (p + z²/2N ± z √(p(1−p)/N + z²/4N²)) / (1 + z²/N),   z = 1.96, for a share p of N rows
    McNemar     p = 2 · P[Binomial(b + c, ½) ≤ min(b, c)],   b, c = rows that only one of the two got right

Sources: Efron & Tibshirani 1993, chapter 13; Wilson 1927, recommended for shares at every N by Brown, Cai & DasGupta 2001
(https://doi.org/10.1214/ss/1009213286); McNemar 1947 in its exact form (Dietterich 1998, section 3.1).

A metric here is vectorised over resamples: it maps row indices [R, N] to values [R], so that 1,000 resamples cost a few
array operations.

Differs: where every resample gives the same value (all rows right, one row), the percentile bootstrap would claim certainty.
We then take the Wilson interval of that value over N rows: a score in [0, 1] with mean p varies at most as a share p does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from epigraph.errors import DataError

Z = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""

CHUNK = 1 << 21
"""Indices held at once, so that a large test set does not cost 8 · R · N bytes."""

Metric = Callable[[Int[np.ndarray, "R N"]], Float[np.ndarray, " R"]]


@dataclass(frozen=True)
class Interval:
    """A score and the bounds of its 95% interval; always low ≤ value ≤ high."""

    value: float
    low: float
    high: float


def wilson(value: float, rows: int) -> Interval:
    """The Wilson interval of a share ``value`` of ``rows`` rows. Never a point, and never outside [0, 1]."""
    _check_rows(rows)
    spread = Z * math.sqrt(value * (1 - value) / rows + Z**2 / (4 * rows**2))
    middle = value + Z**2 / (2 * rows)
    scale = 1 + Z**2 / rows
    return _around(value, (middle - spread) / scale, (middle + spread) / scale)


def bootstrap(
    metric: Metric, rows: int, *, resamples: int = 1000, seed: int = 0, least: float = 0.0, most: float = 1.0
) -> Interval:
    """The percentile interval of a metric with values in [least, most]; Wilson's, stretched to them, where all resamples
    agree.

    The interval is widened to hold the value itself, which a metric that is biased in resamples can leave outside.
    """
    value, draws = _draws(metric, rows, resamples, seed)
    low, high = _percentiles(draws)
    if low != high:
        return _around(value, low, high, least, most)
    span = most - least
    share = wilson(min(max((value - least) / span, 0.0), 1.0), rows)
    return _around(value, least + span * share.low, least + span * share.high, least, most)


def paired_bootstrap(first: Metric, second: Metric, rows: int, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """The interval of second − first, both on the same resampled rows. One without 0 is more than the chance of the rows.

    Where all resamples agree (the methods never differ), the bounds are the value ± Wilson's upper bound for 0 of N rows.
    """
    value, draws = _draws(lambda index: second(index) - first(index), rows, resamples, seed)
    low, high = _percentiles(draws)
    if low == high:
        unseen = wilson(0.0, rows).high
        low, high = value - unseen, value + unseen
    return _around(value, low, high, least=-1.0)


def bootstrap_seeds(values_by_seed: Float[np.ndarray, "S N"], *, resamples: int = 1000, seed: int = 0) -> Interval:
    """The interval of a mean over S training seeds and N test rows, both resampled together.

    value[s, n] in [0, 1] is the score of row n under seed s. A draw takes S seeds and N rows with replacement. Drawing S of
    S seeds understates their variance by (S−1)/S, much for 2 or 3 seeds, so each seed's deviation from the mean is first
    stretched by √(S/(S−1)). One seed: rows only.
    """
    seeds, rows = values_by_seed.shape
    _check_rows(min(seeds, rows))
    value = float(values_by_seed.mean())
    deviation = values_by_seed.mean(axis=1, keepdims=True) - value
    stretched = values_by_seed + deviation * (math.sqrt(seeds / (seeds - 1)) - 1 if seeds > 1 else 0.0)
    generator = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for part in _chunks(resamples, rows):
        size = part.stop - part.start
        by_row = resample_counts(generator.integers(0, seeds, size=(size, seeds)), seeds) @ stretched / seeds
        weights = resample_counts(generator.integers(0, rows, size=(size, rows)), rows)
        draws[part] = (by_row * weights).sum(axis=1) / rows
    low, high = _percentiles(draws)
    return wilson(value, rows) if low == high else _around(value, low, high)


def mcnemar(first_right: Bool[np.ndarray, " N"], second_right: Bool[np.ndarray, " N"]) -> float:
    """The two-sided p-value of "both methods are right equally often", from the rows on which they differ."""
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    trials = only_first + only_second
    fewer = np.arange(min(only_first, only_second))
    log_choose = np.concatenate([[0.0], np.cumsum(np.log((trials - fewer) / (fewer + 1)))])
    return min(1.0, 2.0 * float(np.exp(log_choose - trials * math.log(2)).sum()))


def mean_metric(values: Float[np.ndarray, " N"] | Bool[np.ndarray, " N"]) -> Metric:
    """The metric "mean of these values of rows": accuracy, exact match, ROUGE-L."""
    return lambda index: values[index].mean(axis=1, dtype=np.float64)


def resample_counts(index: Int[np.ndarray, "R N"], rows: int) -> Float[np.ndarray, "R M"]:
    """How often each of ``rows`` rows was drawn in each resample: what turns sums over draws into one product."""
    draws = len(index)
    flat = index + rows * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=draws * rows).reshape(draws, rows).astype(np.float64)


def _draws(metric: Metric, rows: int, resamples: int, seed: int) -> tuple[float, Float[np.ndarray, " R"]]:
    """The metric on all rows, and on each resample."""
    _check_rows(rows)
    generator = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for part in _chunks(resamples, rows):
        draws[part] = metric(generator.integers(0, rows, size=(part.stop - part.start, rows)))
    return float(metric(np.arange(rows)[None])[0]), draws


def _chunks(resamples: int, rows: int) -> list[slice]:
    step = max(1, CHUNK // rows)
    return [slice(start, min(start + step, resamples)) for start in range(0, resamples, step)]


def _percentiles(draws: Float[np.ndarray, " R"]) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _around(value: float, low: float, high: float, least: float = 0.0, most: float = 1.0) -> Interval:
    """Bounds inside [least, most] that hold the value."""
    return Interval(value, min(value, max(low, least)), max(value, min(high, most)))


def _check_rows(rows: int) -> None:
    if rows < 1:
        raise DataError("A score was asked for, of 0 rows.", "Give at least one labelled row to score on.")
