"""A method and the rows of a task → scores with intervals.

A label that was never trained counts as wrong. One seed's interval covers the test rows only, and says so under
``interval``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epigraph import metrics
from epigraph.errors import DataError
from epigraph.methods.solver import Probabilities, Scorable
from epigraph.tasks.row import Row

ONE_SEED = "95%, over the rows only: one seed"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores as the JSON contract has them, and what they were computed from."""

    values: Mapping[str, Any]
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object."""
        return dict(self.values)

    def value(self, metric: str) -> float:
        """The value of one metric, 0 to 1."""
        return float(self.values[metric]["value"])

    def per_class(self) -> list[metrics.ClassScore]:
        """Precision, recall, F1 and rows of every label."""
        return metrics.per_class(self.truth, self.predicted, self.labels)

    def confusion(self) -> metrics.Confusion:
        """Counts of true label by predicted label."""
        return metrics.confusion(self.truth, self.predicted, self.labels)


def evaluate(method: Scorable, rows: Sequence[Row], *, split: str, seed: int = 0) -> Scores:
    """Score a method on labelled rows. DataError if there are none."""
    if not rows:
        raise DataError("there are no labelled rows to score on.", "Give a file with rows under --data.")
    if method.task.has_labels:
        return score_labels(method, rows, method.probabilities(rows), split=split, seed=seed)
    return score_outputs(rows, method.outputs(rows), split=split, seed=seed)


def score_labels(
    method: Scorable, rows: Sequence[Row], probabilities: Probabilities, *, split: str, seed: int = 0
) -> Scores:
    """Scores of label probabilities that are already there."""
    labels = tuple(method.task.labels)
    truth = tuple(row.target or "" for row in rows)
    predicted = tuple(labels[i] for i in probabilities.argmax(1))
    values = metrics.score_classification(truth, predicted, labels, np.asarray(probabilities, dtype=np.float64), seed=seed)
    return Scores(values=values | _said(split), truth=truth, predicted=predicted, labels=labels)


def score_outputs(rows: Sequence[Row], outputs: Sequence[str], *, split: str, seed: int = 0) -> Scores:
    """Scores of outputs that are already there."""
    references = [row.references or (row.target or "",) for row in rows]
    values = metrics.score_generation(outputs, references, seed=seed)
    return Scores(values=values | _said(split), truth=tuple(r[0] for r in references), predicted=tuple(outputs))


def _said(split: str) -> dict[str, Any]:
    return {"split": split, "interval": ONE_SEED}
