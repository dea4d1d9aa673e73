"""How the answers of every kind of task are read off a method and judged: one entry a kind in ``JUDGES``, the only list.

    probabilities | outputs ─ read ─► answers ─ value ─► the task's metric        ─ scores ─► all metrics with intervals

An answer is a label, a choice or an output as text, or the tuple of a row's labels. Of labels with an order the likeliest
is given, or, where the metric counts how far off an answer is (mae, quadratic_kappa), the median of their distribution: the
likeliest answer maximises the expected accuracy, the median minimises the expected absolute error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epigraph import metrics
from epigraph.methods.solver import Probabilities, Scorable
from epigraph.metrics.paired import check_metric, row_metric
from epigraph.tasks.kinds import Kind
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

Answer = str | tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """What a method answers to some rows; ``probabilities`` are None where it writes."""

    given: Sequence[Answer]
    probabilities: Probabilities | None = None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """One kind's way to read answers off and to judge them."""

    read: Callable[[Task, Sequence[Row], Probabilities], list[Answer]]
    value: Callable[[Task, Sequence[Row], Sequence[Any]], float]
    scores: Callable[[Task, Sequence[Row], Answers, int], dict[str, object]]


def answer(method: Scorable, rows: Sequence[Row]) -> Answers:
    """A method's answers to these rows."""
    if method.task.writes:
        return Answers(method.outputs(rows))
    return read(method.task, rows, method.probabilities(rows))


def read(task: Task, rows: Sequence[Row], probabilities: Probabilities) -> Answers:
    """The answers that these probabilities give."""
    return Answers(JUDGES[task.kind].read(task, rows, probabilities), probabilities)


def value(task: Task, rows: Sequence[Row], given: Sequence[Answer]) -> float:
    """The task's metric, turned so that higher is better."""
    return metrics.upward(task.metric, JUDGES[task.kind].value(task, rows, given))


def metric_of(task: Task, rows: Sequence[Row], given: Sequence[Any], name: str = "") -> metrics.Metric:
    """The task's metric (or the one of this name) of these answers on any of the rows: what resampling asks. Unsupported where
    answers alone do not make it."""
    name = name or task.metric
    check_metric(name)
    if task.knows_labels and not task.has_labels:
        return metrics.sets_metric(name, [row.labels for row in rows], given)
    return row_metric(name, truth_of(rows), given, references_of(rows), list(task.labels))


def scores(task: Task, rows: Sequence[Row], answers: Answers, seed: int) -> dict[str, object]:
    """All metrics of the task's kind, with intervals."""
    return JUDGES[task.kind].scores(task, rows, answers, seed)


def median(probabilities: Probabilities) -> Any:
    """The column at which each row's summed probabilities reach a half."""
    return (probabilities.cumsum(axis=1) < 0.5 - 1e-9).sum(axis=1).clip(max=probabilities.shape[1] - 1)


def truth_of(rows: Sequence[Row]) -> list[str]:
    """The right answers as texts."""
    return [row.target or "" for row in rows]


def references_of(rows: Sequence[Row]) -> list[Sequence[str]]:
    """The accepted outputs."""
    return [row.references or (row.target or "",) for row in rows]


# ---- one label -----------------------------------------------------------------------------------------------------------


def _read_label(task: Task, _rows: Sequence[Row], probabilities: Probabilities) -> list[Answer]:
    labels = list(task.labels)
    far_counts = task.metric in metrics.RANK_SCORES
    return [labels[i] for i in (median(probabilities) if far_counts else probabilities.argmax(1))]


def _label_value(task: Task, rows: Sequence[Row], given: Sequence[str]) -> float:
    if task.metric in metrics.RANK_SCORES:
        return metrics.RANK_SCORES[task.metric](truth_of(rows), given, list(task.labels))
    return float(metrics.LABEL_SCORES[task.metric](truth_of(rows), given))


def _label_scores(task: Task, rows: Sequence[Row], answers: Answers, seed: int) -> dict[str, object]:
    given = [str(label) for label in answers.given]
    return metrics.score_classification(truth_of(rows), given, list(task.labels), _exact(answers), seed=seed)


def _scale_scores(task: Task, rows: Sequence[Row], answers: Answers, seed: int) -> dict[str, object]:
    given = [str(label) for label in answers.given]
    return metrics.score_ordinal(truth_of(rows), given, list(task.labels), _exact(answers), seed=seed)


def _exact(answers: Answers) -> Any:
    return None if answers.probabilities is None else np.asarray(answers.probabilities, dtype=np.float64)


# ---- a row's own choices -------------------------------------------------------------------------------------------------


def _read_choice(_task: Task, rows: Sequence[Row], probabilities: Probabilities) -> list[Answer]:
    return [row.choices[int(p[: len(row.choices)].argmax())] for row, p in zip(rows, probabilities, strict=True)]


def _choice_value(_task: Task, rows: Sequence[Row], given: Sequence[str]) -> float:
    return metrics.accuracy(truth_of(rows), given)


def _choice_scores(_task: Task, rows: Sequence[Row], answers: Answers, seed: int) -> dict[str, object]:
    """Accuracy; the floor is to answer always in the same place."""
    truth, given = truth_of(rows), [str(one) for one in answers.given]
    places = [str(row.choices.index(one)) if one in row.choices else "" for row, one in zip(rows, truth, strict=True)]
    scores = metrics.score_classification(truth, given, sorted({*truth, *given}), seed=seed)
    return {"accuracy": scores["accuracy"], "rows": scores["rows"], "majority": metrics.majority_share(places)}


# ---- sets of labels ------------------------------------------------------------------------------------------------------


def _read_set(task: Task, _rows: Sequence[Row], probabilities: Probabilities) -> list[Answer]:
    labels = list(task.labels)
    return [tuple(label for label, p in zip(labels, row, strict=True) if p >= task.threshold) for row in probabilities]


def _set_value(task: Task, rows: Sequence[Row], given: Sequence[Sequence[str]]) -> float:
    return float(metrics.SET_SCORES[task.metric]([row.labels for row in rows], given))


def _set_scores(_task: Task, rows: Sequence[Row], answers: Answers, seed: int) -> dict[str, object]:
    return metrics.score_sets([row.labels for row in rows], [tuple(given) for given in answers.given], seed=seed)


# ---- outputs -------------------------------------------------------------------------------------------------------------


def _read_output(_task: Task, _rows: Sequence[Row], _probabilities: Probabilities) -> list[Answer]:
    raise AssertionError("outputs are not read off probabilities")


def _output_value(task: Task, rows: Sequence[Row], given: Sequence[str]) -> float:
    return float(metrics.ANSWER_SCORES[task.metric](given, references_of(rows)))


def _output_scores(_task: Task, rows: Sequence[Row], answers: Answers, seed: int) -> dict[str, object]:
    return metrics.score_generation([str(text) for text in answers.given], references_of(rows), seed=seed)


JUDGES: Mapping[Kind, Judge] = {
    "classification": Judge(read=_read_label, value=_label_value, scores=_label_scores),
    "ordinal": Judge(read=_read_label, value=_label_value, scores=_scale_scores),
    "choice": Judge(read=_read_choice, value=_choice_value, scores=_choice_scores),
    "multilabel": Judge(read=_read_set, value=_set_value, scores=_set_scores),
    "generation": Judge(read=_read_output, value=_output_value, scores=_output_scores),
}
