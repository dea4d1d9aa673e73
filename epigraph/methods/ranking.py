"""What candidates of any kind of task are ranked by on validation rows: the task's metric, then the lower loss.

    score   the metric of the answers read off the probabilities, turned so that higher is better; of several labels a row
            the one at the threshold that is best for it
    loss    mean −log p of the right label or choice, or of the right verdict on every label, in nats

Rows whose label was never trained have no probability: they count in the score and not in the loss.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from epigraph import metrics
from epigraph.methods import judge
from epigraph.methods.solver import Probabilities, Scorable
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

LEAST = 1e-12
Rank = tuple[float, float]
"""The score, then the mean −loss: the larger is better."""


def rank_method(method: Scorable, rows: Sequence[Row]) -> Rank:
    """The rank of a method on these rows; one that writes has no loss."""
    if method.task.writes:
        return judge.value(method.task, rows, judge.answer(method, rows).given), 0.0
    return rank(method.task, rows, method.probabilities(rows))


def rank(task: Task, rows: Sequence[Row], probabilities: Probabilities) -> Rank:
    """The rank of these probabilities."""
    if task.knows_labels and not task.has_labels:
        truth = known_marks(task, rows)
        right = np.where(truth, probabilities, 1 - probabilities)
        return metrics.best_threshold(truth, probabilities, task.metric)[1], _minus_loss(right)
    score = judge.value(task, rows, judge.read(task, rows, probabilities).given)
    names = [list(task.labels) if task.has_labels else list(row.choices) for row in rows]
    known = [(n, one.index(row.target)) for n, (one, row) in enumerate(zip(names, rows, strict=True)) if row.target in one]
    return score, _minus_loss(np.array([probabilities[n, at] for n, at in known]))


def known_marks(task: Task, rows: Sequence[Row]) -> Bool[np.ndarray, "N C"]:
    """Which row has which of the task's labels; those never trained are left out."""
    labels = list(task.labels)
    return metrics.set_marks([[label for label in row.labels if label in task.labels] for row in rows], labels)


def _minus_loss(right: np.ndarray) -> float:
    return float(np.log(np.maximum(np.asarray(right, dtype=np.float64), LEAST)).mean()) if right.size else 0.0
