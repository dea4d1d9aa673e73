"""Which columns of a file are the task's fields, its target and its references.

    template field ──fields──► header        "premise" → "Premise",  "text" → "message"

What a task TOML says under ``[columns]`` wins; then what the headers say; then what the values look like. Where that leaves
a doubt, nothing is guessed: the error lists what was found and the lines of TOML that settle it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epigraph.tasks.asked import TARGETS, Answers, as_asked, find_references
from epigraph.tasks.cells import distinct_texts, looks_like_labels
from epigraph.tasks.choice import Choice, by_name
from epigraph.tasks.doubt import missing
from epigraph.tasks.headers import LABEL, OUTPUT, REFERENCES, WORDS, find, find_all, named, plain, synonyms
from epigraph.tasks.kinds import KINDS_OF_TASK, Kind
from epigraph.tasks.label_sets import SETS, find_delimiter
from epigraph.tasks.layouts import can_unfold, find_layout, unfold
from epigraph.tasks.many_answers import AnswerColumns, choice_columns, set_columns
from epigraph.tasks.multiple_choice import ANSWERS, fit_choices
from epigraph.tasks.scale import scale_reason
from epigraph.tasks.table import Table

__all__ = ["Answers", "Columns", "Kind", "detect_columns", "fit_columns"]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a task.

    ``fields`` maps the template's field names to headers; ``target`` is None where a file has no answers. ``layout`` says
    how records are brought to ``input`` and ``output`` first (``plain``: they are as they are). ``words`` is a column that
    spells out the label (``label_text`` beside ``label``). ``reason`` says how they were found, ``kind_reason`` why the kind
    is what it is, where the user did not say it. ``choices`` are the columns of a row's choices (or one of lists), and
    ``naming`` how the target names one of them. ``marks`` are columns of 0 and 1, each a label; ``delimiter`` stands
    between the labels of a cell. A field whose header is "" shows the row's choices.
    """

    kind: Kind
    fields: Mapping[str, str]
    target: str | None
    references: str | None = None
    layout: str = "plain"
    words: str | None = None
    reason: str = ""
    kind_reason: str = ""
    choices: tuple[str, ...] = ()
    naming: str = ""
    marks: tuple[str, ...] = ()
    delimiter: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What a card keeps; entries that are None are left out, since TOML has no null."""
        entries: dict[str, Any] = {
            "fields": dict(self.fields),
            "target": self.target,
            "references": self.references,
            "layout": self.layout,
        }
        answers: dict[str, Any] = {"choices": list(self.choices), "naming": self.naming, "marks": list(self.marks)}
        entries |= {name: value for name, value in (answers | {"delimiter": self.delimiter}).items() if value}
        return {name: value for name, value in entries.items() if value is not None}

    @classmethod
    def from_dict(cls, kind: Kind, data: Mapping[str, Any]) -> "Columns":
        """Rebuild what ``to_dict`` gave."""
        return cls(
            kind=kind,
            fields=dict(data["fields"]),
            target=data.get("target"),
            references=data.get("references"),
            layout=data.get("layout", "plain"),
            choices=tuple(data.get("choices", ())),
            naming=data.get("naming", ""),
            marks=tuple(data.get("marks", ())),
            delimiter=data.get("delimiter", ""),
        )


def detect_columns(
    table: Table,
    template_fields: tuple[str, ...] | None,
    given: Mapping[str, str],
    *,
    kind: Kind | None = None,
    answers: Answers | None = None,
) -> Columns:
    """Find the columns of a training file; ``given`` and ``answers`` are the ``[columns]`` of a task TOML. TaskError."""
    asked = template_fields or tuple(name for name in given if name not in (*TARGETS, *REFERENCES)) or None
    layout = find_layout(table) if not given and (asked is None or set(asked) <= {"text", "input"}) else "plain"
    if layout == "plain":
        for find_them, own in ((choice_columns, "choice"), (set_columns, "multilabel")):
            if kind in (None, own) and (many := find_them(table, asked, given, answers or Answers(), must=kind == own)):
                return _of_many(many)
    table = unfold(table, layout)
    if layout != "plain":
        choice = Choice(("input",), "output", reason=f"the file has the layout {layout!r}")
    elif asked is None and not given:
        choice = by_name(table)
    else:
        choice = as_asked(table, asked, given, kind)
    found = kind or choice.kind or _kind_of(table, choice.target)
    why = scale_reason(choice.target or "", distinct_texts(table.values(choice.target or ""))) if not kind else ""
    if found == "classification" and why:
        found = "ordinal"
    of_kind = KINDS_OF_TASK[found]
    names = asked or (choice.fields if len(choice.fields) > 1 else (of_kind.field,))
    if asked is None:
        names = tuple(plain(name) for name in names)
    return Columns(
        kind=found,
        fields=dict(zip(names, choice.fields, strict=True)),
        target=choice.target,
        references=find_references(table, given) if of_kind.writes else None,
        layout=layout,
        words=_words(table, choice) if of_kind.one_label else None,
        reason=choice.reason,
        kind_reason=why if found == "ordinal" else "" if kind else _kind_reason(table, choice, found),
    )


def _kind_reason(table: Table, choice: Choice, found: Kind) -> str:
    """Why a kind was taken that no column's name settles, and how to have the other; "" where there is no doubt."""
    if choice.target is None or found != "classification":
        return ""
    values = distinct_texts(table.values(choice.target))
    delimiter = find_delimiter(values)
    several = [text for text in values if delimiter and delimiter in text]
    if several and any(part.strip() in values for text in several for part in text.split(delimiter)):
        return (
            f"classification: {several[0]!r} in {choice.target!r} is taken for one label of {len(values)}; "
            'kind = "multilabel" in a task TOML (or --task-kind) takes it for several'
        )
    if choice.kind is None:
        return (
            f"classification: {choice.target!r} holds {len(values)} short texts again and again, as labels are; "
            'kind = "generation" in a task TOML (or --task-kind) writes them'
        )
    return ""


def _of_many(found: AnswerColumns) -> Columns:
    return Columns(
        kind=found.kind,
        fields=found.fields,
        target=found.target,
        reason=found.reason,
        kind_reason=found.kind_reason,
        choices=found.choices,
        naming=found.naming,
        marks=found.marks,
        delimiter=found.delimiter,
    )


def _kind_of(table: Table, target: str | None) -> Kind:
    """Classification where the target has at most 20 distinct values of at most 4 words, three rows each or more."""
    if target is not None and looks_like_labels(table.values(target), most=20, words=4):
        return "classification"
    return "generation"


def _words(table: Table, choice: Choice) -> str | None:
    if choice.target is None or plain(choice.target) not in ("label", "labels"):
        return None
    return next((name for name in find_all(WORDS, table.columns) if name not in choice.fields), None)


def fit_columns(columns: Columns, table: Table, *, need_target: bool) -> Columns:
    """The same columns in another file of the task, whose headers may be written differently. Raises TaskError."""
    layout = columns.layout if can_unfold(table, columns.layout) else "plain"
    if layout == "plain" and len(columns.fields) == 1 and not _has_field(columns, table):
        layout = find_layout(table)
    table = unfold(table, layout)
    fields = {}
    for name, column in columns.fields.items():
        only = ("input",) if layout != "plain" else find_all((column, name), table.columns)[:1]
        only = ("",) if not column else only or find_all(synonyms(name), table.columns)
        if len(only) != 1:
            raise missing(table, f"the field {{{name}}} of the template (column {column!r} in the training file)")
        fields[name] = only[0]
    of_kind = KINDS_OF_TASK[columns.kind]
    choices = _fit_choices(columns, table)
    target = _fit_target(columns, table, [*fields.values(), *choices])
    marks = _fit_marks(columns, table, need_target=need_target)
    references = find_references(table, {}) if of_kind.writes else None
    references = find(columns.references, table.columns) if columns.references else references
    if need_target and target is None and references is None and not marks:
        raise missing(table, f"the {of_kind.answer} (column {columns.target!r} in the training file)")
    return replace(
        columns,
        fields=fields,
        target=target,
        references=references,
        layout=layout,
        choices=choices,
        marks=marks,
        words=None,
        reason="",
        kind_reason="",
    )


def _has_field(columns: Columns, table: Table) -> bool:
    return all(find_all((column, name), table.columns) for name, column in columns.fields.items())


def _fit_target(columns: Columns, table: Table, taken: Sequence[str]) -> str | None:
    rest = tuple(column for column in table.columns if column not in taken)
    if columns.marks:
        return None
    if columns.target is not None and (same := find(columns.target, rest)) is not None:
        return same
    names = {"choice": ANSWERS, "multilabel": SETS, "generation": OUTPUT}.get(columns.kind, LABEL)
    others = named(names, rest)
    return others[0] if len(others) == 1 else None


def _fit_choices(columns: Columns, table: Table) -> tuple[str, ...]:
    if columns.kind != "choice":
        return ()
    found = fit_choices(columns.choices, table)
    if found is None:
        raise missing(table, f"the choices (columns {', '.join(columns.choices)} in the training file)")
    return found


def _fit_marks(columns: Columns, table: Table, *, need_target: bool) -> tuple[str, ...]:
    """The 0/1 columns here, in the spelling of the training file's labels as far as the header allows it."""
    found = [find(mark, table.columns) for mark in columns.marks]
    if need_target and None in found:
        lost = columns.marks[found.index(None)]
        raise missing(table, f"the label {lost!r}")
    return tuple(mark for mark, column in zip(columns.marks, found, strict=True) if column == mark)
