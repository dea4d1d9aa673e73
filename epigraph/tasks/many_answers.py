"""The columns of tasks whose answers take more than one column or value: multiple choice, and labels in sets.

By itself a file is one of these only where there is no doubt: choices with answers that name them; lists of labels; three or
more columns of nothing but 0 and 1 beside one text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epigraph.errors import TaskError
from epigraph.tasks.asked import Answers, asked_column, asked_fields, asked_target, check_given
from epigraph.tasks.doubt import missing, not_found
from epigraph.tasks.headers import PAIRS, find, find_all, plain
from epigraph.tasks.kinds import KINDS_OF_TASK, Kind
from epigraph.tasks.label_sets import (
    check_marks,
    find_delimiter,
    find_lists,
    find_marks,
    find_set_column,
    marks_alone,
    one_text,
)
from epigraph.tasks.multiple_choice import FEWEST_BARE, find_answer, find_choices, find_question, settle_naming
from epigraph.tasks.table import Table

SHOWN = "choices"  # the template's field that shows them


@dataclass(frozen=True, kw_only=True)
class AnswerColumns:
    """What ``Columns`` has of such a task."""

    kind: Kind
    fields: Mapping[str, str]
    target: str | None
    choices: tuple[str, ...] = ()
    naming: str = ""
    marks: tuple[str, ...] = ()
    delimiter: str = ""
    reason: str
    kind_reason: str = ""


def choice_columns(
    table: Table, asked: tuple[str, ...] | None, given: Mapping[str, str], answers: Answers, *, must: bool
) -> AnswerColumns | None:
    """The columns of a multiple choice; None where it is none, TaskError where it ``must`` be one."""
    found = _find(table, asked, given, answers, must=must)
    if isinstance(found, TaskError):
        if must:
            raise found
        return None
    columns, answer, naming = found
    shown = asked is not None and SHOWN in asked and SHOWN not in given
    wanted = tuple(name for name in asked or () if not (shown and name == SHOWN)) or None
    fields = _fields(table, wanted, given, [*columns, answer], find_question(table, [*columns, answer]), "choice")
    return AnswerColumns(
        kind="choice",
        fields={**fields, **({SHOWN: ""} if shown else {})},
        target=answer,
        choices=columns,
        naming=naming,
        reason=f"the choices are in {', '.join(columns)}; {answer!r} names the right one {_NAMINGS[naming]}",
        kind_reason="" if must else f"choice: {', '.join(columns)} hold choices, and {answer!r} names one of them",
    )


def _find(
    table: Table, asked: tuple[str, ...] | None, given: Mapping[str, str], answers: Answers, *, must: bool
) -> tuple[tuple[str, ...], str, str] | TaskError:
    """The columns of the choices, that of the answer and how it names one; or why they are not there."""
    fewest = 2 if must else FEWEST_BARE
    columns = tuple(asked_column(table, name) for name in answers.choices) or find_choices(table, fewest)
    if not columns:
        return missing(table, "the choices: columns such as choice1, choice2, A, B, C, D, or one of lists")
    if must:
        check_given(asked, given)
    answer = asked_target(table, asked, given) or find_answer(table, columns)
    if answer is None:
        return missing(table, "the answer, which names one of the choices")
    naming = settle_naming(table, columns, answer, answers.first_choice)
    if naming is None:
        return TaskError(
            f"{table.source}: the answers in {answer!r} name none of the choices ({', '.join(columns)}).",
            "Write the text of the choice, its letter, or its number.",
        )
    return columns, answer, naming


_NAMINGS = {
    "text": "by its text",
    "name": "by its name",
    "letter": "by its letter",
    "from 0": "by its number, from 0",
    "from 1": "by its number, from 1",
}


def set_columns(
    table: Table, asked: tuple[str, ...] | None, given: Mapping[str, str], answers: Answers, *, must: bool
) -> AnswerColumns | None:
    """The columns of a task whose rows have several labels; None where it is none, TaskError where it ``must`` be one."""
    if must:
        check_given(asked, given)
    target = asked_target(table, asked, given)
    lists = find_lists(table, target)
    marks = check_marks(table, answers.marks) if answers.marks else () if target or lists else _marks(table, must)
    if not must and (not (lists or marks) or not _text_is_clear(table, asked, [*marks, *([lists] if lists else [])])):
        return None
    if not marks:
        target = target or lists or find_set_column(table, [find(name, table.columns) or "" for name in asked or ()])
        if target is None:
            raise missing(table, "the labels: a list, a text with delimiters, or columns of 0 and 1")
    taken = [*marks] if marks else [target or ""]
    fields = _fields(table, asked, given, taken, _text(table, taken), "multilabel")
    delimiter = "" if marks else answers.delimiter or find_delimiter(table.values(target or ""))
    return AnswerColumns(
        kind="multilabel",
        fields=fields,
        target=None if marks else target,
        marks=marks,
        delimiter=delimiter,
        reason=_said(marks, target, delimiter),
        kind_reason="" if must else f"multilabel: {_said(marks, target, delimiter)}",
    )


def _said(marks: Sequence[str], target: str | None, delimiter: str) -> str:
    if marks:
        return f"{len(marks)} columns of 0 and 1 are the labels: {', '.join(marks[:8])}{' …' if len(marks) > 8 else ''}"
    if delimiter:
        return f"the labels in {target!r} are separated by {delimiter!r}"
    return f"{target!r} holds the labels of a row as a list"


def _marks(table: Table, must: bool) -> tuple[str, ...]:
    if not must:
        return marks_alone(table)
    return () if find_set_column(table, ()) else find_marks(table)


def _text(table: Table, taken: Sequence[str]) -> tuple[str, ...]:
    rest = tuple(column for column in table.columns if column not in taken)
    pairs = [tuple(both) for pair in PAIRS if len(both := find_all(pair, rest)) == 2]
    return pairs[0] if pairs else one_text(table, taken)


def _text_is_clear(table: Table, asked: tuple[str, ...] | None, taken: Sequence[str]) -> bool:
    return bool(asked) or bool(_text(table, taken))


def _fields(
    table: Table,
    asked: tuple[str, ...] | None,
    given: Mapping[str, str],
    taken: Sequence[str],
    found: tuple[str, ...],
    kind: Kind,
) -> dict[str, str]:
    """Template field → header: as asked, else as found by name."""
    if asked is not None:
        return dict(zip(asked, asked_fields(table, asked, given, taken), strict=True))
    if not found:
        raise not_found(table, [], [])
    names = [plain(name) for name in found] if len(found) > 1 else [KINDS_OF_TASK[kind].field]
    return dict(zip(names, found, strict=True))
