"""Corrections: a handful of rows with the answers that a person says are right, checked before anything is loaded.

A text with two different answers, a label that the task does not have, a faulty row: each ends it, named by its lines.
"""

from collections.abc import Sequence
from pathlib import Path

from epigraph.errors import DataError
from epigraph.tasks.nearest import nearest
from epigraph.tasks.row import Row, Split
from epigraph.tasks.task import Task

NAMED = 5
Key = tuple[tuple[str, str], ...]


def read_corrections(task: Task, file: str) -> list[Row]:
    """The rows of a file, each once. NotFound, DataError or TaskError if they cannot be learned."""
    return check_corrections(task, task.read_rows(file, strict=True).rows, file)


def check_corrections(task: Task, rows: Sequence[Row], source: str = "the corrections") -> list[Row]:
    """The same rows, each text once. DataError where there are none, a label is unknown, or two contradict each other."""
    if not rows:
        raise DataError(f"{source} has no rows.", "Give at least one text with the right answer.")
    if any(row.target is None for row in rows):
        raise DataError(f"{source} has rows without an answer.", "Give the right answer of every row.")
    _refuse_unknown(task, rows, source)
    kept: dict[Key, Row] = {}
    for row in rows:
        first = kept.setdefault(text_of(row), row)
        if _said(first) != _said(row):
            raise DataError(
                f"{source}: lines {first.line} and {row.line} contradict each other: the same text is {first.target!r} in one "
                f"and {row.target!r} in the other.",
                "Keep the one that is right.",
            )
    return list(kept.values())


def skipped_note(rows: Split, file: str) -> list[str]:
    """What to say of a file's rows that could not be used, by line and reason; nothing where all could."""
    if not rows.faults:
        return []
    some = ", ".join(f"line {fault.line}: {fault.reason}" for fault in rows.faults[:NAMED])
    more = f" and {len(rows.faults) - NAMED} more" if len(rows.faults) > NAMED else ""
    return [f"{len(rows.faults)} rows of {Path(file).name} were skipped: {some}{more}"]


def text_of(row: Row) -> Key:
    """What tells a row's input from others: its fields and its own choices."""
    fields = tuple(sorted((name, " ".join(text.split())) for name, text in row.fields.items()))
    return (*fields, *(("", choice) for choice in row.choices))


def without(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """The rows whose input is none of the others', each once."""
    taken = {text_of(row) for row in others}
    return list({text_of(row): row for row in rows if text_of(row) not in taken}.values())


def _said(row: Row) -> object:
    return frozenset(row.labels) if row.labels else row.target


def _refuse_unknown(task: Task, rows: Sequence[Row], source: str) -> None:
    if not task.knows_labels:
        return
    lines: dict[str, list[int]] = {}
    for row in rows:
        for label in (row.target or "",) if task.has_labels else row.labels:
            if label not in task.labels:
                lines.setdefault(label, []).append(row.line)
    if lines:
        label, where = next(iter(lines.items()))
        raise DataError(
            f"{source}: the label {label!r} in line {', '.join(map(str, where))} is not one that the prompt knows; a correction "
            f"cannot teach a new label.",
            nearest(label, task.labels),
        )
