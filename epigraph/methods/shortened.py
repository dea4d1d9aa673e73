"""Rows that were too long and lost the end of their longest field: counted, named by line, and too many of them refused."""

from collections.abc import Sequence

from epigraph.errors import DataError
from epigraph.methods.solver import PromptedBase
from epigraph.tasks.row import Row
from epigraph.tasks.rows import MOST_FAULTS

NAMED = 5


def shortened_note(solver: PromptedBase, rows: Sequence[Row], *, strict: bool = False) -> str:
    """What to say of the rows that do not fit, "" where all do. DataError where more than 5% do not, or any if ``strict``."""
    cut = [row for row, encoded in zip(rows, solver.encode(rows), strict=True) if encoded.truncated]
    if not cut:
        return ""
    lines = [str(line) for line in sorted(row.line for row in cut if row.line)]
    more = f" and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
    where = f" (lines {', '.join(lines[:NAMED])}{more})" if lines else ""
    what = f"{len(cut)} of {len(rows)} rows"
    limit = f"to fit {solver.encoder.limit} tokens{where}"
    if strict or len(cut) > MOST_FAULTS * len(rows):
        allowed = "--strict allows none" if strict else f"at most {MOST_FAULTS:.0%} may be"
        raise DataError(
            f"{what} would have to be shortened {limit}; {allowed}.",
            "Shorten these texts to the part that matters, or choose a base that reads more.",
        )
    return f"{what} were shortened at their longest field {limit}"
