"""Scores of sets of labels: any number of C labels a row, N rows.

    micro-F1          2 TP / (2 TP + FP + FN), all labels of all rows counted together
    macro-F1          mean over the labels that occur in truth or predictions of their F1
    subset accuracy   share of rows whose set is exactly right

Source: scikit-learn's definitions (https://scikit-learn.org/stable/modules/model_evaluation.html). A share of nothing is 0.
A label of the test rows that was never trained can't be predicted: it counts as missed everywhere.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict

import numpy as np
from jaxtyping import Bool, Float, Int

from epigraph.errors import DataError
from epigraph.metrics.classification import ClassScore
from epigraph.metrics.intervals import Metric, bootstrap, mean_metric, resample_counts, wilson

Sets = Sequence[Collection[str]]
Marks = Bool[np.ndarray, "N C"]


def set_marks(sets: Sets, names: Sequence[str]) -> Marks:
    """Which row has which label."""
    place = {name: i for i, name in enumerate(names)}
    found = np.zeros((len(sets), len(names)), dtype=np.bool_)
    for row, labels in enumerate(sets):
        found[row, [place[label] for label in labels]] = True
    return found


def micro_f1(truth: Sets, predicted: Sets) -> float:
    """F1 of all labels of all rows counted together."""
    return _value(_f1_metric(*_both(truth, predicted), micro=True), len(truth))


def macro_set_f1(truth: Sets, predicted: Sets) -> float:
    """Mean F1 of the labels that occur in truth or predictions."""
    return _value(_f1_metric(*_both(truth, predicted), micro=False), len(truth))


def subset_accuracy(truth: Sets, predicted: Sets) -> float:
    """Share of rows whose set is exactly right."""
    return float(_exact(truth, predicted).mean())


def best_constant(truth: Sets) -> float:
    """The best micro-F1 of always giving the same labels: the floor."""
    marks = set_marks(truth, _names(truth))
    counts = np.sort(marks.sum(axis=0))[::-1]
    given = np.arange(1, len(counts) + 1) * len(marks)
    return float((2 * counts.cumsum() / np.maximum(given + counts.sum(), 1)).max(initial=0.0))


def score_sets(truth: Sets, predicted: Sets, *, seed: int = 0) -> dict[str, object]:
    """The scores as JSON holds them; the caller adds the split. ``majority`` is the floor of micro-F1."""
    rows = len(truth)
    t, p = _both(truth, predicted)
    exact = wilson(subset_accuracy(truth, predicted), rows)
    return {
        "micro_f1": asdict(bootstrap(_f1_metric(t, p, micro=True), rows, seed=seed)),
        "macro_f1": asdict(bootstrap(_f1_metric(t, p, micro=False), rows, seed=seed)),
        "subset_accuracy": asdict(exact),
        "rows": rows,
        "majority": best_constant(truth),
    }


def per_label(truth: Sets, predicted: Sets, labels: Sequence[str]) -> list[ClassScore]:
    """Precision, recall, F1 and rows of every label; those never trained come after the others."""
    names = list(dict.fromkeys([*labels, *_names([*truth, *predicted])]))
    t, p = set_marks(truth, names), set_marks(predicted, names)
    hits, rows, given = (t & p).sum(axis=0).tolist(), t.sum(axis=0).tolist(), p.sum(axis=0).tolist()
    return [
        ClassScore(name, _share(hit, said), _share(hit, true), _share(2 * hit, true + said), true)
        for name, hit, true, said in zip(names, hits, rows, given, strict=True)
    ]


def exact_metric(truth: Sets, predicted: Sets) -> Metric:
    """Subset accuracy for `bootstrap`."""
    return mean_metric(_exact(truth, predicted))


def sets_metric(name: str, truth: Sets, predicted: Sets) -> Metric:
    """The metric of this name for `bootstrap`."""
    if name == "subset_accuracy":
        return exact_metric(truth, predicted)
    return _f1_metric(*_both(truth, predicted), micro=name == "micro_f1")


def exact_rows(truth: Sets, predicted: Sets) -> Bool[np.ndarray, " N"]:
    """Which rows' sets are exactly right."""
    return _exact(truth, predicted)


def best_threshold(marks: Marks, probabilities: Float[np.ndarray, "N C"], metric: str) -> tuple[float, float]:
    """The threshold on probabilities at which ``metric`` is best on these rows, and its value there.

    Tried are the middles between 0.02, 0.04 … 0.98 and 0.5; of equal ones the nearest to 0.5. The threshold that is best
    for F1 lies below 0.5, at half the best F1 where probabilities are calibrated: Lipton et al. 2014,
    https://arxiv.org/abs/1402.1892.
    """
    grid = np.unique(np.append(np.arange(0.01, 1.0, 0.02), 0.5))
    values = [set_value(marks, probabilities >= threshold, metric) for threshold in grid]
    best = max(range(len(grid)), key=lambda i: (values[i], -abs(grid[i] - 0.5)))
    return float(grid[best]), float(values[best])


def set_value(truth: Marks, predicted: Marks, metric: str) -> float:
    """One metric of sets given as marks."""
    if metric == "subset_accuracy":
        return float((truth == predicted).all(axis=1).mean())
    return _value(_f1_metric(truth, predicted, micro=metric == "micro_f1"), len(truth))


def _f1_metric(t: Marks, p: Marks, *, micro: bool) -> Metric:
    hits, seen = (t & p).astype(np.float64), t.astype(np.float64) + p
    if micro:
        hits, seen = hits.sum(axis=1, keepdims=True), seen.sum(axis=1, keepdims=True)

    def metric(index: Int[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
        drawn = resample_counts(index, len(hits))
        hit, occurred = drawn @ hits, drawn @ seen
        f1 = 2 * hit / np.maximum(occurred, 1)
        return np.asarray(f1.sum(axis=1) / np.maximum((occurred > 0).sum(axis=1), 1), dtype=np.float64)

    return metric


def _both(truth: Sets, predicted: Sets) -> tuple[Marks, Marks]:
    if not len(truth) or len(truth) != len(predicted):
        raise DataError(
            f"A score was asked for {len(truth)} true sets of labels and {len(predicted)} predictions.", "Give one a row."
        )
    names = _names([*truth, *predicted])
    return set_marks(truth, names), set_marks(predicted, names)


def _exact(truth: Sets, predicted: Sets) -> Bool[np.ndarray, " N"]:
    t, p = _both(truth, predicted)
    found: Bool[np.ndarray, " N"] = (t == p).all(axis=1)
    return found


def _names(sets: Sets) -> list[str]:
    return sorted({label for labels in sets for label in labels})


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _value(metric: Metric, rows: int) -> float:
    return float(metric(np.arange(rows)[None])[0])
