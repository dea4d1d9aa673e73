"""Records → rows, with every faulty row counted and named.

A row is faulty when all its fields are empty, its label or output is missing, or it cannot be read. Faulty rows are left
out; more than 5% of them (or any, when strict) end it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from epigraph.errors import DataError
from epigraph.tasks.cells import cell_text, whole_number
from epigraph.tasks.columns import Columns, Kind
from epigraph.tasks.layouts import unfold
from epigraph.tasks.row import Fault, Row, Split
from epigraph.tasks.table import Table
from epigraph.tasks.text_file import broken_text

MOST_FAULTS = 0.05
_NAMED = 5


def make_rows(
    table: Table,
    columns: Columns,
    kind: Kind,
    *,
    strict: bool,
    need_target: bool = True,
    known: Collection[str] = (),
) -> Split:
    """Build the rows of a file. ``known`` are the task's labels, in whose spelling of numbers ("1", not "1.0") labels come.

    Raises DataError where too many rows are faulty, or none is left.
    """
    table = unfold(table, columns.layout)
    if not table.records and not table.faults:
        raise DataError(f"{table.source} has a header but no rows.", "Add at least one row.")
    labels = _spellings(table, columns, known) if kind == "classification" else {}
    rows, faults = [], list(table.faults)
    for record, line in zip(table.records, table.lines, strict=True):
        row = _row(record, columns, kind, line)
        reason = row if isinstance(row, str) else _missing(row, kind) if need_target else ""
        if reason or isinstance(row, str):
            faults.append(Fault(line=line, reason=reason))
        else:
            rows.append(_spelled(row, labels))
    faults.sort(key=lambda fault: fault.line)
    _judge(table, columns, faults, len(rows), strict)
    return Split(rows=tuple(rows), source=table.source, faults=tuple(faults))


def _row(record: Mapping[str, Any], columns: Columns, kind: Kind, line: int) -> Row | str:
    """The row of a record (its target None where missing), or the reason why it cannot be one."""
    used = [*columns.fields.values(), *([columns.target] if columns.target else [])]
    for column in used:
        if isinstance(record.get(column), list | dict):
            return f"{column} is a {'list' if isinstance(record[column], list) else 'JSON object'}, not a text"
    fields = {name: cell_text(record.get(column)) or "" for name, column in columns.fields.items()}
    target = cell_text(record.get(columns.target)) if columns.target else None
    references = _references(record, columns, target) if kind == "generation" else ()
    if not any(fields.values()):
        return "empty text"
    if any(broken_text(text) for text in (*fields.values(), target or "", *references)):
        return "unreadable characters (not UTF-8)"
    return Row(fields=fields, target=references[0] if references else target, references=references, line=line)


def _references(record: Mapping[str, Any], columns: Columns, target: str | None) -> tuple[str, ...]:
    """All accepted outputs, the target first."""
    found = record.get(columns.references) if columns.references else None
    texts = [cell_text(value) for value in (found if isinstance(found, list) else [found])]
    return tuple(dict.fromkeys(text for text in (target, *texts) if text is not None))


def _missing(row: Row, kind: Kind) -> str:
    if row.target is not None:
        return ""
    return "missing label" if kind == "classification" else "missing output"


def _spellings(table: Table, columns: Columns, known: Collection[str]) -> dict[str, str]:
    """How labels that are whole numbers are spelled where the task has another spelling: "1.0" → "1", or "1" → "1.0"."""
    if columns.target is None:
        return {}
    cells = [record.get(columns.target) for record in table.records]
    found = {text for text in (cell_text(cell) for cell in cells if not isinstance(cell, list | dict)) if text}
    plain = {whole_number(label): label for label in known} if known else {}
    if not known:
        plain = {label: label for label in found if whole_number(label) == label}
    return {label: plain[whole_number(label)] for label in found if label not in known and whole_number(label) in plain}


def _spelled(row: Row, labels: Mapping[str, str]) -> Row:
    if row.target is None or labels.get(row.target, row.target) == row.target:
        return row
    return Row(fields=row.fields, target=labels[row.target], references=row.references, line=row.line)


def _judge(table: Table, columns: Columns, faults: list[Fault], kept: int, strict: bool) -> None:
    """Raise DataError where the faults are too many."""
    total = kept + len(faults)
    _refuse_all_alike(table, columns, faults, total)
    if not faults or (not strict and len(faults) <= MOST_FAULTS * total):
        return
    named = "; ".join(f"line {fault.line}: {fault.reason}" for fault in faults[:_NAMED])
    more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    limit = "--strict allows none" if strict else f"at most {MOST_FAULTS:.0%} may be skipped"
    raise DataError(
        f"{table.source}: {len(faults)} of {total} rows cannot be used ({limit}): {named}{more}.",
        "Correct or remove these rows.",
    )


def _refuse_all_alike(table: Table, columns: Columns, faults: list[Fault], total: int) -> None:
    """One sentence where the same fault is in every row: it is the column then, not the rows."""
    reasons = {fault.reason for fault in faults}
    if len(faults) < total or len(reasons) > 1:
        return
    reason = reasons.pop()
    if reason == "empty text":
        where = ", ".join(columns.fields.values())
        raise DataError(f"{table.source}: the text ({where}) is empty in all {total} rows.", "Is this the right column?")
    if reason.startswith("missing"):
        what = f"{reason.removeprefix('missing ')} ({columns.target or columns.references})"
        raise DataError(f"{table.source}: the {what} is empty in all {total} rows.", "Is this the right column?")
