"""The rows that a prompt's own run remembers: where no file is given, the ones it was scored on are looked for.

A run folder names its data file and the hash of every part. The rows are taken only where these hashes still hold, and are divided
as they were, so that those to measure on are again rows that no choice has seen, where the run kept any apart. A prompt of few rows
learned from those of validation too (``tuning/data.py``), and one that was validated in folds from every row: these are training rows
here, whatever the run called them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from epigraph.config import TuneConfig
from epigraph.errors import EpigraphError
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.data import divide
from epigraph.tuning.run import DESCRIPTION, Run, rows_hash

FEW = 16


@dataclass(frozen=True, kw_only=True)
class KnownRows:
    """Rows to measure on, what they are (``split`` in one word, as scores have it), and all rows that the prompt learned from."""

    rows: Sequence[Row]
    source: str
    split: str
    train: Sequence[Row]


def find_rows(runs: Path, reference: str) -> KnownRows | None:
    """The rows of the run that ended in this prompt; None where there is no such run, or its file is gone or changed."""
    for folder in sorted(runs.glob("*/"), reverse=True):
        if not (folder / DESCRIPTION).is_file() or Run(folder).stored_as != reference:
            continue
        try:
            return _rows_of(Run(folder))
        except (EpigraphError, OSError, KeyError):
            return None
    return None


def _rows_of(run: Run) -> KnownRows | None:
    noted = run.description
    source, test, template, kind = (str(one) or None for one in noted["data"]["source"])
    if source is None:
        return None
    task = Task.from_file(source, test=test, template=template, kind=kind)
    for part, held in (("train", task.train), ("test", task.test)):
        if held is not None and rows_hash(held.rows)[:16] not in noted["data"].get(part, ""):
            return None
    parts = divide(task, TuneConfig.from_dict(noted["config"]), thrifty=True)
    rows, said, split = list(parts.final), f"the {parts.split} of {Path(source).name}", parts.split
    if len(rows) < FEW and parts.validation is not parts.final:
        rows, said = [*rows, *parts.validation], f"{said} and the rows it was chosen on"
        split = "validation"
    learned = list(parts.learned)
    seen = {rows_hash([row]) for row in learned}
    if all(rows_hash([row]) in seen for row in rows):
        said, split = f"training rows of {Path(source).name}, since none were kept apart", "train"
    return KnownRows(rows=rows, source=said, split=split, train=learned)
