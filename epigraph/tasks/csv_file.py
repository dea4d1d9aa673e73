"""CSV and TSV: the delimiter is found, quoted newlines keep the right line numbers, a quote left open is named.

A quote that is never closed swallows the rows after it without a word in most readers. Two checks find it: a sentinel
line after the text must come back as a record of its own, and a record over several lines must obey the strict rules.
"""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal

from epigraph.errors import DataError
from epigraph.tasks.row import Fault
from epigraph.tasks.table import Table

_DELIMITERS = (",", ";", "\t", "|")
_NO_DELIMITER = "\x1f"  # a file of one column: nothing in it separates cells
_SENTINEL = "\x1eend\x1e"
_SNIFFED = 200


@dataclass(frozen=True)
class _Dialect:
    delimiter: str
    spaced: bool = False  # ", " separates the cells
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL

    def reader(self, lines: Iterator[str], *, strict: bool = False) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=self.spaced, quoting=self.quoting, strict=strict)


@dataclass(frozen=True)
class _Record:
    line: int
    cells: list[str]


def read_csv(text: str, source: str, *, tabs: bool = False) -> Table:
    """Parse a table with a header line; ``tabs`` says that the suffix was .tsv. Raises DataError."""
    lines = list(io.StringIO(text, newline=""))
    with _long_cells():
        dialect = _sniff(lines, ("\t",) if tabs else _DELIMITERS)
        try:
            records = _parse(lines, dialect, source)
        except DataError:
            plain = _without_quotes(lines, dialect)
            if plain is None:
                raise
            records = plain
    return _table(records, source)


@contextmanager
def _long_cells() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters a cell while we read."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _sniff(lines: list[str], delimiters: tuple[str, ...]) -> _Dialect:
    """The delimiter that splits the header and gives most of the first rows as many cells as the header has."""
    best, best_score = _Dialect(_NO_DELIMITER), (0.0, 0)
    for delimiter in delimiters:
        head = [cells for cells in islice(_Dialect(delimiter).reader(iter(lines)), _SNIFFED) if cells]
        if not head or len(head[0]) < 2:
            continue
        same = sum(len(cells) == len(head[0]) for cells in head) / len(head)
        if (same, len(head[0])) > best_score:
            first = next(line for line in lines if line.strip())
            best, best_score = _Dialect(delimiter, f"{delimiter} " in first), (same, len(head[0]))
    return best


def _records(lines: list[str], dialect: _Dialect) -> Iterator[_Record]:
    """Every record with the line where it starts; blank lines are passed over."""
    read = 0

    def counted() -> Iterator[str]:
        nonlocal read
        for line in lines:
            read += 1
            yield line

    start = 1
    for cells in dialect.reader(counted()):
        if any(cell.strip() for cell in cells):
            yield _Record(start, cells)
        start = read + 1


def _parse(lines: list[str], dialect: _Dialect, source: str) -> list[_Record]:
    records = list(_records([*lines, _SENTINEL], dialect))
    if records[-1].cells != [_SENTINEL] or any(_swallows(pair, lines, dialect) for pair in pairwise(records)):
        raise _open_quote(lines, dialect, records, source)
    return records[:-1]


def _swallows(pair: tuple[_Record, _Record], lines: list[str], dialect: _Dialect) -> bool:
    """Whether a record runs over lines and is malformed: its quote was closed by the opening quote of a later row."""
    record, following = pair
    several = _breaks("".join(record.cells)) > 0
    return several and not _well_formed(lines[record.line - 1 : following.line - 1], dialect)


def _well_formed(lines: list[str], dialect: _Dialect) -> bool:
    try:
        list(dialect.reader(iter(lines), strict=True))
    except csv.Error:
        return False
    return True


def _open_quote(lines: list[str], dialect: _Dialect, records: list[_Record], source: str) -> DataError:
    """The error for a quote left open: at the first record that runs over lines and is malformed, else in the last."""
    swallowing = [pair[0].line for pair in pairwise(records) if _swallows(pair, lines, dialect)]
    last = records[-1].line
    line = swallowing[0] if swallowing else last - 1 + _quote_line(lines[last - 1 :], dialect)
    quoted = lines[line - 1].strip()[:60]
    return DataError(
        f'{source} has unbalanced quotes: the " that opens on line {line} is never closed: {quoted!r}.',
        'Close it, or write a quote inside a quoted cell twice ("").',
    )


def _quote_line(lines: list[str], dialect: _Dialect) -> int:
    """The 1-based line of the quote that is open at the end: the record's last cell runs from there to the end."""
    cells = next(iter(dialect.reader(iter(lines))))
    return _breaks("".join(lines)) - _breaks(cells[-1]) + 1


def _breaks(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _without_quotes(lines: list[str], dialect: _Dialect) -> list[_Record] | None:
    """Tab-separated text often uses " as an ordinary character: read it so where every row then has all its cells."""
    if dialect.delimiter != "\t":
        return None
    records = list(_records(lines, _Dialect("\t", quoting=csv.QUOTE_NONE)))
    return records if len({len(record.cells) for record in records}) == 1 else None


def _table(records: list[_Record], source: str) -> Table:
    columns = _header(records[0].cells, source)
    kept, faults = [], []
    for record in records[1:]:
        if len(record.cells) > len(columns) and any(cell.strip() for cell in record.cells[len(columns) :]):
            faults.append(Fault(line=record.line, reason=f"{len(record.cells)} cells where the header has {len(columns)}"))
        else:
            kept.append(record)
    return Table(
        columns=columns,
        records=tuple(dict(zip(columns, record.cells, strict=False)) for record in kept),
        lines=tuple(record.line for record in kept),
        faults=tuple(faults),
        source=source,
    )


def _header(cells: list[str], source: str) -> tuple[str, ...]:
    """The names in the header; a nameless column gets its number, as in a table that was saved with its index."""
    columns = tuple(cell.strip() or f"unnamed {number}" for number, cell in enumerate(cells, start=1))
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{source} has two columns named {twice[0]!r}.", "Rename one of them in the header line.")
    return columns
