import numpy as np
import pytest

from epigraph.methods.watched import forgiving_loss


def logs(rows: list[list[float]]) -> np.ndarray:
    return np.log(np.array(rows))


def test_a_loss_forgives_overconfidence_but_no_wrong_answer() -> None:
    """Ranked by its plain loss, a prompt that was right on three of four rows stood behind one that had learned nothing."""
    right = np.array([0, 1, 0, 1])
    sure = logs([[0.9999, 0.0001], [0.0001, 0.9999], [0.9999, 0.0001], [0.9999, 0.0001]])
    ignorant = logs([[0.5, 0.5]] * 4)
    assert -sure[np.arange(4), right].mean() > 2
    assert forgiving_loss(sure, right) < forgiving_loss(ignorant, right) == pytest.approx(np.log(2))
    assert forgiving_loss(sure, 1 - right) == pytest.approx(
        np.log(2), abs=0.05
    )  # three of four wrong: no better than ignorance


def test_a_loss_is_never_sharpened() -> None:
    careful = logs([[0.7, 0.3], [0.3, 0.7]])
    assert forgiving_loss(careful, np.array([0, 1])) == pytest.approx(-np.log(0.7))
