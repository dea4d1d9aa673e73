"""Methods of a benchmark against each other, from the answers that its cells keep: paired by rows and seeds.

    difference = metric(second) − metric(first), turned so that + is better for the second        Holm over all columns

A column is one set of test rows, of which both methods answered all, once a seed (or draw of training rows). p is that of the paired
bootstrap over rows and seeds and, where answers are right or wrong, the larger of it and McNemar's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from measuring import show

from epigraph.evaluation import Scores
from epigraph.methods.judge import metric_of, truth_of
from epigraph.metrics import LOWER_IS_BETTER, right
from epigraph.metrics.paired import Draws, bounds, holm, mcnemar_seeds, mean_difference, resample
from epigraph.tasks.task import Task

Answers = Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Column:
    """Two methods' answers to the task's test rows, a list a seed."""

    name: str
    task: Task
    first: Sequence[Answers]
    second: Sequence[Answers]

    def draws(self, number: int = 0) -> tuple[Draws, Draws]:
        """Both resampled; the one that is to be better comes second also where less is better. ``number``: of the rows' resamples."""
        assert self.task.test is not None
        rows = self.task.test.rows
        first, second = (
            resample([metric_of(self.task, rows, given) for given in side], len(rows), seed=number)
            for side in (self.first, self.second)
        )
        return (second, first) if self.task.metric in LOWER_IS_BETTER else (first, second)

    @property
    def mcnemar(self) -> float:
        """McNemar's p for labels whose metric is accuracy, else 0."""
        if self.task.metric != "accuracy" or self.task.test is None:
            return 0.0
        truth = truth_of(self.task.test.rows)
        first, second = (np.stack([right(truth, given) for given in side]) for side in (self.first, self.second))
        return mcnemar_seeds(first, second)


def answers_of(scored: Scores) -> list[Any]:
    """What a cell keeps: labels or outputs, or lists of labels."""
    return list(scored.predicted) if scored.sets is None else [list(given) for given in scored.sets[1]]


def compare_columns(title: str, columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Every column tested, with Holm's correction over all of them; printed as a table."""
    if not columns:
        return []
    found = [mean_difference([column.draws()], span=_span(column.task)) for column in columns]
    adjusted = holm([max(one.p, column.mcnemar) for one, column in zip(found, columns, strict=True)])
    rows = [
        {
            "column": column.name,
            "gain": one.value,
            "low": one.low,
            "high": one.high,
            "p_holm": p,
            "significant": str(p < 0.05),
        }
        for column, one, p in zip(columns, found, adjusted, strict=True)
    ]
    show(title, rows)
    return rows


def on_average(name: str, columns: Sequence[Column]) -> Mapping[str, Any]:
    """The mean gain over several columns, each with its own rows."""
    found = mean_difference([column.draws(n) for n, column in enumerate(columns)], span=max(_span(c.task) for c in columns))
    return {"column": name, "gain": found.value, "low": found.low, "high": found.high, "p": found.p}


def _span(task: Task) -> float:
    least, most = bounds(task.metric, len(task.labels))
    return most - least
