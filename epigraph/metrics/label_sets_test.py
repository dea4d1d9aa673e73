import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, mean_absolute_error

from epigraph import metrics
from epigraph.errors import DataError
from epigraph.metrics.label_sets import best_constant

NAMES = ["a", "b", "c", "d"]
LEVELS = ["1", "2", "3", "4", "5"]


def drawn(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, 4)) < 0.3
    return truth, np.where(rng.random((rows, 4)) < 0.2, ~truth, truth)


def sets_of(marks: np.ndarray) -> list[list[str]]:
    return [[NAMES[i] for i in np.flatnonzero(row)] for row in marks]


@pytest.mark.parametrize("seed", [0, 1])
def test_scores_of_sets_are_those_of_scikit_learn(seed: int) -> None:
    truth, predicted = drawn(seed)
    scores = metrics.score_sets(sets_of(truth), sets_of(predicted))
    assert scores["micro_f1"]["value"] == pytest.approx(f1_score(truth, predicted, average="micro"))
    assert scores["macro_f1"]["value"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert scores["subset_accuracy"]["value"] == pytest.approx(accuracy_score(truth, predicted))
    for name in ("micro_f1", "macro_f1", "subset_accuracy"):
        assert scores[name]["low"] < scores[name]["value"] < scores[name]["high"]
    always = [
        f1_score(truth, np.tile(np.arange(4) < 0, (60, 1)) | (np.isin(np.arange(4), c)), average="micro")
        for c in ([0], [1], [2], [3], [0, 1, 2, 3])
    ]
    assert scores["majority"] >= max(always) - 1e-9


def test_rows_without_labels_and_labels_never_trained() -> None:
    assert metrics.micro_f1([[], []], [[], []]) == 0.0
    assert metrics.subset_accuracy([[], []], [[], []]) == 1.0
    assert best_constant([[], []]) == 0.0
    assert metrics.micro_f1([["new"], ["a"]], [[], ["a"]]) == pytest.approx(2 / 3)
    one, other = metrics.per_label([["new"], ["a"]], [[], ["a"]], ["a"])
    assert (one.f1, other.label, other.f1, other.rows) == (1.0, "new", 0.0, 1)
    with pytest.raises(DataError, match="1 true sets of labels and 0 predictions"):
        metrics.micro_f1([["a"]], [])


def test_the_best_threshold_is_half_the_best_f1_where_probabilities_are_right() -> None:
    """Lipton et al. 2014, theorem 1."""
    rng = np.random.default_rng(0)
    p = rng.random((4000, 1)) ** 2
    threshold, value = metrics.best_threshold(rng.random((4000, 1)) < p, p, "micro_f1")
    assert threshold == pytest.approx(value / 2, abs=0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_scores_of_a_scale_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 5, 50)
    p = np.clip(y + rng.integers(-1, 2, 50), 0, 4)
    truth, predicted = [LEVELS[i] for i in y], [LEVELS[i] for i in p]
    scores = metrics.score_ordinal(truth, predicted, LEVELS)
    assert scores["mae"]["value"] == pytest.approx(mean_absolute_error(y, p))
    assert scores["quadratic_kappa"]["value"] == pytest.approx(cohen_kappa_score(y, p, weights="quadratic"))
    assert scores["mae"]["low"] <= scores["mae"]["value"] <= scores["mae"]["high"]


def test_a_distance_may_be_more_than_one_and_certainty_is_never_claimed() -> None:
    far = metrics.score_ordinal(["1"] * 10, ["5"] * 10, LEVELS)["mae"]
    assert far["value"] == far["high"] == 4
    assert 2 < far["low"] < 4
    assert metrics.quadratic_kappa(["1"] * 3, ["1"] * 3, LEVELS) == 0
    assert metrics.mean_absolute_error(["never trained", "1"], ["2", "1"], LEVELS) == 3 / 2


def test_lower_is_better_only_for_distances() -> None:
    assert metrics.upward("mae", 0.5) == -0.5
    assert metrics.upward("mae", metrics.upward("mae", 0.5)) == 0.5
    assert metrics.upward("accuracy", 0.5) == 0.5


def test_token_f1_is_that_of_squad() -> None:
    assert metrics.token_f1(["The red  cat!"], [["red cat"]]) == 1.0
    assert metrics.token_f1(["a red dog"], [["red cat", "blue"]]) == pytest.approx(0.5)
    assert metrics.token_f1(["红色的猫"], [["红猫"]]) == pytest.approx(2 * 2 / 6)
    assert metrics.token_f1(["con mèo đỏ"], [["con mèo"]]) == pytest.approx(0.8)
    assert metrics.token_f1(["", "the"], [[""], ["x"]]) == pytest.approx(0.5)
