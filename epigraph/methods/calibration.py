"""A prompted base calibrated: contextually, or to the labels' shares in training (see ``shift``)."""

from collections.abc import Sequence

from epigraph.errors import ConfigError, DataError
from epigraph.methods.shift import CONTENT_FREE, CONTEXTUAL, Shift, check_way, contextual_bias, prior_bias
from epigraph.methods.solver import PromptedBase
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task


def check_calibration(task: Task, how: str) -> None:
    """ConfigError where a task's answers cannot be calibrated so."""
    check_way(how)
    if task.writes:
        raise ConfigError("calibration was asked, but this task writes text: it has no answers to weigh against each other.")
    if how != CONTEXTUAL and not task.knows_labels:
        raise ConfigError(
            f"calibration {how!r} was asked, but every row has its own choices, which have no shares in training.",
            f"Pass --calibrate {CONTEXTUAL}.",
        )


def calibrate(solver: PromptedBase, how: str, rows: Sequence[Row] = ()) -> PromptedBase:
    """The same prompted base with its answers calibrated; ``rows`` (their labels unseen) are what ``prior`` is matched on.

    ConfigError where the task's answers cannot be, DataError without rows that are needed.
    """
    task = solver.task
    check_calibration(task, how)
    plain = solver.with_shift(None)
    if not task.knows_labels:
        return solver.with_shift(Shift(how))
    if how == CONTEXTUAL:
        names = task.template.fields
        asked = [Row(fields=dict.fromkeys(names, text)) for text in CONTENT_FREE]
        return solver.with_shift(Shift(how, contextual_bias(plain.probabilities(asked), sets=not task.has_labels)))
    if not rows:
        raise DataError("calibration 'prior' was asked, but there are no rows to match the labels' shares on.")
    return solver.with_shift(Shift(how, prior_bias(plain.probabilities(rows), shares(task), sets=not task.has_labels)))


def shares(task: Task) -> list[float]:
    """Each label's share of the training rows; even ones where they are not known."""
    even = 1 / len(task.labels) if task.has_labels else 0.5
    return [task.shares.get(label, even) for label in task.labels]
