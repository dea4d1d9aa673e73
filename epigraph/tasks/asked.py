"""The columns that a template or the ``[columns]`` of a task TOML ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epigraph.errors import TaskError
from epigraph.tasks.cells import looks_like_labels
from epigraph.tasks.choice import Choice
from epigraph.tasks.doubt import ambiguous, missing, not_found
from epigraph.tasks.headers import IGNORED, LABEL, OUTPUT, PAIRS, REFERENCES, TEXT, find, find_all, named, plain, synonyms
from epigraph.tasks.kinds import Kind
from epigraph.tasks.table import Table

TARGETS = ("label", "output", "target", "completion", "answer")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a task TOML says of answers that take several columns or several values of one."""

    choices: tuple[str, ...] = ()
    """The columns of the choices, or one of lists."""
    marks: tuple[str, ...] = ()
    """The columns of 0 and 1 that are labels."""
    delimiter: str = ""
    """What stands between the labels of a cell."""
    first_choice: int | None = None
    """The number of the first choice, 0 or 1, where answers are numbers."""


def as_asked(table: Table, asked: tuple[str, ...] | None, given: Mapping[str, str], kind: Kind | None) -> Choice:
    """Columns where a template or ``[columns]`` names some of them."""
    check_given(asked, given)
    target_key = next((name for name in TARGETS if name in given and name not in (asked or ())), None)
    target = asked_column(table, given[target_key]) if target_key else None
    taken = [column for column in (target, find_references(table, given)) if column is not None]
    fields = asked_fields(table, asked, given, taken)
    if target is not None:
        return Choice(fields, target, "classification" if target_key == "label" else None, "as the task file says")
    if find_references(table, given) and kind == "generation":
        return Choice(fields, _free_target(table, fields, kind), "generation", "as the task file says")
    target = _free_target(table, fields, kind)
    if target is None:
        labels = named(LABEL, fields)
        raise _holds_answer(labels[0]) if labels else not_found(table, list(fields), [])
    by_label = target in find_all(LABEL, table.columns) and plain(target or "") not in OUTPUT
    return Choice(fields, target, "classification" if by_label else None, "the fields of the template")


def check_given(asked: tuple[str, ...] | None, given: Mapping[str, str]) -> None:
    """TaskError for a name under [columns] that the template has not, or two targets."""
    known = (*(asked or ()), *TARGETS, *REFERENCES)
    for name in given:
        if name not in known:
            raise TaskError(
                f"[columns] maps {name!r}, but the template has the fields {', '.join(asked or ())}.",
                f"Use {{{name}}} in the template, or one of {', '.join(known)}.",
            )
    targets = [name for name in TARGETS if name in given and name not in (asked or ())]
    if len(targets) > 1:
        raise TaskError(f"[columns] names two targets: {targets[0]} and {targets[1]}.", "Keep the one to be learned.")


def find_references(table: Table, given: Mapping[str, str]) -> str | None:
    """The column of accepted outputs: as ``[columns]`` says, else by its name."""
    for name in REFERENCES:
        if name in given:
            return asked_column(table, given[name])
    return next(iter(find_all(REFERENCES, table.columns)), None)


def asked_target(table: Table, asked: tuple[str, ...] | None, given: Mapping[str, str]) -> str | None:
    """The column of the answers where [columns] names it."""
    key = next((name for name in TARGETS if name in given and name not in (asked or ())), None)
    return asked_column(table, given[key]) if key else None


def asked_column(table: Table, header: str) -> str:
    """The column that [columns] names. TaskError if it is not there."""
    column = find(header, table.columns)
    if column is None:
        raise missing(table, f"the column {header!r} that [columns] names")
    return column


def asked_fields(
    table: Table, asked: tuple[str, ...] | None, given: Mapping[str, str], taken: Sequence[str]
) -> tuple[str, ...]:
    """The columns of the template's fields, or of one text where it is not said; ``taken`` are the answers'. TaskError."""
    rest = tuple(column for column in table.columns if column not in taken)
    if asked is not None:
        return tuple(asked_column(table, given[name]) if name in given else _field(table, name, rest) for name in asked)
    for pair in PAIRS:
        if len(both := find_all(pair, rest)) == 2:
            return tuple(both)
    texts = named(TEXT, rest) or [column for column in rest if not IGNORED.match(plain(column))]
    if len(texts) != 1:
        raise not_found(table, texts, list(taken))
    return (texts[0],)


def _field(table: Table, name: str, columns: tuple[str, ...]) -> str:
    column = find(name, columns)
    if column is not None:
        return column
    others = named(synonyms(name), columns)
    if len(others) != 1:
        if find(name, table.columns) is not None:  # one that is taken
            raise _holds_answer(name)
        raise missing(table, f"the field {{{name}}} of the template")
    return others[0]


def _holds_answer(name: str) -> TaskError:
    return TaskError(f"the template holds {{{name}}}, which is the answer to be learned.", "Leave it out of the template.")


def _free_target(table: Table, fields: tuple[str, ...], kind: Kind | None) -> str | None:
    """The target among the columns that are no field: by name, else the only one that looks like labels, else none."""
    rest = tuple(column for column in table.columns if column not in fields and not IGNORED.match(plain(column)))
    labels, outputs = named(LABEL, rest), named(OUTPUT, rest)
    found = (outputs or labels) if kind == "generation" else (labels or outputs)
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise ambiguous(table, [f"{' + '.join(fields)} → {name}" for name in found])
    if len(rest) == 1 and (kind is not None or looks_like_labels(table.values(rest[0]))):
        return rest[0]
    return None
