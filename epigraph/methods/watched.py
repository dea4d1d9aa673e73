"""What a method's validation shows: the task's metric, and the mean loss where two are equal.

    score   accuracy, macro-F1, BLEU …, 0 to 1        minus_loss   −mean of −log p(target), in nats

Computed by the house's own solver, so that every method is watched by the same code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from epigraph import metrics
from epigraph.methods.solver import PromptedBase
from epigraph.tasks.encode import Encoded

WATCHED_OUTPUTS = 64


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
    predicted = [trie.labels[i] for i in scores.argmax(1)]
    return Watched(float(metrics.LABEL_SCORES[solver.task.metric](truth, predicted)), -float(loss))


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
