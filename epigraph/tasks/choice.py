"""The columns that a file's headers, and where these are silent its values, make the input and the answer."""

from dataclasses import dataclass

from epigraph.errors import TaskError
from epigraph.tasks.cells import cell_text, distinct_texts, looks_like_labels
from epigraph.tasks.doubt import ambiguous, not_found
from epigraph.tasks.headers import (
    IGNORED,
    IN_OUT,
    LABEL,
    OUTPUT,
    PAIRS,
    REFERENCES,
    TEXT,
    WORDS,
    find,
    find_all,
    named,
    plain,
)
from epigraph.tasks.kinds import Kind
from epigraph.tasks.table import Table


@dataclass(frozen=True)
class Choice:
    """Columns that go together; ``kind`` is None where the values of the target decide."""

    fields: tuple[str, ...]
    target: str | None
    kind: Kind | None = None
    reason: str = "by their names"


def by_name(table: Table) -> Choice:
    """Read the headers: pairs with a label, then input and output, then one text with a label, then the values."""
    pair = _pair(table, table.columns)
    if pair is not None:
        return pair
    texts, labels = named(TEXT, table.columns), named(LABEL, table.columns)
    ways = [(find(a, table.columns), find(b, table.columns)) for a, b in IN_OUT]
    ways = list(dict.fromkeys((a, b) for a, b in ways if a is not None and b is not None))
    labels_beside = [label for label in labels if label not in {b for _, b in ways}]
    if ways and not _is_text_and_label(texts, labels):
        if len(ways) > 1 or (labels_beside and not _is_canonical(ways[0], labels_beside)):
            raise ambiguous(table, [f"{a} → {b}" for a, b in ways] + [f"{texts[0]} → {b}" for b in labels_beside if texts])
        source, target = ways[0]
        assert source is not None
        return Choice((source,), target)
    if texts and labels:
        if len(texts) > 1 or len(labels) > 1:
            raise ambiguous(table, [f"{text} → {label}" for text in texts for label in labels])
        return Choice((texts[0],), labels[0], None if plain(labels[0]) in OUTPUT else "classification")
    references = find_all(REFERENCES, table.columns)
    if len(texts) == 1 and references:
        return Choice((texts[0],), None, "generation")
    return _by_values(table, texts, labels)


def _is_text_and_label(texts: list[str], labels: list[str]) -> bool:
    return bool(texts) and bool(labels) and plain(texts[0]) == TEXT[0] and plain(labels[0]) == LABEL[0]


def _is_canonical(way: tuple[str | None, str | None], labels: list[str]) -> bool:
    """Whether input and output are so clearly named that a topic or a score beside them does not make a doubt."""
    names = tuple(plain(name or "") for name in way)
    return names in (("input", "output"), ("input", "target"), ("prompt", "completion")) and plain(labels[0]) != LABEL[0]


def _pair(table: Table, columns: tuple[str, ...]) -> Choice | None:
    """Two texts and a label, or a passage, a question and an answer."""
    for first, second in PAIRS:
        pair = find_all((first, second), columns)
        rest = tuple(column for column in columns if column not in pair)
        if len(pair) < 2:
            continue
        labels = named(LABEL, rest)
        answers = find_all(("answer",), rest) if second == "question" else []
        if len(labels) > 1 and not answers:
            raise ambiguous(table, [f"{pair[0]} + {pair[1]} → {label}" for label in labels])
        if labels or answers:
            return Choice(tuple(pair), (answers or labels)[0], None if answers else "classification")
    return None


def _by_values(table: Table, texts: list[str], labels: list[str]) -> Choice:
    """Where names do not say it all: two columns, one of which holds few short values."""
    columns = tuple(c for c in table.columns if not IGNORED.match(plain(c)) and plain(c) not in WORDS)
    known = [*texts, *labels]
    rest = [column for column in columns if column not in known]
    if len(labels) == 1 and not texts and len(rest) == 1:
        return Choice((rest[0],), labels[0], "classification", f"{rest[0]!r} is the only column beside {labels[0]!r}")
    like = [column for column in rest if looks_like_labels(table.values(column))]
    if len(texts) + len(rest) == 2 and len(texts) <= 1 and not labels and len(like) == 1:
        text = next(column for column in (*texts, *rest) if column != like[0])
        _refuse_headless(table, text, like[0])
        values = len(distinct_texts(table.values(like[0])))
        why = f"{like[0]!r} has {values} distinct short values, {text!r} is the text"
        return Choice((text,), like[0], "classification", why)
    raise not_found(table, texts, labels)


def _refuse_headless(table: Table, text: str, label: str) -> None:
    if cell_text(label) in distinct_texts(table.values(label)):
        raise TaskError(
            f"{table.source} seems to have no header: its first line, {text[:40]!r}, {label!r}, is like the rows below.",
            "Add a first line such as: text,label",
        )
