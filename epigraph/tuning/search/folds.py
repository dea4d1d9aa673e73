"""Cross-validation: every row is answered by a prompt that has not learned from it.

    answers(row) = answers of the prompt of the fold that holds the row out

Source: Stone 1974; Kohavi 1995, "A study of cross-validation and bootstrap". The interval of such a score is over the rows;
that the folds' training rows overlap makes it a little too narrow (Bengio & Grandvalet 2004), and the reason says so.
"""

from collections.abc import Sequence

import numpy as np

from epigraph.methods.solver import Probabilities, PromptedBase, Scorable
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task


class CrossValidated:
    """One method a fold; answers the rows that the folds hold out. ``rows`` are all, ``folds`` the places held out."""

    def __init__(self, methods: Sequence[PromptedBase], rows: Sequence[Row], folds: Sequence[Sequence[int]]) -> None:
        assert len(methods) == len(folds), "one method a fold"
        self.methods = methods
        self.fold_of = {id(rows[place]): number for number, fold in enumerate(folds) for place in fold}

    @property
    def task(self) -> Task:
        """The task of all of them."""
        return self.methods[0].task

    def probabilities(self, rows: Sequence[Row]) -> Probabilities:
        """Of every row by the method that does not know it."""
        parts = [method.probabilities(rows_of) for method, rows_of in self._shared_out(rows)]
        width = max(part.shape[1] for part in parts)
        found = np.zeros((len(rows), width), dtype=parts[0].dtype)
        for places, part in zip(self._places(rows), parts, strict=True):
            found[places, : part.shape[1]] = part
        return found

    def outputs(self, rows: Sequence[Row]) -> list[str]:
        """Of every row by the method that does not know it."""
        found = [""] * len(rows)
        for places, (method, rows_of) in zip(self._places(rows), self._shared_out(rows), strict=True):
            for place, output in zip(places, method.outputs(rows_of), strict=True):
                found[place] = output
        return found

    def _places(self, rows: Sequence[Row]) -> list[list[int]]:
        folds = [self.fold_of[id(row)] for row in rows]
        return [[i for i, fold in enumerate(folds) if fold == number] for number in sorted(set(folds))]

    def _shared_out(self, rows: Sequence[Row]) -> list[tuple[Scorable, list[Row]]]:
        return [(self.methods[self.fold_of[id(rows[p[0]])]], [rows[i] for i in p]) for p in self._places(rows)]
