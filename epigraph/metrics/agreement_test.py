import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from epigraph.errors import DataError
from epigraph.metrics.agreement import agreement, kappa


def test_kappa_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    first = [str(x) for x in draw.integers(0, 3, 80)]
    second = [x if draw.random() < 0.7 else str(draw.integers(0, 3)) for x in first]
    found = kappa(first, second)
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.low < found.value < found.high
    assert agreement(first, second).value == pytest.approx(np.mean([a == b for a, b in zip(first, second, strict=True)]))


def test_a_constant_answer_has_none_however_often_it_agrees() -> None:
    first = ["good"] * 95 + ["bad"] * 5
    assert agreement(first, ["good"] * 100).value == pytest.approx(0.95)
    assert kappa(first, ["good"] * 100).value == 0.0
    assert kappa(["good"] * 4, ["good"] * 4).value == 0.0


def test_of_no_rows_there_is_none() -> None:
    with pytest.raises(DataError, match="0 rows"):
        kappa([], [])
