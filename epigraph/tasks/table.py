"""A data file as it was read: headers, records, and where each record starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epigraph.tasks.row import Fault


@dataclass(frozen=True, kw_only=True)
class Table:
    """Records of a data file, before anybody asks what its columns mean.

    ``lines`` holds for each record the 1-based line where it starts in the file (the 1-based record number where the file
    has no lines, as in Parquet). ``faults`` are the rows that could not be read at all; they are not among ``records``.
    """

    columns: tuple[str, ...]
    records: tuple[Mapping[str, Any], ...]
    lines: tuple[int, ...]
    faults: tuple[Fault, ...] = ()
    source: str = ""

    def values(self, column: str) -> list[Any]:
        """The cells of one column; None where a record lacks it."""
        return [record.get(column) for record in self.records]


def columns_of(records: list[Mapping[str, Any]]) -> tuple[str, ...]:
    """Every key of the records, in order of first appearance."""
    return tuple(dict.fromkeys(key for record in records for key in record))
