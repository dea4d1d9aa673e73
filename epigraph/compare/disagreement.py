"""Where methods differ: by label, and row by row.

by label   F1 of every label under every method, the mean of its seeds, on the rows that all of them answered
by row     test rows on which the shown methods' answers (of the first seed) are not all the same, most divided first
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from epigraph.compare.comparison import Comparison, Result, shared_rows
from epigraph.compare.material import labels_of
from epigraph.metrics import per_class, per_label
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

MOST_ROWS, MOST_METHODS, MOST_TEXT = 20, 7, 160


@dataclass(frozen=True, kw_only=True)
class LabelScores:
    """F1 of one label under every method, in the order of ``methods``."""

    label: str
    rows: int
    f1: Sequence[float]

    @property
    def spread(self) -> float:
        """How far the methods lie apart."""
        return max(self.f1) - min(self.f1) if self.f1 else 0.0


@dataclass(frozen=True, kw_only=True)
class DividedRow:
    """A test row and what every shown method said."""

    text: str
    truth: str
    said: Sequence[str]


def scores_by_label(comparison: Comparison, methods: Sequence[Result]) -> list[LabelScores]:
    """Labels of the test rows, those on which the methods differ most first; none where answers are no labels."""
    task = comparison.material.task
    if not task.knows_labels or not methods:
        return []
    test = comparison.material.test[: shared_rows(*methods)]
    found = [_f1_by_label(task, test, result) for result in methods]
    rows = Counter(label for row in test for label in labels_of(task, row))
    scores = [LabelScores(label=label, rows=n, f1=[f1[label] for f1 in found]) for label, n in rows.items()]
    return sorted(scores, key=lambda one: (-one.spread, one.label))


def _f1_by_label(task: Task, test: Sequence[Row], result: Result) -> dict[str, float]:
    """The mean over a method's seeds, of every label."""
    names, count = list(task.labels), len(test)
    truth, sets = [row.target or "" for row in test], [row.labels for row in test]
    each = [
        per_class(truth, cell.predicted[:count], names) if task.has_labels else per_label(sets, cell.sets[:count], names)
        for cell in result.cells
    ]
    means = defaultdict[str, float](float)
    for scores in each:
        for one in scores:
            means[one.label] += one.f1 / len(each)
    return means


def divided_rows(comparison: Comparison, methods: Sequence[Result], most: int = MOST_ROWS) -> list[DividedRow]:
    """Rows on which these methods do not all say the same."""
    test, answers = comparison.material.test, [result.cells[0].predicted for result in methods]
    found = []
    for n in range(min(map(len, answers), default=0)):
        said = [answer[n] for answer in answers]
        if len(set(said)) > 1:
            found.append((-len(set(said)), _evenness(said), n, said))
    return [
        DividedRow(
            text=_short(" | ".join(test[n].fields.values())),
            truth=_short(_truth(comparison.material.task, test[n])),
            said=said,
        )
        for _, _, n, said in sorted(found)[:most]
    ]


def shown_methods(comparison: Comparison) -> list[Result]:
    """The best of every family first, then the others, at most seven."""
    first = {result.method.family: result for result in reversed(comparison.done)}
    chosen = [r for r in comparison.done if first[r.method.family] is r]
    rest = [r for r in comparison.done if r not in chosen]
    keep = {r.name for r in [*chosen, *rest][:MOST_METHODS]}
    return [r for r in comparison.done if r.name in keep]


def _truth(task: Task, row: Row) -> str:
    """The right answer, several labels in the order in which answers list them."""
    return ", ".join(sorted(row.labels)) if task.knows_labels and not task.has_labels else row.target or ""


def _evenness(said: Sequence[str]) -> int:
    """The votes of the most frequent answer: the fewer, the more divided."""
    return Counter(said).most_common(1)[0][1]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"
