"""Where a row may have several labels: from which probability on a method gives one, learned on validation for all alike.

A tuned prompt learns its threshold as it is tuned; every other method gets the one that is best on the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from epigraph.compare.method import Fitted
from epigraph.methods.solver import Probabilities, Scorable
from epigraph.methods.threshold import best_threshold
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

KEY = "threshold"


@dataclass(frozen=True)
class Decided:
    """A method with a threshold of its own."""

    method: Scorable
    threshold: float

    @property
    def task(self) -> Task:
        """The method's, with the threshold."""
        return replace(self.method.task, threshold=self.threshold)

    def probabilities(self, rows: Sequence[Row]) -> Probabilities:
        """The method's."""
        return self.method.probabilities(rows)

    def outputs(self, rows: Sequence[Row]) -> list[str]:
        """The method's."""
        return self.method.outputs(rows)


def decided(fitted: Fitted, validation: Sequence[Row]) -> Fitted:
    """The same with the threshold that is best on these rows; unchanged where it has one, or answers are no sets."""
    task = fitted.method.task
    if not task.knows_labels or task.has_labels or KEY in fitted.settings or not validation:
        return fitted
    found = best_threshold(fitted.method, validation)
    reason = f"{found:g}: a label is given from this probability on; best {task.metric} on {len(validation)} validation rows"
    return replace(
        fitted,
        method=Decided(fitted.method, found),
        settings={**fitted.settings, KEY: found},
        reasons={**fitted.reasons, KEY: reason},
    )
