import pytest

from epigraph.tasks.balance import choose_metric, skew_reason, weigh
from epigraph.tasks.row import Row


def rows(**counts):
    return [Row(fields={"text": f"{label} {i}"}, target=label) for label, n in counts.items() for i in range(n)]


@pytest.mark.parametrize(
    ("counts", "skewed"),
    [
        ({"a": 50, "b": 50}, False),
        ({"a": 74, "b": 26}, False),
        ({"a": 75, "b": 25}, True),
        ({"a": 31, **{f"l{i}": 7 for i in range(9)}, "z": 6}, True),
        ({f"l{i}": 10 for i in range(10)}, False),
        ({}, False),
    ],
)
def test_skew(counts, skewed):
    assert bool(skew_reason(counts)) is skewed


def test_metric_has_a_reason_with_numbers():
    assert choose_metric("classification", rows(a=80, b=20)) == (
        "macro_f1",
        "label 'a' has 80 of 100 rows (80%), 1.6 times the mean share",
    )
    assert choose_metric("classification", rows(a=5, b=5))[0] == "accuracy"
    assert choose_metric("generation", [Row(fields={}, target="three short words")] * 3)[0] == "exact_match"
    assert choose_metric("generation", [Row(fields={}, target="now these are four")] * 3)[0] == "bleu"
    assert choose_metric("generation", [Row(fields={}, target="房间隔音效果极差非常吵")] * 3)[0] == "bleu"


def test_weights_have_mean_one_and_follow_the_inverse_root():
    weights = weigh({"a": 100, "b": 4, "c": 0})
    assert set(weights) == {"a", "b"}
    assert sum(weights.values()) / 2 == pytest.approx(1)
    assert weights["b"] / weights["a"] == pytest.approx(5)
