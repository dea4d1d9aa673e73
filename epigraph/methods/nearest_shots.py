"""Few-shot with the k nearest training rows: every row has examples of its own, the most alike last.

    examples(x) = the k training rows with the highest cos(s(row), s(x))        s: the mean frozen state

Source: Liu et al. 2022 (KATE), section 2, https://arxiv.org/abs/2101.06804, with the base's own states instead of a sentence
encoder. No two rows share a prefix, so each is paid whole: k is at most 8.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from epigraph.engine import Engine
from epigraph.methods.hard import GAP, SHARE_OF_CONTEXT, shown_example
from epigraph.methods.ranking import rank_method
from epigraph.methods.solver import Probabilities, PromptedBase, text_forms
from epigraph.methods.states import States, read_states
from epigraph.metrics import upward
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.template import Template

COUNTS = (2, 4, 8)
MOST_ROWS = 500
CHOOSING_ROWS = 32
FIELD = "examples of the row"


class NearestShots:
    """Few-shot whose examples are chosen anew for every row."""

    def __init__(self, engine: Engine, task: Task, train: Sequence[Row], *, shots: int, output_tokens: int) -> None:
        self.engine, self.task, self.train, self.shots = engine, task, list(train), shots
        bare = task.template.placed("first")
        self.shown = ["".join(shown_example(task, row)) for row in self.train]
        self.index = _unit(read_states(engine, task, self.train))
        template = Template("{prompt}{" + FIELD + "}" + bare.text.removeprefix("{prompt}"))
        forms = text_forms(engine, "", bos=False)
        self.solver = PromptedBase(engine, task, forms, template=template, output_tokens=output_tokens)

    def with_shots(self, shots: int) -> "NearestShots":
        """The same with another k; the index is shared."""
        other = object.__new__(NearestShots)
        other.__dict__ = self.__dict__ | {"shots": shots}
        return other

    def neighbours(self, rows: Sequence[Row]) -> list[list[int]]:
        """Each row's nearest training rows, the most alike last; a training row is never its own example."""
        likeness = _unit(read_states(self.engine, self.task, rows)) @ self.index.T  # [N, train]
        for n, row in enumerate(rows):
            likeness[n, [i for i, other in enumerate(self.train) if other is row]] = -np.inf
        most = min(self.shots, likeness.shape[1])
        return [np.argsort(-each, kind="stable")[:most][::-1].tolist() for each in likeness]

    def probabilities(self, rows: Sequence[Row]) -> Probabilities:
        """The probability of every label for every row."""
        return self.solver.probabilities(self._led(rows))

    def outputs(self, rows: Sequence[Row]) -> list[str]:
        """The generated text of every row."""
        return self.solver.outputs(self._led(rows))

    def added_tokens(self, rows: Sequence[Row]) -> int:
        """Tokens of instruction and examples before a row, the mean over these rows."""
        led = self._led(rows)
        return round(sum(len(self.engine.base.tokenize(row.fields[FIELD])) for row in led) / max(1, len(led)))

    def _led(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with instruction and examples as one more field; the farthest examples make room where it is short."""
        room = SHARE_OF_CONTEXT * self.engine.base.context
        found = []
        for row, near in zip(rows, self.neighbours(rows), strict=True):
            while True:
                text = GAP.join([self.task.instruction, *(self.shown[i] for i in near)]) + GAP
                if not near or len(self.engine.base.tokenize(text)) <= room:
                    break
                near = near[1:]
            found.append(replace(row, fields={**row.fields, FIELD: text}))
        return found


def best_nearest(
    engine: Engine,
    task: Task,
    train: Sequence[Row],
    validation: Sequence[Row],
    output_tokens: int,
    *,
    seconds: float | None = None,
) -> tuple[NearestShots, str]:
    """The k of 2, 4 and 8 that is best on at most 32 validation rows, and why; fewest first, until ``seconds`` are spent."""
    until = None if seconds is None else time.monotonic() + seconds
    first = NearestShots(engine, task, train, shots=COUNTS[0], output_tokens=output_tokens)
    rows = list(validation)[:CHOOSING_ROWS]
    scores: dict[int, float] = {}
    for k in (k for k in COUNTS if k == COUNTS[0] or k <= len(train)):
        scores[k] = rank_method(first.with_shots(k), rows)[0]
        if until is not None and time.monotonic() > until:
            break
    best = max(scores, key=lambda k: scores[k])
    said = ", ".join(f"{k} nearest: {upward(task.metric, score):.3f}" for k, score in scores.items())
    return first.with_shots(best), f"best on {len(rows)} validation rows ({said})"


def _unit(states: States) -> Float[np.ndarray, "N H"]:
    means = states[:, 1].astype(np.float64)
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12))
