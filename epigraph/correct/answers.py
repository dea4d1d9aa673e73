"""Answers of a prompt to rows, which of them are right, and what changed from an old prompt to a new one.

right      the label, choice or set is the row's; a written answer is one of its references
broken     right before, wrong now      fixed   wrong before, right now      otherwise   wrong before and wrong now, but changed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from epigraph import metrics
from epigraph.methods import judge
from epigraph.methods.judge import Answer
from epigraph.methods.solver import PromptedBase
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task


def is_right(task: Task, row: Row, answer: Answer) -> bool:
    """Whether this answers the row as it should be."""
    if task.writes:
        return bool(metrics.matches([str(answer)], [row.references or (row.target or "",)])[0])
    return set(answer) == set(row.labels) if isinstance(answer, tuple) else answer == row.target


def right_of(task: Task, rows: Sequence[Row], given: Sequence[Answer]) -> Bool[np.ndarray, " N"]:
    """Which of these answers are right."""
    return np.array([is_right(task, row, answer) for row, answer in zip(rows, given, strict=True)], dtype=bool)


def right_answers(solver: PromptedBase, rows: Sequence[Row]) -> Bool[np.ndarray, " N"]:
    """Which of these rows are answered right."""
    return right_of(solver.task, rows, judge.answer(solver, rows).given)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How many of ``rows`` answers changed; of labelled rows also how many broke, were fixed, or went from wrong to wrong."""

    rows: int
    changed: int
    broken: int | None = None
    fixed: int | None = None
    otherwise: int | None = None

    @property
    def share(self) -> float:
        """The share of answers that changed."""
        return self.changed / self.rows if self.rows else 0.0

    @property
    def broken_share(self) -> float:
        """The share of answers that were right and are wrong now."""
        return (self.broken or 0) / self.rows if self.rows else 0.0

    @property
    def json(self) -> dict[str, Any]:
        """As a command prints it."""
        found: dict[str, Any] = {"rows": self.rows, "changed": self.changed, "share": self.share}
        if self.broken is None:
            return found
        parts = {"broken": self.broken, "fixed": self.fixed, "otherwise": self.otherwise}
        return found | parts | {"broken_share": self.broken_share}


def changes(task: Task, rows: Sequence[Row], old: Sequence[Answer], new: Sequence[Answer]) -> Changes:
    """What changed; broken and fixed only where every row says what is right."""
    differs = np.array([a != b for a, b in zip(old, new, strict=True)], dtype=bool)
    if not rows or any(row.target is None for row in rows):
        return Changes(rows=len(rows), changed=int(differs.sum()))
    was, now = right_of(task, rows, old), right_of(task, rows, new)
    return Changes(
        rows=len(rows),
        changed=int(differs.sum()),
        broken=int((was & ~now).sum()),
        fixed=int((~was & now).sum()),
        otherwise=int((differs & ~was & ~now).sum()),
    )
