"""The rows of a comparison: the same training rows, validation rows and test rows for every method.

    rows ─► test (its own file, or a hold-out split off once) and the rest
    rest, shuffled by the seed ─► its first n: train | validation          n = 8, 16, 32 … all

n is what a user has labelled: validation is split off within it, a quarter of few rows, 15% of many. Few rows are the first
of the same order, so that a longer curve point holds every shorter one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from epigraph.config import VALIDATION, TuneConfig
from epigraph.errors import DataError
from epigraph.metrics.paired import check_metric
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head, split_validation
from epigraph.tasks.task import Task
from epigraph.tuning.data import divide

FEW_ROWS, SHARE_OF_FEW = 64, 0.25


@dataclass(frozen=True, kw_only=True)
class Part:
    """Training and validation rows of one seed, and the task with both as its training rows and no test."""

    task: Task
    train: Sequence[Row]
    validation: Sequence[Row]
    share: float


@dataclass(frozen=True, kw_only=True)
class Material:
    """The task, all rows that may train, and the test rows. ``split`` says what the test rows are: test or holdout; ``shared``
    of them say the same as a training row."""

    task: Task
    rest: Sequence[Row]
    test: Sequence[Row]
    split: str
    shared: int
    warnings: Sequence[str]

    def part(self, rows: int, seed: int) -> Part:
        """The first ``rows`` of the seed's order, divided as ``tune`` divides them."""
        chosen = head(self.rest, rows, seed)
        share = SHARE_OF_FEW if len(chosen) < FEW_ROWS else VALIDATION
        task = replace(self.task, train=Split(rows=tuple(chosen), source=self.task.train.source), test=None)
        marked = replace(task, test=Split(rows=tuple(self.test[:1])))  # a task with a test set keeps all its rows
        parts = divide(marked, TuneConfig(seed=seed, validation=share))
        return Part(task=task, train=parts.train, validation=parts.validation, share=share)


def gather(task: Task, *, rows: int | None, tests: int | None) -> Material:
    """Settle which rows are which. DataError if there are too few, Unsupported if no rows can be compared by the metric."""
    check_metric(task.metric)
    rest, final, split = set_apart(task)
    if len(rest) < 4 or not final:
        raise DataError(
            f"{task.train.source or 'the task'} has {len(task.train.rows)} usable rows; a comparison needs 4 to train and 1 to test.",
            "Give more labelled rows.",
        )
    test = head(final, len(final) if tests is None else tests, seed=0)
    rest = rest if rows is None or rows >= len(rest) else head(rest, rows, seed=0)
    shared = _overlap(rest, test)
    return Material(
        task=task, rest=rest, test=test, split=split, shared=shared, warnings=_warnings(task, rest, test, shared)
    )


def set_apart(task: Task) -> tuple[list[Row], list[Row], str]:
    """Rows to learn from, rows to test on, and what the latter are of: the test set, or a part of the training rows."""
    every = list(task.train.rows)
    if task.test is not None and task.test.rows:
        return every, list(task.test.rows), "test"
    rest, final, _ = split_validation(every, share=TuneConfig().holdout, seed=0, labels=task.has_labels)
    return rest, final, "holdout"


def _warnings(task: Task, rest: Sequence[Row], test: Sequence[Row], shared: int) -> list[str]:
    found = []
    if shared:
        found.append(
            f"{shared} of {len(test)} test rows stand among the training rows too: scores of methods that train on them "
            "are too good"
        )
    if task.knows_labels:
        trained, tested = ({label for row in rows for label in labels_of(task, row)} for rows in (rest, test))
        if unseen := sorted(tested - trained):
            rows = sum(not set(unseen).isdisjoint(labels_of(task, row)) for row in test)
            found.append(f"test labels that no training row has, their {rows} rows count as wrong: {_few(unseen)}")
        if untested := sorted(trained - tested):
            found.append(f"labels that no test row has, nothing is said of them: {_few(untested)}")
    for name, split in (("training", task.train), ("test", task.test)):
        if split is not None and split.faults:
            found.append(f"{len(split.faults)} {name} rows were skipped as faulty, the first at line {split.faults[0].line}")
    return found


def labels_of(task: Task, row: Row) -> tuple[str, ...]:
    """The labels of a row: one, or any number of them."""
    return (row.target or "",) if task.has_labels else tuple(row.labels)


def _overlap(rest: Sequence[Row], test: Sequence[Row]) -> int:
    """Test rows whose fields say the same as a training row's, but for case and white space."""
    known = {_said(row) for row in rest}
    return sum(_said(row) in known for row in test)


def _said(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, " ".join(text.casefold().split())) for name, text in row.fields.items()))


def _few(items: Sequence[str], most: int = 8) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
