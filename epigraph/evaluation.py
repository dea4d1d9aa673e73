"""A method and the rows of a task → scores with intervals.

A label that was never trained counts as wrong. One seed's interval covers the test rows only, and says so under
``interval``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epigraph import metrics
from epigraph.errors import DataError
from epigraph.methods import judge
from epigraph.methods.solver import Probabilities, Scorable
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

ONE_SEED = "95%, over the rows only: one seed"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores as the JSON contract has them, and what they were computed from.

    Where a row may have several labels, ``truth`` and ``predicted`` list them as text, and ``sets`` hold both as tuples.
    """

    values: Mapping[str, Any]
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    labels: tuple[str, ...] = ()
    sets: tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]] | None = None

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object."""
        return dict(self.values)

    def value(self, metric: str) -> float:
        """The value of one metric, 0 to 1 (in ranks for mae)."""
        return float(self.values[metric]["value"])

    def per_class(self) -> list[metrics.ClassScore]:
        """Precision, recall, F1 and rows of every label."""
        if self.sets is not None:
            return metrics.per_label(*self.sets, self.labels)
        return metrics.per_class(self.truth, self.predicted, self.labels)

    def confusion(self) -> metrics.Confusion:
        """Counts of true label by predicted label. DataError where a row may have several."""
        if self.sets is not None:
            raise DataError("a confusion table was asked, but a row may have several labels.", "Ask for --per-class.")
        return metrics.confusion(self.truth, self.predicted, self.labels)


def evaluate(method: Scorable, rows: Sequence[Row], *, split: str, seed: int = 0) -> Scores:
    """Score a method on labelled rows. DataError if there are none."""
    if not rows:
        raise DataError("there are no labelled rows to score on.", "Give a file with rows under --data.")
    return _scored(method.task, rows, judge.answer(method, rows), split=split, seed=seed)


def score_labels(
    method: Scorable, rows: Sequence[Row], probabilities: Probabilities, *, split: str, seed: int = 0
) -> Scores:
    """Scores of label (or choice) probabilities that are already there."""
    return _scored(method.task, rows, judge.read(method.task, rows, probabilities), split=split, seed=seed)


def score_outputs(rows: Sequence[Row], outputs: Sequence[str], *, split: str, seed: int = 0) -> Scores:
    """Scores of outputs that are already there."""
    references = judge.references_of(rows)
    values = metrics.score_generation(outputs, references, seed=seed)
    return Scores(values=values | _said(split), truth=tuple(r[0] for r in references), predicted=tuple(outputs))


def _scored(task: Task, rows: Sequence[Row], answers: judge.Answers, *, split: str, seed: int) -> Scores:
    values = judge.scores(task, rows, answers, seed) | _said(split)
    if task.writes:
        truth = tuple(references[0] for references in judge.references_of(rows))
        return Scores(values=values, truth=truth, predicted=tuple(map(str, answers.given)))
    if not task.knows_labels or task.has_labels:
        given = tuple(map(str, answers.given))
        return Scores(values=values, truth=tuple(judge.truth_of(rows)), predicted=given, labels=tuple(task.labels))
    sets = tuple(tuple(sorted(row.labels)) for row in rows), tuple(tuple(sorted(given)) for given in answers.given)
    truth, said = (tuple(", ".join(labels) for labels in side) for side in sets)
    return Scores(values=values, truth=truth, predicted=said, labels=tuple(task.labels), sets=sets)


def _said(split: str) -> dict[str, Any]:
    return {"split": split, "interval": ONE_SEED}
