"""Scores of labels with an order: C labels from lowest to highest, N rows; y, p = ranks of truth and prediction, 0 … C−1.

    mean absolute error       mean over rows of |y − p|, in ranks: 0 is best, C − 1 is worst
    quadratic weighted kappa  1 − Σ (y − p)² / expected Σ (y − p)² if truth and predictions were independent, −1 to 1

Source: Cohen 1968 (https://doi.org/10.1037/h0026256), as scikit-learn's ``cohen_kappa_score(weights="quadratic")``.
Differs: where truth or predictions never vary and nothing can be expected, kappa is 0 (scikit-learn: nan). A label of the
test rows that was never trained has no rank: it counts as the end of the scale that is farther from the prediction.
"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from jaxtyping import Float, Int

from epigraph.metrics.classification import score_classification
from epigraph.metrics.intervals import Metric, bootstrap, mean_metric


def mean_absolute_error(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> float:
    """Mean distance in ranks."""
    y, p = ranks(truth, predicted, labels)
    return float(np.abs(y - p).mean())


def quadratic_kappa(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> float:
    """Agreement beyond chance, where far disagreement weighs more."""
    return float(kappa_metric(*ranks(truth, predicted, labels))(np.arange(len(truth))[None])[0])


def ranks(
    truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """The ranks of truth and predictions."""
    rank = {label: i for i, label in enumerate(labels)}
    top = len(labels) - 1
    p = np.array([rank[label] for label in predicted], dtype=np.int64)
    farther = np.where(p > top - p, 0, top)
    y = np.array([rank.get(label, end) for label, end in zip(truth, farther.tolist(), strict=True)], dtype=np.int64)
    return y, p


def kappa_metric(y: Int[np.ndarray, " N"], p: Int[np.ndarray, " N"]) -> Metric:
    """Kappa for `bootstrap`: E (y − p)² of independent y and p is var y + var p + (mean y − mean p)²."""

    def metric(index: Int[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
        a, b = y[index].astype(np.float64), p[index].astype(np.float64)
        expected = a.var(axis=1) + b.var(axis=1) + (a.mean(axis=1) - b.mean(axis=1)) ** 2
        found = ((a - b) ** 2).mean(axis=1)
        return np.where(expected > 0, 1 - found / np.where(expected > 0, expected, 1.0), 0.0)

    return metric


def score_ordinal(
    truth: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    probabilities: Float[np.ndarray, "N C"] | None = None,
    *,
    seed: int = 0,
) -> dict[str, object]:
    """The scores as JSON holds them: those of a classification, and the two that know the order."""
    y, p = ranks(truth, predicted, labels)
    rows = len(truth)
    error = bootstrap(mean_metric(np.abs(y - p).astype(np.float64)), rows, seed=seed, most=float(len(labels) - 1))
    kappa = bootstrap(kappa_metric(y, p), rows, seed=seed, least=-1.0)
    scores = score_classification(truth, predicted, labels, probabilities, seed=seed)
    return {"accuracy": scores.pop("accuracy"), "mae": asdict(error), "quadratic_kappa": asdict(kappa), **scores}
