"""The columns that a template or the ``[columns]`` of a task TOML ask for."""

from collections.abc import Mapping

from epigraph.errors import TaskError
from epigraph.tasks.cells import looks_like_labels
from epigraph.tasks.choice import Choice, Kind
from epigraph.tasks.doubt import ambiguous, missing, not_found
from epigraph.tasks.headers import IGNORED, LABEL, OUTPUT, PAIRS, REFERENCES, TEXT, find, find_all, named, plain, synonyms
from epigraph.tasks.table import Table

TARGETS = ("label", "output", "target", "completion", "answer")


def as_asked(table: Table, asked: tuple[str, ...] | None, given: Mapping[str, str], kind: Kind | None) -> Choice:
    """Columns where a template or ``[columns]`` names some of them."""
    _check_given(asked, given)
    target_key = next((name for name in TARGETS if name in given and name not in (asked or ())), None)
    target = _column(table, given[target_key]) if target_key else None
    taken = [column for column in (target, find_references(table, given)) if column is not None]
    fields = _asked_fields(table, asked, given, taken)
    if target is not None:
        return Choice(fields, target, "classification" if target_key == "label" else None, "as the task file says")
    if find_references(table, given) and kind == "generation":
        return Choice(fields, _free_target(table, fields, kind, must=False), "generation", "as the task file says")
    target = _free_target(table, fields, kind, must=True)
    by_label = target in find_all(LABEL, table.columns) and plain(target or "") not in OUTPUT
    return Choice(fields, target, "classification" if by_label else None, "the fields of the template")


def _check_given(asked: tuple[str, ...] | None, given: Mapping[str, str]) -> None:
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
            return _column(table, given[name])
    return next(iter(find_all(REFERENCES, table.columns)), None)


def _column(table: Table, header: str) -> str:
    column = find(header, table.columns)
    if column is None:
        raise missing(table, f"the column {header!r} that [columns] names")
    return column


def _asked_fields(
    table: Table, asked: tuple[str, ...] | None, given: Mapping[str, str], taken: list[str]
) -> tuple[str, ...]:
    rest = tuple(column for column in table.columns if column not in taken)
    if asked is not None:
        return tuple(_column(table, given[name]) if name in given else _field(table, name, rest) for name in asked)
    for pair in PAIRS:
        if len(both := find_all(pair, rest)) == 2:
            return tuple(both)
    texts = named(TEXT, rest) or [column for column in rest if not IGNORED.match(plain(column))]
    if len(texts) != 1:
        raise not_found(table, texts, taken)
    return (texts[0],)


def _field(table: Table, name: str, columns: tuple[str, ...]) -> str:
    column = find(name, columns)
    if column is not None:
        return column
    others = named(synonyms(name), columns)
    if len(others) != 1:
        raise missing(table, f"the field {{{name}}} of the template")
    return others[0]


def _free_target(table: Table, fields: tuple[str, ...], kind: Kind | None, *, must: bool) -> str | None:
    """The target among the columns that are no field: by name, else the only one that looks like labels."""
    rest = tuple(column for column in table.columns if column not in fields and not IGNORED.match(plain(column)))
    labels, outputs = named(LABEL, rest), named(OUTPUT, rest)
    found = (outputs or labels) if kind == "generation" else (labels or outputs)
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise ambiguous(table, [f"{' + '.join(fields)} → {name}" for name in found])
    if len(rest) == 1 and (kind is not None or looks_like_labels(table.values(rest[0]))):
        return rest[0]
    if must:
        raise not_found(table, list(fields), [])
    return None
