"""How well answers of any kind of task are: the task's own metric for resampling, turned so that higher is better.

    classification   accuracy | macro-F1            ordinal      the same | closeness = 1 − mean |y − p| / (C − 1) | κ, quadratic weights
    choice           accuracy                       multilabel   subset accuracy | micro-F1 | macro-F1
    generation       exact match | ROUGE-L | token F1 | BLEU

Answers are what ``methods/judge.py`` reads off: a label, a choice or a text, or the tuple of a row's labels.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from epigraph import metrics
from epigraph.methods import judge
from epigraph.methods.judge import Answer
from epigraph.metrics import Metric
from epigraph.metrics.intervals import resample_counts
from epigraph.metrics.ordinal import kappa_metric
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

NOTHING = "(none)"
NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "subset_accuracy": "subset accuracy",
    "mae": "closeness (1 − mean distance / largest)",
    "quadratic_kappa": "quadratic κ",
    "exact_match": "exact match",
    "rouge_l": "ROUGE-L",
    "token_f1": "token F1",
    "bleu": "BLEU",
}


def said(answer: Answer) -> str:
    """An answer in words; several labels as a list."""
    return answer if isinstance(answer, str) else ", ".join(answer) or NOTHING


def truth_of(row: Row) -> Answer:
    """What is right: a label, a choice or an output, or a row's labels."""
    return row.labels if row.labels or row.target == "" else row.target or ""


def is_right(row: Row, answer: Answer) -> bool:
    """Whether an answer is exactly right; of several labels, whether all are and no other."""
    return answer == row.target if isinstance(answer, str) else set(answer) == set(row.labels)


def metric_of(task: Task, rows: Sequence[Row], given: Sequence[Answer]) -> Metric:
    """The task's metric of these answers, for resampling."""
    if not task.knows_labels or task.has_labels:
        return _METRICS[task.metric](task, rows, [str(one) for one in given])
    sets = [set(one) for one in given]
    if task.metric == "subset_accuracy":
        return metrics.exact_metric([row.labels for row in rows], sets)
    return _set_f1([row.labels for row in rows], sets, micro=task.metric == "micro_f1")


def least(task: Task) -> float:
    """The lowest value the metric can have."""
    return -1.0 if task.metric == "quadratic_kappa" else 0.0


def likelihood(task: Task, row: Row, answer: Answer, probabilities: np.ndarray) -> float:
    """The probability of an answer; of several labels, the geometric mean of the verdicts on each."""
    if isinstance(answer, str):
        names = list(row.choices or task.labels)
        return float(probabilities[names.index(answer)])
    verdicts = [p if name in answer else 1 - p for name, p in zip(task.labels, probabilities, strict=True)]
    return float(np.exp(np.log(np.maximum(verdicts, 1e-12)).mean()))


_Made = Callable[[Task, Sequence[Row], Sequence[str]], Metric]


def _accuracy(_task: Task, rows: Sequence[Row], given: Sequence[str]) -> Metric:
    return metrics.mean_metric(metrics.right(judge.truth_of(rows), given))


def _macro_f1(_task: Task, rows: Sequence[Row], given: Sequence[str]) -> Metric:
    return metrics.macro_f1_metric(judge.truth_of(rows), given)


def _closeness(task: Task, rows: Sequence[Row], given: Sequence[str]) -> Metric:
    y, p = metrics.ranks(judge.truth_of(rows), given, list(task.labels))
    return metrics.mean_metric(1 - np.abs(y - p) / max(1, len(task.labels) - 1))


def _kappa(task: Task, rows: Sequence[Row], given: Sequence[str]) -> Metric:
    return kappa_metric(*metrics.ranks(judge.truth_of(rows), given, list(task.labels)))


def _by_row(score: Callable[..., np.ndarray]) -> _Made:
    return lambda _task, rows, given: metrics.mean_metric(
        np.asarray(score(given, judge.references_of(rows)), dtype=np.float64)
    )


def _bleu(_task: Task, rows: Sequence[Row], given: Sequence[str]) -> Metric:
    return metrics.bleu_metric(given, judge.references_of(rows))


_METRICS: Mapping[str, _Made] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "mae": _closeness,
    "quadratic_kappa": _kappa,
    "exact_match": _by_row(metrics.matches),
    "rouge_l": _by_row(metrics.rouge_l_rows),
    "token_f1": _by_row(metrics.token_f1_rows),
    "bleu": _bleu,
}


def _set_f1(truth: Sequence[Sequence[str]], given: Sequence[set[str]], *, micro: bool) -> Metric:
    """2 TP / (labels true + labels given), counted over all labels together or label by label."""
    names = sorted({label for labels in (*truth, *given) for label in labels})
    t, p = metrics.set_marks(truth, names), metrics.set_marks(given, names)
    hits, seen = (t & p).astype(np.float64), t.astype(np.float64) + p
    if micro:
        hits, seen = hits.sum(1, keepdims=True), seen.sum(1, keepdims=True)

    def metric(index: np.ndarray) -> np.ndarray:
        drawn = resample_counts(index, len(hits))
        occurred = drawn @ seen
        f1 = 2 * (drawn @ hits) / np.maximum(occurred, 1)
        return np.asarray(f1.sum(1) / np.maximum((occurred > 0).sum(1), 1), dtype=np.float64)

    return metric
