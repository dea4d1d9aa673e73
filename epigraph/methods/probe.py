"""The linear probe: a logistic regression on the frozen states, nothing of the base trained.

    p(label | row) = softmax(W · z + b)        z: the row's standardised [last state, mean state], 2H numbers

Source: Alain & Bengio 2016, https://arxiv.org/abs/1610.01644. C, the inverse of the penalty, is the one that is best on
validation. What a prompt must beat to be worth its steps.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epigraph.engine import Engine
from epigraph.errors import DataError, Unsupported
from epigraph.methods.ranking import Rank, rank
from epigraph.methods.solver import Probabilities
from epigraph.methods.states import States, read_states
from epigraph.metrics import upward
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
MOST_STEPS = 2000


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A fitted probe. ``model`` is scikit-learn's pipeline; ``rank`` is its own on validation, ``reason`` how C was chosen."""

    engine: Engine
    task: Task
    model: Any
    strength: float
    rank: Rank
    reason: str

    def probabilities(self, rows: Sequence[Row]) -> Probabilities:
        """The probability of every label of the task; 0 for those that no training row had."""
        return _spread(self.model, read_states(self.engine, self.task, rows), self.task)

    def outputs(self, rows: Sequence[Row]) -> list[str]:  # noqa: ARG002 (the contract of every method)
        """Unsupported: a probe writes nothing."""
        raise Unsupported("a linear probe chooses labels; it cannot write text.", "Use it for classification.")

    @property
    def parameters(self) -> int:
        """Weights, biases, and the mean and scale of every input."""
        classifier, scaler = self.model[-1], self.model[0]
        return int(classifier.coef_.size + classifier.intercept_.size + 2 * scaler.mean_.size)


def fit_probe(engine: Engine, task: Task, train: Sequence[Row], validation: Sequence[Row]) -> LinearProbe:
    """The probe with the C that is best on validation. Unsupported where answers are not one label a row, DataError for a single label."""
    if not task.has_labels:
        raise Unsupported(
            f"a linear probe gives every row one label of a list; {_instead(task)}.", "Compare the other methods."
        )
    truth = [row.target or "" for row in train]
    if len(set(truth)) < 2:
        raise DataError(f"all {len(truth)} training rows have the same label: there is nothing to tell apart.")
    states, held = read_states(engine, task, train), read_states(engine, task, validation)
    models = {strength: _fit(states, truth, strength) for strength in STRENGTHS}
    scores = {strength: rank(task, validation, _spread(model, held, task)) for strength, model in models.items()}
    best = max(scores, key=lambda strength: scores[strength])
    tried = ", ".join(f"{strength:g}: {upward(task.metric, score):.3f}" for strength, (score, _) in scores.items())
    reason = f"best {task.metric} on {len(validation)} validation rows ({tried})"
    return LinearProbe(engine=engine, task=task, model=models[best], strength=best, rank=scores[best], reason=reason)


def _fit(states: States, truth: Sequence[str], strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MOST_STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a weak penalty that has not converged is judged on validation like any other
        return model.fit(states.reshape(len(states), -1), list(truth))


def _instead(task: Task) -> str:
    """What the answers of a task are that a probe cannot give."""
    if task.writes:
        return "this task's answers are written"
    return "here a row may have several" if task.knows_labels else "here every row has choices of its own"


def _spread(model: Any, states: States, task: Task) -> Probabilities:
    found = np.zeros((len(states), len(task.labels)))
    column = {label: number for number, label in enumerate(task.labels)}
    chosen = model.predict_proba(states.reshape(len(states), -1))
    for number, label in enumerate(model.classes_):
        found[:, column[str(label)]] = chosen[:, number]
    return found
