"""Rows with any number of labels: where a record has them, and what they are.

    a list              ["sport", "local"]           also as text in a CSV: '["sport", "local"]'
    with delimiters     sport; local                 the delimiter is found, or given as ``delimiter`` in a task TOML
    a column each       sport = 1, local = 1, arts = 0

A row without any label is as good as any other.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from epigraph.errors import TaskError
from epigraph.tasks.cells import cell_list, cell_text
from epigraph.tasks.doubt import missing
from epigraph.tasks.headers import IGNORED, LABEL, TEXT, find, find_all, named, plain
from epigraph.tasks.table import Table

SETS = ("labels", "tags", "topics", "categories", "genres", "emotions", "classes", "intents", "aspects", "các_nhãn")
DELIMITERS = ("|", ";", ",", "、", "，", "；", "\n")
YES, NO = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no"})
FEWEST_MARKS = 3  # columns of 0 and 1 that make labels by themselves


def find_lists(table: Table, only: str | None = None) -> str | None:
    """A column of lists of labels, by its name and what it holds; ``only`` this one, where it is named."""
    for column in [only] if only is not None else find_all((*SETS, *LABEL), table.columns):
        held = [value for value in table.values(column) if not _is_blank(value)]
        lists = [items for items in (cell_list(value) for value in held) if items is not None]
        if lists and 2 * len(lists) > len(held) and all(_is_scalar(item) for items in lists for item in items):
            return column
    return None


def find_marks(table: Table, fields: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns that hold nothing but 0 and 1, each a label of its own."""
    names = [column for column in table.columns if column not in fields and not IGNORED.match(plain(column))]
    return tuple(column for column in names if _is_mark(table.values(column)))


def marks_alone(table: Table) -> tuple[str, ...]:
    """The same where they leave no doubt: three or more, one text beside them, and no column of labels."""
    marks = find_marks(table)
    rest = [column for column in table.columns if column not in marks and not IGNORED.match(plain(column))]
    if len(marks) < FEWEST_MARKS or find_all(LABEL, tuple(rest)) or len(one_text(table, marks)) != 1:
        return ()
    return marks


def one_text(table: Table, taken: Sequence[str]) -> tuple[str, ...]:
    """The text beside the columns of the labels: by its name, or the only column left."""
    rest = tuple(column for column in table.columns if column not in taken and not IGNORED.match(plain(column)))
    found = named(TEXT, rest) or [column for column in rest if plain(column).endswith("text")]
    return tuple(found[:1]) if len(found) == 1 else rest if len(rest) == 1 else ()


def find_set_column(table: Table, fields: Sequence[str]) -> str | None:
    """The column of labels, by its name."""
    rest = tuple(column for column in table.columns if column not in fields)
    return next(iter([*find_all(SETS, rest), *named(LABEL, rest)]), None)


def check_marks(table: Table, asked: Sequence[str]) -> tuple[str, ...]:
    """The headers of the 0/1 columns that a task names; TaskError if one is not there."""
    found = []
    for name in asked:
        column = find(name, table.columns)
        if column is None:
            raise missing(table, f"the label {name!r} that [columns] names")
        found.append(column)
    if len(found) < 2:
        raise TaskError(f"[columns] names one label, {', '.join(asked)}.", "Name two or more.")
    return tuple(found)


def find_delimiter(values: Iterable[Any]) -> str:
    """What stands between the labels of a cell: the delimiter that most cells have; "" where they are lists or single."""
    texts = [text for text in (cell_text(v) for v in values if not isinstance(v, list | dict)) if text]
    texts = [text for text in texts if cell_list(text) is None]
    counts = {delimiter: sum(delimiter in text for text in texts) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else ""


def labels_in(value: Any, delimiter: str) -> tuple[str, ...] | str:
    """The labels of a cell, each once, or the reason why it has none that can be read. A blank cell has none."""
    if _is_blank(value):
        return ()
    items = cell_list(value, delimiter)
    if items is None:
        text = cell_text(value) if not isinstance(value, dict) else None
        items = [] if text is None else [text]
        if isinstance(value, dict):
            return "the labels are a JSON object, not a list"
    if not all(_is_scalar(item) for item in items):
        return "the labels hold a list or an object, not texts"
    return tuple(dict.fromkeys(text for text in map(cell_text, items) if text is not None))


def labels_marked(record: Mapping[str, Any], marks: Sequence[str]) -> tuple[str, ...] | str | None:
    """The labels whose column is 1, None where all are blank, or the reason why a cell is neither 0 nor 1."""
    cells = {mark: (cell_text(record.get(mark)) or "").lower() for mark in marks if not _nested(record.get(mark))}
    if not any(cells.values()):
        return None
    wrong = next((mark for mark in marks if cells.get(mark, "?") not in YES | NO | {""}), None)
    if wrong is not None:
        return f"{wrong} is {cells.get(wrong, 'a list')!r}, 0 or 1 was expected"
    return tuple(mark for mark in marks if cells[mark] in YES)


def _nested(value: Any) -> bool:
    return isinstance(value, list | dict)


def _is_blank(value: Any) -> bool:
    return not _nested(value) and not hasattr(value, "tolist") and cell_text(value) is None


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, list | dict | tuple)


def _is_mark(values: Iterable[Any]) -> bool:
    texts = {(cell_text(value) or "").lower() for value in values if not _nested(value)}
    return bool(texts & YES | texts & NO) and texts <= YES | NO | {""} and not any(map(_nested, values))
