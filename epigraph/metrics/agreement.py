"""How far two answerers answer alike, whoever is right: N rows, C different answers.

    agreement   p_o = share of rows with the same answer
    Cohen's κ   (p_o − p_e) / (1 − p_e),   p_e = Σ_c share of c in the first · share of c in the second

Source: Cohen 1960, https://doi.org/10.1177/001316446002000104. One who always gives the same answer has κ = 0, however often
the other gives it too. Where both always give the same one, chance is all there is, and κ is 0.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from epigraph.metrics.classification import right
from epigraph.metrics.intervals import Interval, Metric, bootstrap, wilson


def agreement(first: Sequence[str], second: Sequence[str]) -> Interval:
    """The share of rows with the same answer, with Wilson's interval. DataError where there are no rows."""
    same = right(first, second)
    return wilson(float(same.mean()), len(same))


def kappa(first: Sequence[str], second: Sequence[str], *, seed: int = 0) -> Interval:
    """Cohen's κ, −1 to 1, with the interval of 1,000 resamples of the rows. DataError where there are no rows."""
    right(first, second)  # as many, and not none
    return bootstrap(chance_corrected(first, second), len(first), seed=seed, least=-1.0)


def chance_corrected(first: Sequence[str], second: Sequence[str]) -> Metric:
    """Cohen's κ for ``bootstrap``."""
    names = {name: i for i, name in enumerate(dict.fromkeys([*first, *second]))}
    a, b = (np.array([names[name] for name in side], dtype=np.int64) for side in (first, second))

    def metric(index: Int[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
        x, y = a[index], b[index]
        agreed = (x == y).mean(axis=1)
        chance = np.zeros(len(index))
        for name in range(len(names)):
            chance += (x == name).mean(axis=1) * (y == name).mean(axis=1)
        left = 1 - chance
        return np.where(left > 0, (agreed - chance) / np.where(left > 0, left, 1.0), 0.0)

    return metric
