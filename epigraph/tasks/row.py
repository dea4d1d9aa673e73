"""One example of a task, and one fault found in a data file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One example, as text.

    ``fields`` maps the template's field names to their texts. ``target`` is the label as the data writes it, the right one
    of ``choices``, or the output to generate; None where the row is not labelled (prediction). ``labels`` are all labels
    of a row that may have several: then ``target`` lists them, and is "" where there are none. ``references`` are all
    accepted outputs of a generation row (``target`` is the first). ``line`` is the 1-based line in the file it came from,
    0 where there is no file.
    """

    fields: Mapping[str, str]
    target: str | None = None
    references: tuple[str, ...] = ()
    line: int = 0
    choices: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A row that was skipped or changed, and why (``reason`` is a short clause such as "empty text")."""

    line: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows that belong together, what file they came from, and the rows that had to be left out."""

    rows: tuple[Row, ...]
    source: str = ""
    faults: tuple[Fault, ...] = field(default=())

    @property
    def skipped(self) -> str:
        """What to say of the rows that were left out, the first by line and reason; "" where none was."""
        if not self.faults:
            return ""
        some = ", ".join(f"line {fault.line}: {fault.reason}" for fault in self.faults[:NAMED])
        return f"{len(self.faults)} rows were skipped: {some}"
