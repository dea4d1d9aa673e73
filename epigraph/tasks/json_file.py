"""JSON lines, and JSON that is a list of objects; every record knows the line where it starts.

    {"text": …}\\n{"text": …}      [{…}, {…}]      {"data": [{…}, {…}]}

A line that is not JSON is a fault of its row. A JSON list that breaks off is a fault of the file.
"""

import io
import json
import re
from collections.abc import Mapping
from typing import Any

from epigraph.errors import DataError
from epigraph.tasks.row import Fault
from epigraph.tasks.table import Table, columns_of

_OPENING = re.compile(r'\s*(?:\{\s*"[^"\\]*"\s*:\s*)?\[\s*')
_BETWEEN = re.compile(r"\s*(?:,\s*|(?=\]))")
_CLOSING = re.compile(r"\]\s*\}?\s*$")


def read_jsonl(text: str, source: str) -> Table:
    """One JSON object a line; blank lines are passed over. A file that is one JSON list is read as such."""
    if text.lstrip().startswith("["):
        return read_json(text, source)
    records: list[Mapping[str, Any]] = []
    lines: list[int] = []
    faults: list[Fault] = []
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if not line.strip():
            continue
        record = _object(line)
        if isinstance(record, str):
            faults.append(Fault(line=number, reason=record))
        else:
            records.append(record)
            lines.append(number)
    if not records:
        raise DataError(f"{source} has no JSON object: line {faults[0].line} is {faults[0].reason}.", _EXPECTED)
    return Table(
        columns=columns_of(records), records=tuple(records), lines=tuple(lines), faults=tuple(faults), source=source
    )


_EXPECTED = 'Write one object a line, such as {"text": "…", "label": "…"}.'


def _object(line: str) -> dict[str, Any] | str:
    """The object on a line, or the reason why there is none."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg} at column {error.colno})"
    except (ValueError, RecursionError) as error:
        return f"not JSON ({type(error).__name__})"
    return value if isinstance(value, dict) else "not a JSON object"


def read_json(text: str, source: str) -> Table:
    """A list of objects, bare or as the only value of an object. JSON lines under the wrong suffix are read too."""
    opening = _OPENING.match(text)
    if opening is None:
        if _object(text.strip().split("\n", 1)[0].strip()) != "not a JSON object" and text.lstrip().startswith("{"):
            return _lines_instead(text, source)
        raise DataError(f"{source} is not a list of objects.", 'Write [{"text": "…", "label": "…"}, …].')
    records, starts, faults = _elements(text, opening.end(), source)
    if not records:
        raise DataError(f"{source} is an empty list: it has no rows.", 'Write [{"text": "…", "label": "…"}, …].')
    return Table(columns=columns_of(records), records=tuple(records), lines=tuple(starts), faults=faults, source=source)


def _lines_instead(text: str, source: str) -> Table:
    table = read_jsonl(text, source)
    if len(table.records) == 1 and not table.faults and all(isinstance(v, dict | list) for v in table.records[0].values()):
        raise DataError(f"{source} is one JSON object, a list of objects was expected.", _EXPECTED)
    return table


def _elements(text: str, at: int, source: str) -> tuple[list[Mapping[str, Any]], list[int], tuple[Fault, ...]]:
    """The objects of a list whose first element starts at ``at``, the lines they start on, and what is no object."""
    decoder, line = json.JSONDecoder(), text.count("\n", 0, at) + 1
    records: list[Mapping[str, Any]] = []
    lines: list[int] = []
    faults: list[Fault] = []
    while not text.startswith("]", at):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise _broken_list(source, line, error) from None
        if isinstance(value, dict):
            records.append(value)
            lines.append(line)
        else:
            faults.append(Fault(line=line, reason="not a JSON object"))
        between = _BETWEEN.match(text, end)
        if between is None:
            raise _broken_list(source, line, None)
        line += text.count("\n", at, between.end())
        at = between.end()
    if not _CLOSING.match(text, at):
        raise DataError(f"{source}: line {line} has text after the end of the list.", "Keep one list of objects.")
    return records, lines, tuple(faults)


def _broken_list(source: str, line: int, error: Exception | None) -> DataError:
    why = error.msg if isinstance(error, json.JSONDecodeError) else "a comma or ] is missing after it"
    return DataError(f"{source} is not JSON: the element on line {line}: {why}.", "Is the file complete?")
