"""What a method's validation shows: the task's metric, and the mean loss where two are equal.

    score   accuracy, macro-F1, BLEU …, turned so that higher is better        minus_loss   −mean loss, in nats

Computed by the house's own solver, so that every method is watched by the same code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from epigraph import metrics
from epigraph.methods import judge
from epigraph.methods.solver import Probabilities, PromptedBase
from epigraph.metrics.label_sets import Marks
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row

WATCHED_OUTPUTS = 64
TINY = 1e-30


@dataclass(frozen=True, order=True)
class Watched:
    """A validation result; compared by score first, then by the lower loss."""

    score: float
    minus_loss: float


def watch_labels(solver: PromptedBase, rows: Sequence[Encoded], truth: Sequence[str]) -> Watched:
    """The metric of these rows' labels, and the mean loss of those that were trained."""
    scores = solver.engine.classify(rows, solver.forms, solver.tree).numpy()
    trie = solver.tree.trie
    right = np.array([trie.index(label) for label in truth])
    known = np.flatnonzero(right >= 0)
    loss = -scores[known, right[known]].mean() if len(known) else 0.0
    targets = [Row(fields={}, target=label) for label in truth]
    return Watched(_value(solver, targets, np.exp(scores)), -float(loss))


def watch_choices(solver: PromptedBase, encoded: Sequence[Encoded], rows: Sequence[Row]) -> Watched:
    """The accuracy of these rows' choices, and the mean of −log p(right choice)."""
    found = solver.choice_probabilities(encoded)
    right = [row.choices.index(row.target or "") for row in rows]
    loss = -np.log(np.maximum(found[np.arange(len(rows)), right], TINY)).mean()
    return Watched(_value(solver, rows, found), -float(loss))


def watch_sets(solver: PromptedBase, encoded: Sequence[Encoded], truth: Marks) -> Watched:
    """The metric of these rows' labels at the threshold that is best for them, and the mean loss a verdict."""
    found = solver.set_probabilities(encoded).astype(np.float64)
    _, score = metrics.best_threshold(truth, found, solver.task.metric)
    loss = -np.log(np.maximum(np.where(truth, found, 1 - found), TINY)).mean()
    return Watched(score, -float(loss))


@torch.no_grad()
def watch_answers(
    solver: PromptedBase, rows: Sequence[Encoded], asked: Sequence[Encoded], references: Sequence[Sequence[str]]
) -> Watched:
    """The metric of greedy outputs of ``asked``, and the mean loss a token of ``rows``, which carry their answers."""
    batches = [[rows[i] for i in batch] for batch in solver.engine.batches(rows)]
    found = [solver.engine.answer_loss(batch, [solver.forms]) for batch in batches]
    loss = sum(float(sums.sum()) for sums, _ in found) / max(1.0, sum(float(tokens.sum()) for _, tokens in found))
    outputs = solver.encoded_outputs(asked)
    return Watched(float(metrics.ANSWER_SCORES[solver.task.metric](outputs, references)), -loss)


def _value(solver: PromptedBase, rows: Sequence[Row], probabilities: Probabilities) -> float:
    return judge.value(solver.task, rows, judge.read(solver.task, rows, probabilities).given)
