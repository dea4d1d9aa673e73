"""From which probability on a label of several is given: what is best for the metric on validation rows.

It is learned the same way for a tuned prompt and for a hard prompt, whose verdicts lean towards yes or no by themselves.
"""

from collections.abc import Sequence

from epigraph import metrics
from epigraph.methods.solver import PromptedBase, Scorable
from epigraph.tasks.row import Row


def with_best_threshold(solver: PromptedBase, rows: Sequence[Row]) -> PromptedBase:
    """The same with the threshold that is best on these rows; unchanged where a row has no set of labels."""
    return solver.with_threshold(best_threshold(solver, rows)) if _has_sets(solver) and rows else solver


def best_threshold(method: Scorable, rows: Sequence[Row]) -> float:
    """The threshold that is best for the task's metric on these rows."""
    task = method.task
    truth = metrics.set_marks([[label for label in row.labels if label in task.labels] for row in rows], list(task.labels))
    threshold, _ = metrics.best_threshold(truth, method.probabilities(rows), task.metric)
    return round(threshold, 4)


def _has_sets(method: Scorable) -> bool:
    return method.task.knows_labels and not method.task.has_labels
