"""Parquet: columns as stored; class numbers of a hub data set become the class names its metadata keeps."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epigraph.errors import DataError
from epigraph.tasks.table import Table
from epigraph.tasks.text_file import read_bytes


def read_parquet(path: Path) -> Table:
    """Read the file whole; ``lines`` are record numbers. Raises NotFound, DataError."""
    import pyarrow
    from pyarrow import parquet

    data = read_bytes(path)
    try:
        arrow = parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}", "Write it again.") from None
    names = _class_names(arrow.schema.metadata or {})
    records = [named(record, names) for record in arrow.to_pylist()]
    return Table(
        columns=tuple(arrow.column_names),
        records=tuple(records),
        lines=tuple(range(1, len(records) + 1)),
        source=str(path),
    )


def named(record: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
    """A record whose class numbers are replaced by class names; -1, the hub's mark for no label, becomes None."""
    if not names:
        return record
    return {column: _name(value, names[column]) if column in names else value for column, value in record.items()}


def _name(value: Any, names: Sequence[str]) -> Any:
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Column → class names, from the metadata that the ``datasets`` library writes."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return {
            column: feature["names"]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, AttributeError):
        return {}
