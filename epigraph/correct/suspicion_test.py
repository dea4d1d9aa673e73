import numpy as np
import pytest

from epigraph.correct.suspicion import suspect_choices, suspect_labels, suspect_sets, thresholds


def slowly(probabilities: np.ndarray, labels: np.ndarray) -> list[int]:
    """The definition of the paper, row by row: what each row may be, −1 where it is not suspected.

    It once asked for p(label) < t_label besides, so that rows of labels that are often doubted were never named.
    """
    n, c = probabilities.shape
    t = [np.mean([probabilities[i, k] for i in range(n) if labels[i] == k] or [np.inf]) for k in range(c)]
    found = []
    for i in range(n):
        confident = [k for k in range(c) if probabilities[i, k] >= t[k]]
        best = max(confident, key=lambda k: probabilities[i, k], default=-1)
        known = labels[i] >= 0 and best >= 0
        found.append(best if known and probabilities[i, best] > probabilities[i, labels[i]] else -1)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_paper_s_definition(seed: int) -> None:
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet([0.5] * 4, size=60)
    labels = draw.integers(-1, 3, size=60)  # the last label has no rows, some rows no known label
    found = suspect_labels(probabilities, labels)
    assert found.instead.tolist() == slowly(probabilities, labels)
    assert (found.suspected == (found.instead >= 0)).all()
    assert (found.suspicion[found.suspected] > 0).all()
    assert (found.suspicion[~found.suspected] == 0).all()
    assert np.isinf(thresholds(probabilities, labels)[3])


def test_planted_label_errors_are_found() -> None:
    draw = np.random.default_rng(0)
    right = draw.integers(0, 2, size=200)
    p = np.where(right == 1, draw.uniform(0.7, 1.0, 200), draw.uniform(0.0, 0.3, 200))
    labels = right.copy()
    labels[:10] = 1 - labels[:10]
    found = suspect_labels(np.stack([1 - p, p], axis=1), labels)
    assert found.suspected[:10].sum() >= 4
    assert found.suspected[10:].sum() == 0


def test_sets_are_judged_label_by_label_and_choices_by_one_threshold() -> None:
    p = np.array([[0.95, 0.1], [0.9, 0.9], [0.05, 0.1], [0.2, 0.95]])
    marks = np.array([[True, False], [True, True], [True, False], [False, True]])
    found = suspect_sets(p, marks)
    assert found.instead.tolist() == [-1, -1, 0, -1]
    chosen = suspect_choices(np.array([[0.9, 0.1, 0.0], [0.05, 0.95, 0.0], [0.8, 0.2, 0.0]]), np.array([0, 0, 0]))
    assert chosen.instead.tolist() == [-1, 1, -1]
