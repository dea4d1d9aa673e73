"""What a sequence of tasks is judged by: the matrix R and the numbers made of it.

    R[t, i]   accuracy on the test rows of task i once tasks 0 … t are learned, T tasks in all; b_i zero-shot accuracy on task i
    average_accuracy    mean over i of R[T−1, i]
    backward_transfer   mean over i < T−1 of R[T−1, i] − R[i, i]             below 0: learning later tasks cost earlier ones
    forgetting          mean over i < T−1 of max over i ≤ t < T−1 of R[t, i], less R[T−1, i]
    forward_transfer    mean over i > 0 of R[i−1, i] − b_i                    what earlier tasks give before a task is learned

Sources: average accuracy, backward and forward transfer: Lopez-Paz & Ranzato 2017 (GEM), section 2,
https://arxiv.org/abs/1706.08840; forgetting: Chaudhry et al. 2018, section 3, https://arxiv.org/abs/1801.10112. CODA-Prompt's code
means another thing by forgetting (the mean drop from step to step), and some papers on language models another by forward
transfer (R[i, i] less the score of a task learned alone). b_i is that of the best hard prompt, which is told the task and
its labels, in every scenario. None stands where something was not measured, and a number that needs it is None too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SCENARIOS = ("known", "inferred", "union")
MEANINGS: Mapping[str, str] = {
    "known": "the task of every text is given, and with it its prompt and labels",
    "inferred": "the task is not given: the router names it, and with it the labels (and the prompt, where each task has one)",
    "union": "the task is not given: every label of every task learned so far is a possible answer",
}
DEFINITIONS: Mapping[str, str] = {
    "matrix": "R[t][i]: accuracy on the test rows of task i after learning tasks 0 to t",
    "average_accuracy": "mean over i of R[T-1][i] (Lopez-Paz & Ranzato 2017, https://arxiv.org/abs/1706.08840)",
    "backward_transfer": "mean over i < T-1 of R[T-1][i] - R[i][i] (ibid.)",
    "forgetting": "mean over i < T-1 of max over i <= t < T-1 of R[t][i], less R[T-1][i] "
    "(Chaudhry et al. 2018, https://arxiv.org/abs/1801.10112)",
    "forward_transfer": "mean over i > 0 of R[i-1][i] - b_i, b_i the zero-shot accuracy of the best hard prompt, told the task "
    "(Lopez-Paz & Ranzato 2017)",
}
Matrix = Sequence[Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One scenario of one method. A row of ``matrix`` has T entries; None where nothing was measured."""

    matrix: Matrix
    zero_shot: Sequence[float | None]

    @property
    def tasks(self) -> int:
        """T."""
        return len(self.matrix)

    @property
    def average_accuracy(self) -> float | None:
        """The mean accuracy after the last task."""
        return _mean(self.matrix[-1]) if self.tasks else None

    @property
    def backward_transfer(self) -> float | None:
        """What later tasks did to earlier ones; None with one task."""
        last = self.matrix[-1]
        return _mean([_less(last[i], self.matrix[i][i]) for i in range(self.tasks - 1)])

    @property
    def forgetting(self) -> float | None:
        """How far each task fell from its best; None with one task."""
        last = self.matrix[-1]
        return _mean([_less(_best(self.matrix, i), last[i]) for i in range(self.tasks - 1)])

    @property
    def forward_transfer(self) -> float | None:
        """What was there of a task before it was learned; None with one task."""
        return _mean([_less(self.matrix[i - 1][i], self.zero_shot[i]) for i in range(1, self.tasks)])

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object."""
        return {
            "matrix": [list(row) for row in self.matrix],
            "average_accuracy": self.average_accuracy,
            "backward_transfer": self.backward_transfer,
            "forgetting": self.forgetting,
            "forward_transfer": self.forward_transfer,
        }


def _best(matrix: Matrix, i: int) -> float | None:
    seen = [row[i] for row in matrix[i:-1]]
    return None if any(value is None for value in seen) else max(value for value in seen if value is not None)


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
