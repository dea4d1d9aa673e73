"""Any data file or data set → Table, by suffix.

Files: .csv .tsv .jsonl .ndjson .json .parquet .txt (one text a line). Beside them ``hub:owner/name[:config][@split]`` and
folders that the ``datasets`` library saved.
"""

import io
from pathlib import Path

from epigraph.errors import DataError
from epigraph.tasks.csv_file import read_csv
from epigraph.tasks.hub import is_hub, is_saved, read_hub, read_saved
from epigraph.tasks.json_file import read_json, read_jsonl
from epigraph.tasks.parquet_file import read_parquet
from epigraph.tasks.table import Table
from epigraph.tasks.text_file import read_text

__all__ = ["SUFFIXES", "Table", "read_table"]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt")


def read_table(path: Path | str) -> Table:
    """Read every record. Raises NotFound, DataError, and FetchFailed or Unsupported for the hub."""
    if is_hub(path):
        return read_hub(str(path))
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        return _read_folder(path)
    folder, at, split = str(path).rpartition("@")
    if at and is_saved(Path(folder)):
        return read_saved(Path(folder), split)
    if suffix == ".parquet":
        return read_parquet(path)
    text, source = read_text(path), str(path)
    if suffix in (".csv", ".tsv"):
        return read_csv(text, source, tabs=suffix == ".tsv")
    if suffix in (".jsonl", ".ndjson"):
        return read_jsonl(text, source)
    if suffix == ".json":
        return read_json(text, source)
    if suffix == ".txt":
        return _read_lines(text, source)
    raise DataError(f"{path} has the suffix {suffix or '(none)'!r}.", f"Epigraph reads {' '.join(SUFFIXES)}.")


def _read_folder(path: Path) -> Table:
    if is_saved(path):
        return read_saved(path)
    files = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    found = f"it has {', '.join(files[:8])}" if files else "it has no data file"
    raise DataError(f"{path} is a folder, one data file was expected; {found}.", "Give the file itself.")


def _read_lines(text: str, source: str) -> Table:
    """One text a line, in a column named ``text``; blank lines are passed over."""
    kept = [(n, line.strip()) for n, line in enumerate(io.StringIO(text, newline=""), start=1) if line.strip()]
    return Table(
        columns=("text",),
        records=tuple({"text": line} for _, line in kept),
        lines=tuple(number for number, _ in kept),
        source=source,
    )
