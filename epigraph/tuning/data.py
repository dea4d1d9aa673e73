"""Which rows train, which validate and choose, and which give the final score and are seen by no choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epigraph.config import TuneConfig
from epigraph.errors import DataError
from epigraph.tasks.row import Row
from epigraph.tasks.split import split_validation
from epigraph.tasks.task import Task

FEWEST_ROWS = 4
MOST_VALIDATION_ROWS = 500  # beyond that a better choice is not worth the rows and the time


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The rows of one tuning. ``split`` says what the final rows are of: test or holdout."""

    train: Sequence[Row]
    validation: Sequence[Row]
    final: Sequence[Row]
    split: str
    warnings: Sequence[str]


def divide(task: Task, config: TuneConfig) -> Parts:
    """Validation split off the training rows, and a hold-out too where there is no test set."""
    rows = list(task.train.rows)
    if len(rows) < FEWEST_ROWS:
        raise DataError(
            f"{task.train.source or 'the task'} has {len(rows)} usable rows; tuning needs {FEWEST_ROWS} or more."
        )
    labels = task.has_labels
    if task.test is not None:
        final, split, rest = list(task.test.rows), "test", rows
    else:
        rest, final, _ = split_validation(rows, share=config.holdout, seed=config.seed, labels=labels)
        split = "holdout"
    share = min(config.validation, MOST_VALIDATION_ROWS / len(rest))
    train, validation, alone = split_validation(rest, share=share, seed=config.seed + 1, labels=labels)
    if not validation:
        validation = train  # nothing can be spared: said below
    if not final:
        final, split = list(validation), "validation"
    return Parts(
        train=train, validation=validation, final=final, split=split, warnings=_warnings(task, train, validation, alone)
    )


def _warnings(task: Task, train: Sequence[Row], validation: Sequence[Row], alone: Sequence[str]) -> list[str]:
    found = []
    if alone:
        found.append(f"labels with a single row train and are not validated: {_few(alone)}")
    if validation is train:
        found.append("too few rows to keep any for validation: the best prompt is chosen on the training rows")
    if task.test is not None and (unseen := task.unseen_labels(task.test)):
        found.append(f"test labels that were never trained count as wrong: {_few(_counted(unseen))}")
    for part, faults in (("training", task.train.faults), ("test", task.test.faults if task.test else ())):
        if faults:
            some = [f"line {fault.line}: {fault.reason}" for fault in faults]
            found.append(f"{len(faults)} {part} rows were skipped: {_few(some)}")
    return found


def _counted(counts: Mapping[str, int]) -> list[str]:
    return [f"{label} ({rows} rows)" for label, rows in counts.items()]


def _few(items: Sequence[str], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
