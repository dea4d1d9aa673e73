"""What a method's validation shows: the task's metric, how sure it is, and the mean loss where two are equal.

    score   accuracy, macro-F1, BLEU …, turned so that higher is better        minus_loss   −mean loss, in nats
    loss    min over T ≥ 1 of the mean of −log softmax(log p / T)[right]       for labels and choices: overconfidence forgiven
    error   √(q(1 − q) / N), q = (N · place + 1) / (N + 2)                     place: where the score lies in its range, 0 to 1

A score in a bounded range varies at most as a share does, so the error of other metrics is that of a share, stretched to
their range; one right and one wrong row are added, so that a score of 0 or 1 on a few rows is not taken for certain.
A prompt tuned on a few rows answers far too surely, the more so the longer it was tuned, while its answers get no worse: its
plain loss would rank it behind one that has learned nothing. One temperature, which changes no answer, is therefore taken out
of the loss (Guo et al. 2017, https://arxiv.org/abs/1706.04599); it never sharpens, so that few rows are not taken for certain.
Computed by the house's own solver, so that every method is watched by the same code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int

from epigraph import metrics
from epigraph.methods import judge
from epigraph.methods.solver import Probabilities, PromptedBase
from epigraph.metrics.label_sets import Marks
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row

WATCHED_OUTPUTS = 64
TINY = 1e-30
TEMPERATURES = 2.0 ** (np.arange(13) / 2)  # 1 to 64


@dataclass(frozen=True, order=True)
class Watched:
    """A validation result; compared by score first, then by the lower loss.

    ``error`` is the score's standard error.
    """

    score: float
    minus_loss: float
    error: float = field(default=0.0, compare=False)


def standard_error(metric: str, score: float, rows: int, labels: int) -> float:
    """The standard error of a score of ``rows`` rows, in the score's own unit."""
    least, most = -1.0 if metric == "quadratic_kappa" else 0.0, float(max(1, labels - 1)) if metric == "mae" else 1.0
    place = min(max((metrics.upward(metric, score) - least) / (most - least), 0.0), 1.0)
    share = (place * rows + 1) / (rows + 2)
    return (most - least) * math.sqrt(share * (1 - share) / max(1, rows))


def forgiving_loss(log_probabilities: Float[np.ndarray, "N C"], right: Int[np.ndarray, " N"]) -> float:
    """The mean −log p of the right columns in nats, at the temperature of 1 or above that is best for all rows."""
    rows = np.arange(len(right))
    cooled = (log_probabilities / temperature for temperature in TEMPERATURES)
    return min(float((np.logaddexp.reduce(one, axis=1) - one[rows, right]).mean()) for one in cooled)


def watch_labels(solver: PromptedBase, rows: Sequence[Encoded], truth: Sequence[str]) -> Watched:
    """The metric of these rows' labels, and the mean loss of those that were trained."""
    scores = solver.engine.classify(rows, solver.forms, solver.tree).numpy()
    trie = solver.tree.trie
    right = np.array([trie.index(label) for label in truth])
    known = np.flatnonzero(right >= 0)
    loss = forgiving_loss(scores[known], right[known]) if len(known) else 0.0
    targets = [Row(fields={}, target=label) for label in truth]
    return _watched(solver, _value(solver, targets, np.exp(scores)), float(loss), len(rows))


def watch_choices(solver: PromptedBase, encoded: Sequence[Encoded], rows: Sequence[Row]) -> Watched:
    """The accuracy of these rows' choices, and their mean loss."""
    found = solver.choice_probabilities(encoded)
    right = [row.choices.index(row.target or "") for row in rows]
    loss = forgiving_loss(np.log(np.maximum(found, TINY)), np.array(right))
    return _watched(solver, _value(solver, rows, found), loss, len(rows))


def watch_sets(solver: PromptedBase, encoded: Sequence[Encoded], truth: Marks) -> Watched:
    """The metric of these rows' labels at the threshold that is best for them, and the mean loss a verdict."""
    found = solver.set_probabilities(encoded).astype(np.float64)
    _, score = metrics.best_threshold(truth, found, solver.task.metric)
    loss = -np.log(np.maximum(np.where(truth, found, 1 - found), TINY)).mean()
    return _watched(solver, score, float(loss), len(encoded))


@torch.no_grad()
def watch_answers(
    solver: PromptedBase, rows: Sequence[Encoded], asked: Sequence[Encoded], references: Sequence[Sequence[str]]
) -> Watched:
    """The metric of greedy outputs of ``asked``, and the mean loss a token of ``rows``, which carry their answers."""
    batches = [[rows[i] for i in batch] for batch in solver.engine.batches(rows)]
    found = [solver.engine.answer_loss(batch, [solver.forms]) for batch in batches]
    loss = sum(float(sums.sum()) for sums, _ in found) / max(1.0, sum(float(tokens.sum()) for _, tokens in found))
    outputs = solver.encoded_outputs(asked)
    return _watched(solver, float(metrics.ANSWER_SCORES[solver.task.metric](outputs, references)), loss, len(asked))


def _watched(solver: PromptedBase, score: float, loss: float, rows: int) -> Watched:
    return Watched(score, -loss, standard_error(solver.task.metric, score, rows, len(solver.task.labels)))


def _value(solver: PromptedBase, rows: Sequence[Row], probabilities: Probabilities) -> float:
    return judge.value(solver.task, rows, judge.read(solver.task, rows, probabilities).given)
