"""Which labels of the data are likely wrong, by confident learning: the prompt doubts the label and is confident of another one.

    t_j = mean of p(j | x) over the rows labelled j             suspected:  argmax of p(k) over {k: p(k) ≥ t_k} is not the label

that k is what the row may be. Source: Northcutt et al. 2021, section 3.1, https://arxiv.org/abs/1911.00068. The
probabilities must be of rows that were not trained on: a prompt believes what it was told. Differs: where every label is a yes or
no by itself, each is judged so; a row's own choices have no classes, so one threshold is the mean over all rows. ``suspicion`` is
p(k) − p(label), which orders them; where it is not above 0 the prompt still prefers the label, and the row is not suspected.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Suspicions:
    """For every row: whether its label is suspected, how much (0 where not), and the column it may be (−1 where not)."""

    suspected: Bool[np.ndarray, " N"]
    suspicion: Float[np.ndarray, " N"]
    instead: Int[np.ndarray, " N"]


def suspect_labels(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> Suspicions:
    """Rows of one label each; −1 for one that is not among the columns, which is never suspected."""
    return _suspected(probabilities, labels, thresholds(probabilities, labels))


def thresholds(probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> Float[np.ndarray, " C"]:
    """The mean self-confidence of every label; infinite for one without rows, of which nobody can be confident."""
    columns = range(probabilities.shape[1])
    return np.array([probabilities[labels == c, c].mean() if (labels == c).any() else np.inf for c in columns])


def suspect_choices(probabilities: Float[np.ndarray, "N C"], right: Int[np.ndarray, " N"]) -> Suspicions:
    """Rows with choices of their own."""
    one = probabilities[np.arange(len(right)), right].mean() if len(right) else np.inf
    return _suspected(probabilities, right, np.full(probabilities.shape[1], one))


def suspect_sets(probabilities: Float[np.ndarray, "N C"], marks: Bool[np.ndarray, "N C"]) -> Suspicions:
    """Rows with any number of labels: the most suspected verdict of a row; ``instead`` is the label it is about."""
    found = [
        suspect_labels(np.stack([1 - p, p], axis=1), mark.astype(np.int64))
        for p, mark in zip(probabilities.T, marks.T, strict=True)
    ]
    suspicion = np.stack([one.suspicion for one in found], axis=1)
    worst = suspicion.argmax(axis=1)
    suspected = suspicion.max(axis=1) > 0
    return Suspicions(suspected, suspicion.max(axis=1), np.where(suspected, worst, -1))


def _suspected(
    probabilities: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"], least: Float[np.ndarray, " C"]
) -> Suspicions:
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    others = np.where(probabilities >= least, probabilities, -1.0)
    others[rows, labels] = -1.0
    instead = others.argmax(axis=1)
    suspected = (labels >= 0) & (others.max(axis=1) > own)
    suspicion = np.where(suspected, others.max(axis=1) - own, 0.0)
    return Suspicions(suspected, suspicion, np.where(suspected, instead, -1))
