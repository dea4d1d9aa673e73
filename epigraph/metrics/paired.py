"""Methods against each other on the same rows: intervals over rows and seeds together, paired tests, Holm's correction.

    draw r: rows n₁…n_N with replacement, the same for all methods; seeds s₁…s_S with replacement
    value_r = mean over the drawn seeds of metric_s(drawn rows);   difference_r = value_r(second) − value_r(first)
    p = 2 · min(share of differences ≤ 0, share ≥ 0), at least 1 / (R + 1)
    Holm: p₍ᵢ₎ · (m − i + 1), made to rise with i, over m comparisons sorted by p

Sources: Efron & Tibshirani 1993, chapter 16; Holm 1979 (https://www.jstor.org/stable/4615733); several seeds' McNemar
tests share their rows, so their p-values are combined as twice their median, which holds whatever their dependence
(Rüger 1978; Vovk & Wang 2020, https://arxiv.org/abs/1212.4966).
Differs: each seed's deviation from the mean is first stretched by √(S/(S−1)), as in ``intervals.bootstrap_seeds``. A method
that no seed changes has one result, and stands beside each seed of the other.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from epigraph.errors import DataError, Unsupported
from epigraph.metrics.classification import macro_f1_metric, right
from epigraph.metrics.generation import bleu_metric, matches, rouge_l_rows, token_f1_rows
from epigraph.metrics.intervals import CHUNK, Interval, Metric, mcnemar, mean_metric, wilson
from epigraph.metrics.ordinal import kappa_metric, ranks

RESAMPLES = 4000
RESAMPLES_A_PAIR = 100  # p = 2 / (R + 1), the least there is, times the pairs: .02 where Holm corrects for all of them


@dataclass(frozen=True)
class Draws:
    """A method's metric on all rows and on R resamples of them, for each of its S seeds."""

    values: Float[np.ndarray, " S"]
    draws: Float[np.ndarray, "S R"]
    rows: int

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return float(self.values.mean())


@dataclass(frozen=True)
class Difference:
    """second − first, its 95% interval, and the p-value of "no difference"."""

    value: float
    low: float
    high: float
    p: float


RESAMPLED = frozenset(
    {
        *("accuracy", "macro_f1", "mae", "quadratic_kappa"),
        *("micro_f1", "subset_accuracy"),
        *("exact_match", "rouge_l", "bleu", "token_f1"),
    }
)
"""The metrics that methods can be compared by: those whose value on any rows follows from the answers to them."""


def check_metric(name: str) -> None:
    """Unsupported if methods cannot be compared by this metric."""
    if name not in RESAMPLED:
        raise Unsupported(f"metric {name!r} cannot be compared row by row yet.", "Set another metric in the task TOML.")


def row_metric(
    name: str,
    truth: Sequence[str],
    predicted: Sequence[str],
    references: Sequence[Sequence[str]],
    labels: Sequence[str] = (),
) -> Metric:
    """The metric of this name for resampling; ``labels``, from lowest to highest, are needed by those that know the order.

    Unsupported if it has none. Metrics of sets of labels are those of ``label_sets.sets_metric``.
    """
    if name == "mae" and labels:
        y, p = ranks(truth, predicted, labels)
        return mean_metric(np.abs(y - p).astype(np.float64))
    if name == "quadratic_kappa" and labels:
        return kappa_metric(*ranks(truth, predicted, labels))
    if name == "token_f1":
        return mean_metric(token_f1_rows(predicted, references))
    if name == "accuracy":
        return mean_metric(right(truth, predicted))
    if name == "macro_f1":
        return macro_f1_metric(truth, predicted)
    if name == "exact_match":
        return mean_metric(matches(predicted, references))
    if name == "rouge_l":
        return mean_metric(rouge_l_rows(predicted, references))
    if name == "bleu":
        return bleu_metric(predicted, references)
    raise Unsupported(f"metric {name!r} cannot be compared row by row yet.", "Set another metric in the task TOML.")


def resamples_for(pairs: int) -> int:
    """How many resamples let a difference be significant after Holm's correction over so many pairs."""
    return max(RESAMPLES, RESAMPLES_A_PAIR * pairs)


def bounds(metric: str, labels: int) -> tuple[float, float]:
    """The least and the most that a metric can be; ``labels`` is how many labels a scale has."""
    if metric == "mae":
        return 0.0, float(max(1, labels - 1))
    return (-1.0 if metric == "quadratic_kappa" else 0.0), 1.0


def resample(by_seed: Sequence[Metric], rows: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Draws:
    """The metric of every seed's answers on the same resampled rows; methods with equal ``rows`` and ``seed`` are paired."""
    if rows < 1 or not by_seed:
        raise DataError("methods were to be compared on 0 rows.", "Give at least one labelled row to score on.")
    generator = np.random.default_rng(seed)
    draws, step = np.empty((len(by_seed), resamples)), max(1, CHUNK // rows)
    for start in range(0, resamples, step):
        index = generator.integers(0, rows, size=(min(step, resamples - start), rows))
        for s, metric in enumerate(by_seed):
            draws[s, start : start + len(index)] = metric(index)
    every = np.arange(rows)[None]
    return Draws(np.array([float(metric(every)[0]) for metric in by_seed]), draws, rows)


def seeded_interval(found: Draws, *, seed: int = 0, least: float = 0.0, most: float = 1.0) -> Interval:
    """The 95% interval of the mean over rows and seeds, within the metric's bounds; Wilson's, stretched to them, where all
    resamples agree."""
    drawn = _over_seeds(found, seed)
    low, high = (float(bound) for bound in np.percentile(drawn, [2.5, 97.5]))
    value, span = found.value, most - least
    if low == high:
        share = wilson(min(max((value - least) / span, 0.0), 1.0), found.rows)
        low, high = least + span * share.low, least + span * share.high
    return Interval(value, min(value, max(low, least)), max(value, min(high, most)))


def seeded_difference(first: Draws, second: Draws, *, seed: int = 0, span: float = 1.0) -> Difference:
    """second − first on the same rows; methods with equally many seeds are paired seed by seed.

    ``span`` is the width of the metric's range: what no resample shows may still be that far from it.
    """
    return mean_difference([(first, second)], seed=seed, span=span)


def mean_difference(pairs: Sequence[tuple[Draws, Draws]], *, seed: int = 0, span: float = 1.0) -> Difference:
    """The mean of second − first over several sets of rows, each resampled by itself (``resample`` with a seed of its own)."""
    if any(a.draws.shape[1] != b.draws.shape[1] or a.rows != b.rows for a, b in pairs):
        raise DataError("two methods were compared on different rows.", "Score both on the same rows.")
    drawn = [_over_seeds(b, seed + n) - _over_seeds(a, seed + n) for n, (a, b) in enumerate(pairs)]
    both = np.mean(drawn, axis=0)
    value = statistics.fmean(b.value - a.value for a, b in pairs)
    low, high = (float(bound) for bound in np.percentile(both, [2.5, 97.5]))
    if low == high:
        unseen = span * wilson(0.0, sum(a.rows for a, _ in pairs)).high
        low, high = value - unseen, value + unseen
    tail = min(int((both <= 0).sum()), int((both >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (len(both) + 1))
    return Difference(value, min(value, low), max(value, high), p)


def mcnemar_seeds(first: Bool[np.ndarray, "S N"], second: Bool[np.ndarray, "Z N"]) -> float:
    """McNemar's exact p-value; of several seeds twice the median of theirs."""
    seeds = max(len(first), len(second))
    found = [mcnemar(first[s % len(first)], second[s % len(second)]) for s in range(seeds)]
    return found[0] if seeds == 1 else min(1.0, 2 * statistics.median(found))


def holm(p_values: Sequence[float]) -> list[float]:
    """The same p-values corrected for being so many: below α only where the family's chance of any false one is."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, (len(p_values) - rank) * p_values[place])
        adjusted[place] = min(1.0, worst)
    return adjusted


def _over_seeds(found: Draws, seed: int) -> Float[np.ndarray, " R"]:
    """The mean over seeds drawn anew for every resample; the same seeds for every method that has as many."""
    seeds, resamples = found.draws.shape
    if seeds == 1:
        return np.asarray(found.draws[0])
    stretch = math.sqrt(seeds / (seeds - 1)) - 1
    stretched = found.draws + ((found.values - found.values.mean()) * stretch)[:, None]
    chosen = np.random.default_rng((seed, seeds)).integers(0, seeds, size=(resamples, seeds))
    return np.asarray(np.take_along_axis(stretched.T, chosen, axis=1).mean(axis=1))
