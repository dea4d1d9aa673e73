"""Against scikit-learn, and against the slow loops of the published equations."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from epigraph import metrics
from epigraph.errors import DataError
from epigraph.metrics import score_classification

PAIRS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abce")), min_size=1, max_size=60)


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_scores_equal_scikit_learn(pairs):
    truth, predicted = [t for t, _ in pairs], [p for _, p in pairs]
    assert metrics.accuracy(truth, predicted) == pytest.approx(accuracy_score(truth, predicted))
    assert metrics.macro_f1(truth, predicted) == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))


@settings(deadline=None, max_examples=50)
@given(PAIRS)
def test_table_and_classes_equal_scikit_learn(pairs):
    truth, predicted = [t for t, _ in pairs], [p for _, p in pairs]
    table = metrics.confusion(truth, predicted, ["b", "a"])
    assert table.labels[:2] == ("b", "a")
    assert (table.counts == confusion_matrix(truth, predicted, labels=list(table.labels))).all()
    classes = metrics.per_class(truth, predicted, ["b", "a"])
    expected = precision_recall_fscore_support(truth, predicted, labels=list(table.labels), zero_division=0)
    for number, found in enumerate(classes):
        assert (found.precision, found.recall, found.f1, found.rows) == pytest.approx(
            [column[number] for column in expected]
        )


def test_macro_f1_of_a_resample_is_macro_f1_of_its_rows():
    generator = np.random.default_rng(0)
    truth, predicted = generator.choice(list("abcd"), 30), generator.choice(list("abce"), 30)
    index = generator.integers(0, 30, size=(20, 30))
    found = metrics.macro_f1_metric(truth.tolist(), predicted.tolist())(index)
    expected = [f1_score(truth[row], predicted[row], average="macro", zero_division=0) for row in index]
    assert found == pytest.approx(expected)


def test_a_label_never_trained_is_wrong_and_has_its_own_row():
    truth, predicted = ["a", "b", "new"], ["a", "b", "a"]
    table = metrics.confusion(truth, predicted, ["a", "b"])
    assert table.labels == ("a", "b", "new")
    assert table.counts.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert metrics.per_class(truth, predicted, ["a", "b"])[2] == metrics.ClassScore("new", 0.0, 0.0, 0.0, 1)
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    scores = score_classification(truth, predicted, ["a", "b"], probabilities)
    assert scores["accuracy"]["value"] == pytest.approx(2 / 3)
    assert scores["expected_calibration_error"]["value"] == pytest.approx(1 / 3)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(1, 20), st.integers(0, 1000))
def test_calibration_error_equals_the_slow_loop_of_equation_3(rows, labels, bins, seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(labels), size=rows)
    truth = generator.integers(-1, labels, size=rows)
    expected = 0.0
    for m in range(1, bins + 1):
        members = [i for i in range(rows) if (m - 1) / bins < probabilities[i].max() <= m / bins]
        if members:
            right = sum(probabilities[i].argmax() == truth[i] for i in members) / len(members)
            confidence = sum(probabilities[i].max() for i in members) / len(members)
            expected += len(members) / rows * abs(right - confidence)
    assert metrics.expected_calibration_error(probabilities, truth, bins) == pytest.approx(expected)


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not():
    certain = np.eye(3)
    assert metrics.expected_calibration_error(certain, np.array([0, 1, 2])) == 0
    assert metrics.expected_calibration_error(certain, np.array([-1, -1, -1])) == 1


def test_majority_is_the_share_of_the_most_frequent_label():
    assert metrics.majority_share(["a", "b", "b", "c"]) == 0.5


def test_the_scores_are_the_json_of_the_contract():
    truth = ["a"] * 14 + ["b"] * 6
    scores = score_classification(truth, truth, ["a", "b"], np.repeat([[0.8, 0.2], [0.2, 0.8]], [14, 6], axis=0))
    assert json.loads(json.dumps(scores)) == scores
    assert set(scores) == {"accuracy", "macro_f1", "expected_calibration_error", "rows", "majority"}
    assert (scores["rows"], scores["majority"]) == (20, 0.7)
    assert scores["expected_calibration_error"]["value"] == pytest.approx(0.2)
    for name in ("accuracy", "macro_f1"):
        assert scores[name]["value"] == scores[name]["high"] == 1
        assert scores[name]["low"] < 0.9


def test_without_probabilities_there_is_no_calibration_error():
    assert set(score_classification(["a"], ["b"], ["a", "b"])) == {"accuracy", "macro_f1", "rows", "majority"}


def test_many_rows_and_labels_stay_within_memory_and_bounds():
    """The size of banking77, whose scores are asked for after every run."""
    generator = np.random.default_rng(0)
    labels = [f"label {i}" for i in range(77)]
    truth = generator.integers(0, 77, 2000)
    predicted = np.where(generator.random(2000) < 0.8, truth, generator.integers(0, 77, 2000))
    probabilities = generator.dirichlet(np.full(77, 0.1), size=2000).astype(np.float32)
    scores = score_classification([labels[i] for i in truth], [labels[i] for i in predicted], labels, probabilities)
    for name in ("accuracy", "macro_f1", "expected_calibration_error"):
        assert 0 < scores[name]["low"] <= scores[name]["value"] <= scores[name]["high"] < 1


def test_lengths_that_differ_and_no_rows_are_refused():
    with pytest.raises(DataError, match="3 true labels and 2 predictions"):
        metrics.accuracy(["a", "b", "c"], ["a", "b"])
    with pytest.raises(DataError, match="of 0 rows"):
        score_classification([], [], ["a"])
    with pytest.raises(DataError, match=r"probabilities of shape \(1, 3\) for 1 rows and 2 labels"):
        score_classification(["a"], ["a"], ["a", "b"], np.ones((1, 3)))
