"""Which columns of a file are the task's fields, its target and its references.

    template field ──fields──► header        "premise" → "Premise",  "text" → "message"

What a task TOML says under ``[columns]`` wins; then what the headers say; then what the values look like. Where that leaves
a doubt, nothing is guessed: the error lists what was found and the lines of TOML that settle it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epigraph.tasks.asked import TARGETS, as_asked, find_references
from epigraph.tasks.cells import looks_like_labels
from epigraph.tasks.choice import Choice, Kind, by_name
from epigraph.tasks.doubt import missing
from epigraph.tasks.headers import LABEL, OUTPUT, REFERENCES, WORDS, find, find_all, named, plain, synonyms
from epigraph.tasks.layouts import can_unfold, find_layout, unfold
from epigraph.tasks.table import Table

__all__ = ["Columns", "Kind", "detect_columns", "fit_columns"]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a task.

    ``fields`` maps the template's field names to headers; ``target`` is None where a file has no answers. ``layout`` says
    how records are brought to ``input`` and ``output`` first (``plain``: they are as they are). ``words`` is a column that
    spells out the label (``label_text`` beside ``label``). ``reason`` says how they were found.
    """

    kind: Kind
    fields: Mapping[str, str]
    target: str | None
    references: str | None = None
    layout: str = "plain"
    words: str | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What a card keeps; entries that are None are left out, since TOML has no null."""
        entries = {"fields": dict(self.fields), "target": self.target, "references": self.references, "layout": self.layout}
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
        )


def detect_columns(
    table: Table, template_fields: tuple[str, ...] | None, given: Mapping[str, str], *, kind: Kind | None = None
) -> Columns:
    """Find the columns of a training file; ``given`` is the ``[columns]`` of a task TOML. Raises TaskError."""
    asked = template_fields or tuple(name for name in given if name not in (*TARGETS, *REFERENCES)) or None
    layout = find_layout(table) if not given and (asked is None or set(asked) <= {"text", "input"}) else "plain"
    table = unfold(table, layout)
    if layout != "plain":
        choice = Choice(("input",), "output", reason=f"the file has the layout {layout!r}")
    elif asked is None and not given:
        choice = by_name(table)
    else:
        choice = as_asked(table, asked, given, kind)
    found = kind or choice.kind or _kind_of(table, choice.target)
    names = asked or (choice.fields if len(choice.fields) > 1 else ("text",) if found == "classification" else ("input",))
    if asked is None:
        names = tuple(plain(name) for name in names)
    return Columns(
        kind=found,
        fields=dict(zip(names, choice.fields, strict=True)),
        target=choice.target,
        references=find_references(table, given) if found == "generation" else None,
        layout=layout,
        words=_words(table, choice) if found == "classification" else None,
        reason=choice.reason,
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
        only = only or find_all(synonyms(name), table.columns)
        if len(only) != 1:
            raise missing(table, f"the field {{{name}}} of the template (column {column!r} in the training file)")
        fields[name] = only[0]
    target = _fit_target(columns, table, fields)
    references = find_references(table, {}) if columns.kind == "generation" else None
    references = find(columns.references, table.columns) if columns.references else references
    if need_target and target is None and references is None:
        raise missing(table, f"the {_answer(columns.kind)} (column {columns.target!r} in the training file)")
    return Columns(kind=columns.kind, fields=fields, target=target, references=references, layout=layout)


def _has_field(columns: Columns, table: Table) -> bool:
    return all(find_all((column, name), table.columns) for name, column in columns.fields.items())


def _fit_target(columns: Columns, table: Table, fields: Mapping[str, str]) -> str | None:
    rest = tuple(column for column in table.columns if column not in fields.values())
    if columns.target is not None and (same := find(columns.target, rest)) is not None:
        return same
    others = named(LABEL if columns.kind == "classification" else OUTPUT, rest)
    return others[0] if len(others) == 1 else None


def _answer(kind: Kind) -> str:
    return "label" if kind == "classification" else "output"
