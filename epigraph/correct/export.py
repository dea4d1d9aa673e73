"""Mistakes as a CSV that a person corrects and ``fix`` takes: the data's own columns, and what the prompt answered beside them.

text, label, answer, probability, suspicion        a person writes what is right under the data's own column: ``label``
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epigraph.correct.mistakes import Mistake
from epigraph.library.disk import replace_file, storing
from epigraph.tasks.columns import fit_columns
from epigraph.tasks.layouts import unfold
from epigraph.tasks.sources import read_table
from epigraph.tasks.table import Table
from epigraph.tasks.task import Task

ADDED = ("answer", "probability", "suspicion")


def write_mistakes(file: Path, task: Task, data: str, mistakes: Sequence[Mistake]) -> Path:
    """Write these mistakes of a data file, the worst first. StorageFailed where it cannot be written."""
    table = read_table(data)
    table = unfold(table, fit_columns(task.columns, table, need_target=True).layout)
    with storing("the mistakes", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, as_csv(table, mistakes).encode())
    return file


def as_csv(table: Table, mistakes: Sequence[Mistake]) -> str:
    """The file's text; each mistake is the record of its line."""
    by_line = dict(zip(table.lines, table.records, strict=True))
    added = [name if name not in table.columns else f"prompt's {name}" for name in ADDED]
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([*table.columns, *added])
    for one in mistakes:
        own = [_cell(by_line[one.row.line], column) for column in table.columns]
        sure = "" if one.probability is None else f"{one.probability:.4f}"
        writer.writerow([*own, one.answer, sure, f"{one.suspicion:.4f}"])
    return out.getvalue()


def _cell(record: Mapping[str, Any], column: str) -> str:
    value = record.get(column)
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else str(value)
