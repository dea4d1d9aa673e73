"""Which rows train, which validate and choose, and which give the final score and are seen by no choice.

many rows    train | validation | final
to 2,000     the same; the prompt that is kept learns from train and validation once settings and epochs are chosen
to 200       the same with more for validation
to 32        every row trains and, in one of four folds, validates; without a test set these answers are the final score

Outputs and sets of labels learn from validation rows only of a cross-validation: of one split these choose the threshold, and are
too dear to write twice.

With 1,000 rows the 150 of validation are worth a point of accuracy (``benchmarks/README.md``); with many more they are worth
less, and learning once more from all of them costs the more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epigraph.config import FEW_VALIDATION, VALIDATION, TuneConfig
from epigraph.errors import DataError
from epigraph.tasks.row import Row
from epigraph.tasks.split import split_folds, split_validation
from epigraph.tasks.task import Task

FEWEST_ROWS = 4
CROSS_ROWS, FEW_ROWS, REFIT_ROWS, FOLDS = 32, 200, 2000, 4
MOST_VALIDATION_ROWS = 500  # beyond that a better choice is not worth the rows and the time


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The rows of one tuning. ``split`` says what the final rows are of: test, holdout, crossval, validation, or train
    where none are kept apart.

    ``folds`` are, of a cross-validation, the places of the rows that each holds out; training and validation rows are then
    the same. ``refit`` says that the prompt that is kept learns from all of them.
    """

    train: Sequence[Row]
    validation: Sequence[Row]
    final: Sequence[Row]
    split: str
    warnings: Sequence[str]
    folds: Sequence[Sequence[int]] = ()
    refit: bool = False

    @property
    def all(self) -> list[Row]:
        """Training and validation rows, each once."""
        return list(self.train) if self.folds or self.validation is self.train else [*self.train, *self.validation]

    @property
    def each(self) -> list[Row]:
        """Every row that is used for anything, once."""
        own = self.split in ("test", "holdout")
        return [*self.all, *(self.final if own else ())]

    @property
    def learned(self) -> Sequence[Row]:
        """The rows that the prompt that is kept learns from: how many there are settles batch and epochs."""
        return self.all if self.refit else self.train

    @property
    def again(self) -> float:
        """What learning from all rows costs, in units of the tuning that chooses, all its folds together."""
        rows = len(self.train) * max(1, len(self.folds) - 1)
        return len(self.all) / rows if self.refit else 0.0


def divide(task: Task, config: TuneConfig, *, thrifty: bool = False) -> Parts:
    """Validation split off the training rows, and a hold-out too where there is no test set.

    ``thrifty``: up to 2,000 rows are used twice, unless the share of validation was asked for.
    """
    rows = list(task.train.rows)
    if len(rows) < FEWEST_ROWS:
        raise DataError(
            f"{task.train.source or 'the task'} has {len(rows)} usable rows; tuning needs {FEWEST_ROWS} or more."
        )
    labels = task.has_labels
    thrifty = thrifty and config.validation is None
    if thrifty and len(rows) <= CROSS_ROWS:
        held = split_folds(rows, folds=FOLDS, seed=config.seed + 1, labels=labels)
        if len(held) > 1:
            return _crossed(task, rows, held)
    thrifty = thrifty and _refits(task)
    if task.test is not None:
        final, split, rest = list(task.test.rows), "test", rows
    else:
        rest, final, _ = split_validation(rows, share=config.holdout, seed=config.seed, labels=labels)
        split = "holdout"
    few = thrifty and len(rest) <= FEW_ROWS
    wanted = FEW_VALIDATION if few else VALIDATION if config.validation is None else config.validation
    share = min(wanted, MOST_VALIDATION_ROWS / len(rest))
    train, validation, alone = split_validation(rest, share=share, seed=config.seed + 1, labels=labels)
    if not validation:
        validation = train  # nothing can be spared: said below
    if not final:
        final, split = list(validation), "train" if validation is train else "validation"
    warnings = _warnings(task, train, validation, alone)
    refit = thrifty and len(rest) <= REFIT_ROWS and validation is not train
    return Parts(train=train, validation=validation, final=final, split=split, warnings=warnings, refit=refit)


def _refits(task: Task) -> bool:
    """Whether nothing but settings and epochs is chosen on validation, such as a threshold."""
    return task.has_labels or not (task.knows_labels or task.writes)


def _crossed(task: Task, rows: list[Row], held: Sequence[Sequence[int]]) -> Parts:
    seen = {place for fold in held for place in fold}
    alone = sorted({row.target or "" for place, row in enumerate(rows) if place not in seen})
    final = list(task.test.rows) if task.test is not None else [rows[place] for place in sorted(seen)]
    split = "crossval" if task.test is None else "test"
    warnings = _warnings(task, rows, (), alone)
    return Parts(train=rows, validation=rows, final=final, split=split, warnings=warnings, folds=held, refit=True)


def _warnings(task: Task, train: Sequence[Row], validation: Sequence[Row], alone: Sequence[str]) -> list[str]:
    found = []
    if alone:
        found.append(f"labels with a single row train and are not validated: {_few(alone)}")
    if validation is train:
        found.append(
            "no rows are kept for validation: the best prompt is chosen on the training rows, by scores that are too high"
        )
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
