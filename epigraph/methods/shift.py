"""Calibration of label probabilities by a shift of their logs, learned without labels.

    p̃(c | x) ∝ p(c | x) · exp(b_c)                 where a row may have several labels: logit p̃(c | x) = logit p(c | x) + b_c

    contextual   b_c = −log mean of p(c | "N/A"), p(c | "[MASK]"), p(c | "")        what the base answers to no input at all
    prior        b such that the mean of p̃(c | x) over given rows is the share of c in training

Sources: Zhao et al. 2021, section 4, https://arxiv.org/abs/2102.09690; Liusie et al. 2023, section 3,
https://arxiv.org/abs/2309.04992. For a row's own choices the contextual one is computed anew for every row: the likelihoods
of the same choices after no input (Holtzman et al. 2021, https://arxiv.org/abs/2104.08315); they have no shares in training.
Differs: Liusie et al. match the uniform prior; the shares in training are known here, and the uniform one stands in where
they are not. b is found by iterative scaling, b_c ← b_c + log(share_c / mean of p̃(c | x)), for sets by bisection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from epigraph.config import CALIBRATIONS
from epigraph.errors import ConfigError
from epigraph.tasks.row import Row

CONTEXTUAL, PRIOR = CALIBRATIONS
CONTENT_FREE = ("N/A", "[MASK]", "")
STEPS, ENOUGH = 200, 1e-6
LEAST = 1e-12
LEAST_SHARE = 1e-3  # a label without a row is rare, not impossible

Matrix = Float[np.ndarray, "N C"]


@dataclass(frozen=True)
class Shift:
    """How it was learned, and the shift of every label's log (empty for choices: theirs are each row's own)."""

    how: str
    bias: tuple[float, ...] = ()

    def labels(self, probabilities: Matrix) -> Matrix:
        """Shifted probabilities that sum to one."""
        logs = np.log(np.maximum(probabilities, LEAST)) + np.array(self.bias)
        return normalise(np.exp(logs - logs.max(axis=1, keepdims=True)))

    def sets(self, probabilities: Matrix) -> Matrix:
        """Shifted probabilities of labels each by itself."""
        return _sigmoid(_logit(probabilities) + np.array(self.bias))

    def to_dict(self) -> dict[str, Any]:
        """As a card keeps it."""
        return {"how": self.how, "bias": list(self.bias)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Shift":
        """Rebuild what ``to_dict`` gave."""
        return cls(check_way(str(data["how"])), tuple(float(value) for value in data["bias"]))


def check_way(how: str) -> str:
    """The name if it is a way to calibrate. Raises ConfigError."""
    if how not in CALIBRATIONS:
        raise ConfigError(f"calibration {how!r} is not known.", f"Choose one of: {', '.join(CALIBRATIONS)}.")
    return how


def content_free(rows: Sequence[Row], text: str) -> list[Row]:
    """The same rows with this text in every field."""
    return [replace(row, fields=dict.fromkeys(row.fields, text)) for row in rows]


def contextual_bias(probabilities: Matrix, *, sets: bool) -> tuple[float, ...]:
    """The shift from the answers to content-free inputs."""
    mean = np.maximum(probabilities.astype(np.float64).mean(axis=0), LEAST)
    found = -_logit(mean) if sets else -np.log(mean)
    return tuple(float(value) for value in found - (0 if sets else found.mean()))


def prior_bias(probabilities: Matrix, shares: Sequence[float], *, sets: bool) -> tuple[float, ...]:
    """The shift after which the labels' mean probabilities are these shares."""
    p = np.clip(probabilities.astype(np.float64), LEAST, 1.0)
    wanted = np.maximum(np.array(shares, dtype=np.float64), LEAST_SHARE)
    return _prior_sets(p, np.minimum(wanted, 1 - LEAST_SHARE)) if sets else _prior_labels(p, wanted / wanted.sum())


def _prior_labels(p: Matrix, wanted: Float[np.ndarray, " C"]) -> tuple[float, ...]:
    bias = np.zeros(p.shape[1])
    for _ in range(STEPS):
        logs = np.log(p) + bias
        mean = normalise(np.exp(logs - logs.max(axis=1, keepdims=True))).mean(axis=0)
        if np.abs(mean - wanted).max() < ENOUGH:
            break
        bias += np.log(wanted) - np.log(np.maximum(mean, LEAST))  # iterative scaling: each step raises the likelihood
    return tuple(float(value) for value in bias - bias.mean())


def _prior_sets(p: Matrix, wanted: Float[np.ndarray, " C"]) -> tuple[float, ...]:
    """By bisection: every label's mean rises with its shift."""
    odds = _logit(p)
    low, high = np.full(p.shape[1], -60.0), np.full(p.shape[1], 60.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = _sigmoid(odds + middle).mean(axis=0) > wanted
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return tuple(float(value) for value in (low + high) / 2)


def normalise(weights: Matrix) -> Matrix:
    """Every row divided by its sum."""
    found: Matrix = weights / weights.sum(axis=1, keepdims=True)
    return found


def _logit(p: Any) -> Any:
    clipped = np.clip(p.astype(np.float64), LEAST, 1 - LEAST)
    return np.log(clipped) - np.log1p(-clipped)


def _sigmoid(odds: Matrix) -> Matrix:
    found: Matrix = 0.5 * (1 + np.tanh(odds / 2))
    return found
