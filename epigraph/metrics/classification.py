"""Scores of classification: C labels, N rows.

    accuracy      share of rows with predicted = truth
    F1 of c       2 TP / (rows of c + predictions of c);   macro-F1 = mean over all c that occur in truth or predictions
    ECE           Σ_bins |Σ_{rows in bin} (right − confidence)| / N,   15 bins of equal width over max probability

Sources: scikit-learn's definitions (https://scikit-learn.org/stable/modules/model_evaluation.html); Guo et al. 2017,
equation 3, https://arxiv.org/abs/1706.04599.

A label of the test rows that was never trained can't be predicted: its rows count as wrong everywhere, in macro-F1 too.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from epigraph.errors import DataError
from epigraph.metrics.intervals import Metric, bootstrap, wilson

BINS = 15


@dataclass(frozen=True)
class Confusion:
    """counts[i, j] = rows of labels[i] that were predicted as labels[j]."""

    labels: tuple[str, ...]
    counts: Int[np.ndarray, "C C"]


@dataclass(frozen=True)
class ClassScore:
    """One label's scores. ``rows`` is how often it is the truth; a share of nothing is 0."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


def accuracy(truth: Sequence[str], predicted: Sequence[str]) -> float:
    """Share of rows whose prediction is the truth."""
    return float(right(truth, predicted).mean())


def macro_f1(truth: Sequence[str], predicted: Sequence[str]) -> float:
    """Mean F1 of the labels that occur in truth or predictions, each with the same weight."""
    return float(macro_f1_metric(truth, predicted)(np.arange(len(truth))[None])[0])


def right(truth: Sequence[str], predicted: Sequence[str]) -> Bool[np.ndarray, " N"]:
    """Which rows are predicted right: what `mcnemar` and `mean_metric` take."""
    _check_lengths(truth, predicted)
    return np.fromiter((t == p for t, p in zip(truth, predicted, strict=True)), dtype=np.bool_, count=len(truth))


def majority_share(truth: Sequence[str]) -> float:
    """Share of the most frequent label: the accuracy of always answering it."""
    _check_lengths(truth, truth)
    return max(Counter(truth).values()) / len(truth)


def confusion(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Confusion:
    """Count truth (rows) against predictions (columns).

    Labels outside ``labels``, such as a test label never trained, get a row and a column of their own after the others.
    """
    _check_lengths(truth, predicted)
    names = tuple(dict.fromkeys([*labels, *truth, *predicted]))
    t, p = _encode(truth, names), _encode(predicted, names)
    counts = np.bincount(t * len(names) + p, minlength=len(names) ** 2)
    return Confusion(names, counts.reshape(len(names), len(names)))


def per_class(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> list[ClassScore]:
    """Precision, recall, F1 and rows of every label, in the order of `confusion`."""
    table = confusion(truth, predicted, labels)
    hits = np.diagonal(table.counts)
    rows, columns = table.counts.sum(axis=1), table.counts.sum(axis=0)
    return [
        ClassScore(label, _share(hit, column), _share(hit, row), _share(2 * hit, row + column), row)
        for label, hit, row, column in zip(table.labels, hits.tolist(), rows.tolist(), columns.tolist(), strict=True)
    ]


def expected_calibration_error(
    probabilities: Float[np.ndarray, "N C"], truth: Int[np.ndarray, " N"], bins: int = BINS
) -> float:
    """How far confidence is from accuracy. ``truth`` holds columns of probabilities, −1 = label never trained."""
    return float(calibration_metric(probabilities, truth, bins)(np.arange(len(truth))[None])[0])


def macro_f1_metric(truth: Sequence[str], predicted: Sequence[str]) -> Metric:
    """Macro-F1 for `bootstrap`. In a resample, as in scikit-learn, only the labels that occur in it are averaged."""
    _check_lengths(truth, predicted)
    names = tuple(dict.fromkeys([*truth, *predicted]))
    t, p = _encode(truth, names), _encode(predicted, names)
    hit = np.where(t == p, t, len(names))  # wrong rows fall into a column that is dropped

    def metric(index: Int[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
        hits = _count(hit[index], len(names) + 1)[:, :-1]
        seen = _count(t[index], len(names)) + _count(p[index], len(names))
        f1 = 2 * hits / np.maximum(seen, 1)
        return np.asarray(f1.sum(axis=1) / (seen > 0).sum(axis=1), dtype=np.float64)

    return metric


def calibration_metric(probabilities: Float[np.ndarray, "N C"], truth: Int[np.ndarray, " N"], bins: int = BINS) -> Metric:
    """Expected calibration error for `bootstrap`. Resamples of few rows lie above the value: noise counts as error."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    gap = (probabilities.argmax(axis=1) == truth) - confidence
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # bin m is ((m-1)/M, m/M]

    def metric(index: Int[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
        sums = _count(place[index], bins, weights=gap[index])
        return np.asarray(np.abs(sums).sum(axis=1) / index.shape[1], dtype=np.float64)

    return metric


def score_classification(
    truth: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    probabilities: Float[np.ndarray, "N C"] | None = None,
    *,
    seed: int = 0,
) -> dict[str, object]:
    """The scores of a classification as JSON holds them; the caller adds the split.

    ``labels`` names the columns of ``probabilities``. Intervals cover the test rows only, not the training seed: Wilson's
    for accuracy, which is a share, and 1,000 resamples for the others. Without probabilities there is no calibration error.
    """
    rows = len(truth)
    scores: dict[str, object] = {
        "accuracy": asdict(wilson(accuracy(truth, predicted), rows)),
        "macro_f1": asdict(bootstrap(macro_f1_metric(truth, predicted), rows, seed=seed)),
    }
    if probabilities is not None:
        if probabilities.shape != (rows, len(labels)):
            raise DataError(
                f"There are probabilities of shape {probabilities.shape} for {rows} rows and {len(labels)} labels.",
                "Give one row of probabilities a row of data, with one column a label.",
            )
        column = {label: number for number, label in enumerate(labels)}
        index = np.array([column.get(label, -1) for label in truth], dtype=np.int64)
        scores["expected_calibration_error"] = asdict(bootstrap(calibration_metric(probabilities, index), rows, seed=seed))
    return {**scores, "rows": rows, "majority": majority_share(truth)}


def _encode(labels: Sequence[str], names: Sequence[str]) -> Int[np.ndarray, " N"]:
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[label] for label in labels], dtype=np.int64)


def _count(
    codes: Int[np.ndarray, "R N"], size: int, weights: Float[np.ndarray, "R N"] | None = None
) -> Float[np.ndarray, "R M"] | Int[np.ndarray, "R M"]:
    """Count (or sum the weights of) each code 0…size−1, in each resample apart."""
    draws = len(codes)
    flat = (codes + size * np.arange(draws)[:, None]).ravel()
    counts = np.bincount(flat, None if weights is None else weights.ravel(), minlength=draws * size)
    return np.asarray(counts).reshape(draws, size)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _check_lengths(truth: Sequence[str], predicted: Sequence[str]) -> None:
    if len(truth) == 0:
        raise DataError("A score was asked for, of 0 rows.", "Give at least one labelled row to score on.")
    if len(truth) != len(predicted):
        raise DataError(
            f"A score was asked for {len(truth)} true labels and {len(predicted)} predictions.", "Give one a row."
        )
