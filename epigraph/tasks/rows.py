"""Records → rows, with every faulty row counted and named.

A row is faulty when all its fields are empty, its answer is missing or names none of its choices, or it cannot be read.
Faulty rows are left out; more than 5% of them (or any, when strict) end it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from epigraph.errors import DataError
from epigraph.tasks.cells import cell_text, whole_number
from epigraph.tasks.columns import Columns, Kind
from epigraph.tasks.kinds import KINDS_OF_TASK
from epigraph.tasks.label_sets import labels_in, labels_marked
from epigraph.tasks.layouts import unfold
from epigraph.tasks.multiple_choice import Offered, lettered, offered, offered_in, place_of
from epigraph.tasks.row import Fault, Row, Split
from epigraph.tasks.table import Table
from epigraph.tasks.text_file import broken_text

MOST_FAULTS = 0.05
_NAMED = 5
_CHOICES = "choices"


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
    labels = _spellings(table, columns, known) if KINDS_OF_TASK[kind].one_label else {}
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


def needed(columns: Columns, names: Sequence[str]) -> list[str]:
    """What a row to be answered must have, by name: the template's fields and, where it has its own, the choices."""
    return [*(name for name in names if columns.fields.get(name, name)), *([_CHOICES] if columns.choices else [])]


def row_of(given: Mapping[str, Any], columns: Columns, names: Sequence[str]) -> Row:
    """A row to be answered from its fields by the template's names; its choices as ``choices`` or as the data has them.

    DataError where something is missing.
    """
    at = columns.choices
    has_choices = not at or _CHOICES in given or any(name in given for name in at)
    missing = [name for name in needed(columns, names) if name not in given and not (name == _CHOICES and has_choices)]
    if missing:
        raise DataError(f"the row has no field {', '.join(missing)}.", f"It has: {', '.join(given) or 'none'}.")
    fields = {name: str(given[name]) for name in names if columns.fields.get(name, name)}
    if not at:
        return Row(fields=fields)
    known = {name: name if column else "" for name, column in columns.fields.items() if name in names}
    found = offered(given, at) if any(name in given for name in at) else offered_in(given[_CHOICES])
    row = _chosen(found, None, replace(columns, fields=known), fields)
    if isinstance(row, str):
        raise DataError(f"the row cannot be answered: {row}.", 'Give "choices": ["…", "…"].')
    return row


def _row(record: Mapping[str, Any], columns: Columns, kind: Kind, line: int) -> Row | str:
    """The row of a record (its target None where missing), or the reason why it cannot be one."""
    single = KINDS_OF_TASK[kind].one_label or KINDS_OF_TASK[kind].writes
    used = [*filter(None, columns.fields.values()), *([columns.target] if columns.target and single else [])]
    for column in used:
        if isinstance(record.get(column), list | dict):
            return f"{column} is a {'list' if isinstance(record[column], list) else 'JSON object'}, not a text"
    fields = {name: cell_text(record.get(column)) or "" for name, column in columns.fields.items() if column}
    if not any(fields.values()):
        return "empty text"
    row = _ANSWERED.get(kind, _single)(record, columns, kind, fields)
    if isinstance(row, str):
        return row
    if any(broken_text(text) for text in (*row.fields.values(), row.target or "", *row.references, *row.choices)):
        return "unreadable characters (not UTF-8)"
    return replace(row, line=line)


def _single(record: Mapping[str, Any], columns: Columns, kind: Kind, fields: Mapping[str, str]) -> Row:
    """A row with one label or output."""
    target = cell_text(record.get(columns.target)) if columns.target else None
    references = _references(record, columns, target) if KINDS_OF_TASK[kind].writes else ()
    return Row(fields=fields, target=references[0] if references else target, references=references)


def _with_choices(record: Mapping[str, Any], columns: Columns, _kind: Kind, fields: Mapping[str, str]) -> Row | str:
    """A row with its choices; its target is the text of the right one."""
    return _chosen(offered(record, columns.choices), record.get(columns.target or ""), columns, fields)


def _chosen(found: Offered, said: Any, columns: Columns, fields: Mapping[str, str]) -> Row | str:
    texts = tuple(text for _, text in found if text is not None)
    if len(texts) < 2:
        return f"{len(texts) or 'no'} choice{'' if len(texts) == 1 else 's'}, two or more are needed"
    if len(set(texts)) < len(texts):
        return "two of the choices are the same"
    right = place_of(said, found, columns.naming)
    if right is None and (cell_text(said) if not isinstance(said, list | dict) else "") is not None:
        return f"the answer {said!r} names none of the {len(texts)} choices"
    shown = {name: lettered(texts) for name, column in columns.fields.items() if not column}
    in_order = {name: {**fields, **shown}[name] for name in columns.fields}
    return Row(fields=in_order, target=None if right is None else found[right][1], choices=texts)


def _with_labels(record: Mapping[str, Any], columns: Columns, _kind: Kind, fields: Mapping[str, str]) -> Row | str:
    """A row with any number of labels."""
    if columns.marks:
        labels = labels_marked(record, columns.marks)
    else:
        labels = labels_in(record.get(columns.target), columns.delimiter) if columns.target else None
    if isinstance(labels, str):
        return labels
    return Row(fields=fields, target=None if labels is None else ", ".join(labels), labels=labels or ())


_ANSWERED = {"choice": _with_choices, "multilabel": _with_labels}


def _references(record: Mapping[str, Any], columns: Columns, target: str | None) -> tuple[str, ...]:
    """All accepted outputs, the target first."""
    found = record.get(columns.references) if columns.references else None
    texts = [cell_text(value) for value in (found if isinstance(found, list) else [found])]
    return tuple(dict.fromkeys(text for text in (target, *texts) if text is not None))


def _missing(row: Row, kind: Kind) -> str:
    if row.target is not None:
        return ""
    return f"missing {KINDS_OF_TASK[kind].answer}"


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
    return replace(row, target=labels[row.target])


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
        where = ", ".join(filter(None, columns.fields.values()))
        raise DataError(f"{table.source}: the text ({where}) is empty in all {total} rows.", "Is this the right column?")
    if reason.startswith("missing"):
        where = columns.target or columns.references or ", ".join(columns.marks)
        what = f"{reason.removeprefix('missing ')} ({where})"
        verb = "are" if where in columns.marks or ", " in where else "is"
        raise DataError(f"{table.source}: the {what} {verb} empty in all {total} rows.", "Is this the right column?")
